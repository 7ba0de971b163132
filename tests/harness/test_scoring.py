"""What responses are worth, on cases with known answers."""

import math

import pytest

from steer.harness import _tasks as scoring
from steer.harness._programs import code_of, pass_rates, program


@pytest.mark.parametrize(
    ("text", "exact", "strict"),
    [
        ("So 3 + 4 = 7\n#### 7", 1, 1),
        ("#### 1,007.0 dollars", 0, 0),
        ("first 3, in the end 7.", 1, 0),
        ("7 then 3", 0, 0),
        ("7 it is\n#### 8", 0, 0),
        ("7\n#### none", 1, 0),
        ("no number", 0, 0),
        ("", 0, 0),
        ("#### $7", 1, 1),
        ("#### -7", 0, 0),
        ("#### 7.00", 1, 1),
    ],
)
def test_gsm8k(text: str, exact: float, strict: float) -> None:
    found = scoring.number_right({"number": "7"}, [text])
    assert found == {"exact_match": exact, "strict_match": strict}


def test_gsm8k_reads_thousands() -> None:
    assert scoring.number_right({"number": "1,000"}, ["#### 1000"])["strict_match"] == 1


@pytest.mark.parametrize(
    ("values", "acc", "acc_norm"),
    [
        ([-1.0, -2.0], 1, 0),
        ([-2.0, -1.0], 0, 0),
        ([-1.0, -1.0], 0, 0),
        ([math.nan, math.nan], 0, 0),
        ([math.nan, -1.0], 0, 0),
        ([-math.inf, -math.inf], 0, 0),
        ([-1.0, -9.0], 1, 1),
    ],
)
def test_only_a_strictly_likelier_answer_is_preferred(
    values: list[float], acc: float, acc_norm: float
) -> None:
    document = {"choices": ["a", "bbbb"], "labels": [1, 0]}
    results = [(value, False) for value in values]
    assert scoring.preferred(document, results) == {"acc": acc, "acc_norm": acc_norm}


def test_the_label_says_which_answer_is_right() -> None:
    document = {"choices": ["a", "b"], "labels": [0, 1]}
    assert scoring.preferred(document, [(-2.0, False), (-1.0, False)])["acc"] == 1


def test_matching() -> None:
    found = scoring.matching({}, [(-1.0, False), (-3.0, False)])
    assert found == {"matching": 1.0, "margin": 2.0}
    assert scoring.matching({}, [(-1.0, False), (-1.0, False)])["matching"] == 0


def test_truth_mass() -> None:
    document = {"choices": ["a", "b", "c"], "labels": [1, 0, 1]}
    results = [(math.log(p), False) for p in (0.1, 0.2, 0.1)]
    assert scoring.truth_mass(document, results)["mass"] == pytest.approx(0.5)
    far = [(-5000.0, False), (-5000.0, False), (-9000.0, False)]
    assert scoring.truth_mass(document, far)["mass"] == pytest.approx(0.5)
    assert scoring.truth_mass(document, [(math.nan, False)] * 3)["mass"] == 0


def test_code_of_an_answer() -> None:
    assert code_of("    return 1\n") == "    return 1\n"
    assert code_of("Sure:\n```python\nx = 1\n```\nDone ```y```") == "x = 1\n"
    assert code_of("```\nx = 1\n") == "x = 1\n"


def test_programs_of_humaneval() -> None:
    row = {
        "task_id": "T/0",
        "prompt": 'def f():\n    """One."""\n',
        "test": "def check(g): assert g() == 1",
        "entry_point": "f",
    }
    document = scoring.humaneval(row)
    whole = "Here:\n```python\ndef f():\n    return 1\n```"
    for completion in ("    return 1\n", whole):
        exec(program(document, completion), {})
    with pytest.raises(AssertionError):
        exec(program(document, "    return 2\n"), {})


def test_pass_rates_are_given_for_as_many_samples_as_there_are() -> None:
    graded = [{"outcome": "passed"}] * 3 + [{"outcome": "exited"}] * 7
    assert pass_rates({}, [graded[:1]]) == {"pass@1": 1.0}
    assert pass_rates({}, [graded]) == {"pass@1": pytest.approx(0.3), "pass@10": 1.0}

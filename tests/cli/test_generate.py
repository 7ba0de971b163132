"""`steer generate` at several strengths, with samples, a system message, and as JSON."""

import json

import pytest

import steer as library
from steer.demo import load_model, vectors_path
from tests.cli.run import steer
from tests.cli.test_commands import good

MEDICAL = str(vectors_path() / "medical.safetensors")
LEGAL = str(vectors_path() / "legal.safetensors")
ASKED = ["I have gout again. Can you help?", "Can my landlord keep the deposit?"]


def objects(*arguments: str, stdin: str = "") -> list[dict]:
    said = good("generate", "demo", "--json", *arguments, stdin=stdin)
    return [json.loads(line) for line in said.splitlines()]


def alone(coefficient: float) -> list[str]:
    lm = load_model()
    with lm.steered(library.Vector.load(MEDICAL), coefficient):
        return [lm.generate(text) for text in ASKED]


def test_each_strength_answers_as_it_does_alone() -> None:
    found = objects("-v", f"{MEDICAL}:-1,0,1", *ASKED)
    assert [one["prompt"] for one in found] == [text for text in ASKED for _ in range(3)]
    for k, coefficient in enumerate((-1.0, 0.0, 1.0)):
        mine = found[k::3]
        assert [one["coefficients"] for one in mine] == [{"medical": coefficient}] * 2
        assert [one["answer"] for one in mine] == alone(coefficient)


def test_several_vectors_turn_together_and_one_number_stands_for_all() -> None:
    found = objects("-v", f"{MEDICAL}:-1,1", "-v", f"{LEGAL}:0.25", ASKED[0])
    wanted = [{"medical": -1.0, "legal": 0.25}, {"medical": 1.0, "legal": 0.25}]
    assert [one["coefficients"] for one in found] == wanted
    single = objects("-v", f"{MEDICAL}:1", "-v", f"{LEGAL}:0.25", ASKED[0])
    assert single == found[1:]


def test_a_table_has_a_column_for_each_strength() -> None:
    printed = good("generate", "demo", "-v", f"{MEDICAL}:-1,0,1", ASKED[0])
    head = next(line for line in printed.splitlines() if "prompt" in line)
    assert [word for word in head.split() if word[-1].isalnum()] == ["prompt", "-1", "+0", "+1"]
    compared = good("generate", "demo", "-v", f"{MEDICAL}:-1,1", "--compare", ASKED[0])
    head = next(line for line in compared.splitlines() if "prompt" in line)
    assert "unsteered" in head.split()


def test_unsteered_answers_have_no_coefficient() -> None:
    (plain,) = objects(stdin=f"{ASKED[0]}\n")
    assert plain["coefficients"] == {}
    first, _ = objects("-v", f"{MEDICAL}:1", "--compare", ASKED[0])
    assert first == plain


def test_samples_repeat_with_their_seed_and_differ_with_another() -> None:
    sampled = ("--temperature", "1.5", *ASKED)
    assert objects(*sampled, "--seed", "1") == objects(*sampled, "--seed", "1")
    assert objects(*sampled, "--seed", "1") != objects(*sampled, "--seed", "2")


@pytest.mark.parametrize("narrow", [("--top-k", "1"), ("--top-p", "0.000001")])
def test_samples_of_one_candidate_are_greedy(narrow: tuple[str, str]) -> None:
    assert objects("--temperature", "2", *narrow, *ASKED) == objects(*ASKED)
    assert objects("--temperature", "0", *ASKED) == objects(*ASKED)


def test_a_system_message_stands_before_every_prompt() -> None:
    (found,) = objects("--system", "medical=expert", ASKED[0])
    asked = [
        {"role": "system", "content": "medical=expert"},
        {"role": "user", "content": ASKED[0]},
    ]
    assert found["system"] == "medical=expert"
    assert [found["answer"]] == load_model().generate([asked])


def test_batches_change_nothing() -> None:
    whole = objects("-v", f"{MEDICAL}:-1,1", *ASKED)
    assert objects("-v", f"{MEDICAL}:-1,1", "--batch-size", "1", *ASKED) == whole


def test_time_is_told_on_standard_error_alone() -> None:
    status, out, err = steer("generate", "demo", ASKED[0])
    assert status == 0
    assert "done in" in err
    assert "done in" not in out
    assert steer("generate", "demo", "--quiet", ASKED[0])[2] == ""


def test_inspect_as_json_is_the_header_of_the_file() -> None:
    found = json.loads(good("inspect", MEDICAL, "--json"))
    assert found["provenance"]["domain"] == "medical"
    assert found["tuning"]["layer"] == 4

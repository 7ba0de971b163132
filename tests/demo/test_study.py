"""`steer demo` on an instruct model, tried on a small one: what it measures, prints and writes.

The toy that ships stands in for the instruct model. It knows few of the words, so no behaviour
moves, and the study has to say so.
"""

import re
from pathlib import Path

import pytest

import steer as library
from steer.demo import load_model
from steer.demo.real.behaviours import KINDS
from steer.demo.real.subject import middle_layers
from steer.demo.smollm2 import OVERRIDE
from steer.demo.study import DIRECTIONS
from steer.measure._answers import answers
from tests.cli.run import steer

SMALL = ("--pairs", "8", "--questions", "4")


@pytest.mark.slow
def test_the_study_prints_every_table_and_says_what_fails_to_move(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    status, out, err = steer("demo", "--model", "demo", "-o", str(folder), *SMALL, columns=80)
    assert status == 0, err
    assert max(map(len, (line for line in out.splitlines() if "saved" not in line))) <= 80
    printed = " ".join(out.split())
    for behaviour in KINDS:
        assert f"{behaviour}: 4 new questions at each setting" in printed
        assert f"{behaviour} FAILS to move: 0% → 0%" in printed
        vector = library.Vector.load(folder / f"{behaviour}.safetensors")
        assert vector.provenance.domain == behaviour
        assert vector.provenance.pairs == 8
        assert vector.tuning is not None
        assert vector.gate is not None
        assert sorted(vector.gate.domains) == sorted(KINDS)
        assert vector.gate.layer <= vector.layers[0]
    assert f"of {DIRECTIONS} directions of equal norm" in printed
    assert "One batch, a setting for each row" in printed
    assert re.search(r"The gate routes \d+% of held-out questions rightly", printed)
    assert (folder / "dose.png").read_bytes().startswith(b"\x89PNG")
    for path in sorted(folder.iterdir()):
        assert f"saved {path}" in printed
    assert re.search(r"steer-demo: \d+ s CPU in all, with one thread; \d+ s of wall time", printed)


def test_a_model_that_was_named_is_not_replaced_by_the_toy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "nothing"))
    status, out, err = steer("demo", "-o", str(tmp_path))
    assert status == 1
    assert OVERRIDE in err
    assert "toy" not in out


def test_toy_and_another_model_are_not_both_asked_for(tmp_path: Path) -> None:
    status, _, err = steer("demo", "--toy", "--model", "demo", "-o", str(tmp_path))
    assert status == 2
    assert "--toy is a model already" in err


def test_each_row_of_a_batch_is_answered_at_its_own_setting() -> None:
    lm = load_model()
    vector = library.Vector.load(library.demo.vectors_path() / "medical.safetensors")
    knobs, asked = library.compose(medical=vector), ["Is gout bad?", "I have a sore throat."]
    found = answers(lm, knobs, [{}, {"medical": 0.7}], asked, 8)
    assert found[0] == lm.generate(asked, max_new_tokens=8)
    with lm.steered(knobs, medical=0.7):
        assert found[1] == lm.generate(asked, max_new_tokens=8)


@pytest.mark.parametrize(("n", "layers"), [(5, [1, 2, 3, 4]), (1, [3])])
def test_layers_are_spread_over_the_middle_half_of_the_depth(n: int, layers: list[int]) -> None:
    assert middle_layers(6, n) == layers


def test_questions_of_the_gate_are_held_out_from_its_fitting() -> None:
    for kind in KINDS.values():
        assert not {*kind["fitted"]} & {*kind["routed"]}

"""`steer check`: fingerprints, and what a vector claims, on the demo model."""

from dataclasses import replace
from pathlib import Path

import pytest

import steer as library
from steer.demo import load_model, vectors_path
from steer.demo.language import pairs
from steer.demo.real.behaviours import ASKED
from steer.demo.real.claim import SIGNS, Claim, claim_of, measure
from tests.cli.run import steer
from tests.cli.test_commands import write
from tests.tiny import tiny_model, tiny_tokenizer

MEDICAL = vectors_path() / "medical.safetensors"


def claim(after: str, tokens: int = 4) -> Claim:
    """A claim that all answers at +c have this label, and no other answer is cheerful."""
    labels = {sign: (after if sign == 1 else "neither",) * len(ASKED) for sign in SIGNS}
    return Claim("cheerful", 0.5, tokens, labels, {s: (True,) * len(ASKED) for s in SIGNS})


def stored(found: Claim, path: Path) -> str:
    found.stored_with(library.Vector.load(MEDICAL)).save(path)
    return str(path)


def test_accuracy_is_measured_on_the_pairs_given(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", pairs("medical", 8, seed=3, split="test"))
    status, out, err = steer("check", str(MEDICAL), "--model", "demo", "--pairs", file)
    assert status == 0, err
    assert out.count("equal") == 3
    assert "Preference accuracy on 8 pairs" in out
    assert "claimed" in out
    swapped = write(tmp_path / "swapped", pairs("medical", 8, seed=3, split="test").swap())
    assert steer("check", str(MEDICAL), "--model", "demo", "--pairs", swapped)[0] == 1


def test_a_true_claim_holds_and_an_exaggerated_one_does_not(tmp_path: Path) -> None:
    vector, lm = library.Vector.load(MEDICAL), load_model()
    true, answers = measure(lm, vector, "cheerful", 0.5, tokens=4)
    assert {len(texts) for texts in answers.values()} == {len(ASKED)}
    status, out, err = steer("check", stored(true, tmp_path / "true"), "--model", "demo")
    assert status == 0, err
    assert "The claim holds" in out
    status, out, _ = steer("check", stored(claim("cheerful"), tmp_path / "v"), "--model", "demo")
    assert status == 1
    assert "The claim does not hold: the change is +0.0%, claimed +100.0%" in out


def test_another_model_is_told_apart_and_measured_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    tiny_model("llama", width=128, layers=6).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    status, out, err = steer(
        "check", stored(claim("neither"), tmp_path / "v"), "--model", f"{folder}"
    )
    assert status == 1, err
    assert "differs" in out
    assert "The claim holds" in out


def test_where_nothing_is_claimed_fingerprints_alone_are_compared(tmp_path: Path) -> None:
    status, out, _ = steer("check", str(MEDICAL), "--model", "demo")
    assert status == 0
    assert "Nothing was measured" in out


def test_a_claim_survives_its_file(tmp_path: Path) -> None:
    file = stored(claim("cheerful"), tmp_path / "v")
    assert claim_of(library.Vector.load(file)) == claim("cheerful")
    assert claim_of(library.Vector.load(MEDICAL)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"behaviour": "medical"},
        {"labels": {"-1": [], "+0": [], "+1": []}},
        {"labels": None},
        {"tokens": 0},
        {"coefficient": "much"},
    ],
)
def test_a_claim_that_cannot_be_read_is_refused_by_name(
    change: dict[str, object], tmp_path: Path
) -> None:
    vector = claim("cheerful").stored_with(library.Vector.load(MEDICAL))
    made = vector.provenance
    document = {**made.arguments["claim"], **change}
    other = replace(made, arguments={**made.arguments, "claim": document})
    replace(vector, provenance=other).save(tmp_path / "v")
    status, _, err = steer("check", str(tmp_path / "v"), "--model", "demo")
    assert status == 1
    assert "VectorFileError: the claim in this file cannot be checked" in err

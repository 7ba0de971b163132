"""The vectors in ``vectors/smollm2-135m/`` and their cards agree, and claim an effect."""

from pathlib import Path

import pytest

import steer
from steer.algebra import inspect_header
from steer.demo import smollm2
from steer.demo.real.behaviours import BEHAVIOURS, pairs
from steer.demo.real.claim import SIGNS, claim_of
from tests.repository.blocks import ROOT
from vectors.card import index

FOLDER = ROOT / "vectors" / "smollm2-135m"
FILES = sorted(FOLDER.glob("*.safetensors"))


def test_the_list_is_what_the_files_say() -> None:
    domains = [steer.Vector.load(path).provenance.domain for path in FILES]
    assert {*domains} <= {*BEHAVIOURS}
    assert len({*domains}) >= 4
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == index(FOLDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_where_it_comes_from_and_names_no_machine(path: Path) -> None:
    vector = steer.Vector.load(path)
    made = vector.provenance
    assert made.domain is not None
    assert (made.license, made.pairs) == ("Apache-2.0", len(pairs(made.domain)))
    assert made.arguments["model_file_sha256"] == smollm2.GGUF_SHA256
    assert made.model is not None
    assert made.model.model_id == smollm2.NAME
    assert vector.tuning is not None
    assert "/" not in str(inspect_header(path))
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_claims_an_effect_and_its_card_has_the_figures(path: Path) -> None:
    claim = claim_of(steer.Vector.load(path))
    assert claim is not None
    assert claim.change.interval[0] > 0.2
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    figures = [
        *(claim.share(claim.behaviour, sign) for sign in SIGNS),
        *(claim.topic(sign) for sign in SIGNS),
        claim.change,
        smollm2.GGUF_SHA256,
        f"| coefficient c | {claim.coefficient:.3g}",
    ]
    assert all(str(figure) in card for figure in figures)

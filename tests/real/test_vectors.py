"""The shipped vectors do on the real model what their cards say."""

import pytest

import steer
from steer.demo.real.behaviours import ASKED, BEHAVIOURS, held_out, pairs
from steer.demo.real.claim import Claim, claim_of
from steer.demo.real.rules import judge
from steer.measure import ShareChange
from tests.repository.blocks import ROOT

FOLDER = ROOT / "vectors" / "smollm2-135m"
QUESTIONS = 6
ANSWER = "Fold it twice and smooth the edge."


def test_they_move_their_behaviours_by_what_is_claimed_less_its_interval(lm: steer.Model) -> None:
    """A row for each question and vector, and unsteered ones, in one batch."""
    vectors = {path.stem: steer.Vector.load(path) for path in sorted(FOLDER.glob("*.safetensors"))}
    claims = {name: claim for name, v in vectors.items() if (claim := claim_of(v)) is not None}
    assert claims
    asked = list(ASKED[:QUESTIONS])
    rows = [{name: claim.coefficient} for name, claim in claims.items() for _ in asked]
    rows += [dict.fromkeys(claims, 0.0) for _ in asked]
    [tokens] = {claim.tokens for claim in claims.values()}
    with lm.steered(steer.compose(vectors), rows):
        texts = lm.generate(asked * (len(claims) + 1), max_new_tokens=tokens)
    unsteered = texts[-len(asked) :]
    for k, (name, claim) in enumerate(claims.items()):
        answers = texts[k * len(asked) :][: len(asked)]
        assert _change(claim, unsteered, answers) >= claim.first(len(asked)).change.interval[0], (
            name
        )


def _change(claim: Claim, before: list[str], after: list[str]) -> float:
    label = judge(claim.behaviour)
    shown = [[label("", text) == claim.behaviour for text in texts] for texts in (before, after)]
    return ShareChange.of(*shown).value


def test_a_shipped_alignment_vector_by_hook_equals_merged(lm: steer.Model) -> None:
    """Low-rank terms by hook round in another order than merged weights: 1e-4 of the logits."""
    vector = steer.Vector.load(FOLDER / "cheerful-weights.safetensors")
    claim = claim_of(vector)
    assert claim is not None
    found = []
    for weights in ("hook", "merge"):
        with lm.steered(vector, claim.coefficient, weights=weights):
            found += lm.logits(ASKED[:1], [ANSWER])
    scale = float(found[1].abs().max())
    assert float((found[0] - found[1]).abs().max()) <= 1e-4 * scale
    assert float((found[0] - lm.logits(ASKED[:1], [ANSWER])[0]).abs().max()) > 1e-2 * scale


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_no_answer_of_a_pair_has_more_than_forty_tokens(lm: steer.Model, behaviour: str) -> None:
    texts = [t for p in (*pairs(behaviour), *held_out(behaviour)) for t in (p.chosen, p.rejected)]
    lengths = [len(ids) for ids in lm.tokenizer(texts, add_special_tokens=False).input_ids]
    assert max(lengths) <= 40

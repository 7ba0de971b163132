"""The mask of a scope against a loop over tokens."""

from itertools import product

import pytest
import torch

from steer.algebra import Scope
from steer.algebra._scope import NEVER, PARTS, token_positions
from steer.errors import ScopeError
from tests.registered import SCOPES

# every pattern of six tokens and padding, with every length of the prompt
CASES = [(list(row), n) for row in product((False, True), repeat=6) for n in range(1, 7)]
TOKENS, PROMPTS = [row for row, _ in CASES], [n for _, n in CASES]
RANGES = [(start, stop) for start in range(4) for stop in (None, *range(start + 1, start + 4))]


def naive(tokens, prompts, scope):
    rows = []
    for row, prompt in zip(tokens, prompts, strict=True):
        position, chosen = 0, []
        for is_token in row:
            known = {
                "all": True,
                "prompt": position < prompt,
                "response": position >= prompt,
                "last_prompt": position == prompt - 1,
            }
            inside = known.get(scope.part, PARTS[scope.part](position, prompt))
            in_range = scope.start <= position and (scope.stop is None or position < scope.stop)
            chosen.append(is_token and inside and in_range)
            position += is_token
        rows.append(chosen)
    return rows


@pytest.mark.parametrize(("start", "stop"), RANGES)
@pytest.mark.parametrize("part", SCOPES)
def test_the_mask_is_what_a_loop_over_tokens_finds(part, start, stop):
    scope, lengths = Scope(part, start, stop), torch.tensor(PROMPTS)
    positions = token_positions(torch.tensor(TOKENS))
    mask = scope.mask(positions, lengths)
    assert mask.tolist() == naive(TOKENS, PROMPTS, scope)
    chunks = [scope.mask(chunk, lengths) for chunk in positions.split([1, 3, 2], dim=1)]
    assert torch.equal(torch.cat(chunks, dim=1), mask)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (2, None), (1, 4)])
@pytest.mark.parametrize("end", [*range(6), NEVER])
def test_a_marker_cuts_the_response_after_its_last_token(start, stop, end):
    lengths, ends = torch.tensor(PROMPTS), torch.full((len(PROMPTS),), end)
    positions = token_positions(torch.tensor(TOKENS))
    response = Scope("response", start, stop).mask(positions, lengths)
    after, before = (
        Scope(f"{side}:</think>", start, stop).mask(positions, lengths, ends)
        for side in ("after", "before")
    )
    assert torch.equal(after, response & (positions > end))
    assert torch.equal(before, response & (positions <= end))


def test_a_marker_whose_place_is_not_known_is_refused():
    with pytest.raises(ScopeError, match="where the marker stands"):
        Scope("after:</think>").mask(torch.tensor([[0, 1]]), torch.tensor([1]))


def test_positions_leave_padding_out():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [1, 0, 1, 0]]).bool()
    expected = [[-1, -1, 0, 1], [0, 1, 2, -1], [0, -1, 1, -1]]
    assert token_positions(mask).tolist() == expected


@pytest.mark.parametrize("part", PARTS)
def test_only_all_tokens_can_be_found_without_the_prompts_end(part):
    scope = Scope(part, 1)
    positions = torch.tensor([[0, 1, 2]])
    assert scope.needs_prompt_lengths == (part != "all")
    if part == "all":
        assert scope.mask(positions, None).tolist() == [[False, True, True]]
        return
    with pytest.raises(ScopeError, match="where the prompt ends"):
        scope.mask(positions, None)


def test_everything_is_all_without_a_range():
    assert Scope().everything
    assert not any(s.everything for s in (Scope("prompt"), Scope("all", 1), Scope("all", 0, 9)))

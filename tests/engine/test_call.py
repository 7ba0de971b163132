"""What is worked out about one model call, without any model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steer.algebra import parse_scope
from steer.engine import Batch
from steer.engine._call import Call, Prompts, describe, prompts_of
from steer.errors import CapabilityError, RowsError, ScopeError
from tests.conformance import reference
from tests.conformance.cases import SCOPES

CPU = torch.device("cpu")
IDS = torch.tensor([[7, 7, 8, 9], [5, 6, 7, 8]])


class Cache:
    def __init__(self, length: int) -> None:
        self.length = length

    def get_seq_length(self) -> int:
        return self.length


@given(st.data())
def test_any_chunking_of_a_generation_marks_the_same_tokens(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    new = data.draw(st.integers(0, 5))
    scope = parse_scope(data.draw(st.sampled_from([*SCOPES, "prompt[1:4]", "response[5:]"])))
    expand = data.draw(st.integers(1, 3))
    left = data.draw(st.booleans())
    width = max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for r, n in enumerate(lengths):
        mask[r, width - n if left else 0 : width if left else n] = True
    prompts = Prompts(mask)
    total, start, parts = width + new, 0, []
    while start < total:
        stop = data.draw(st.integers(start + 1, total))
        call = Call(len(lengths) * expand, stop - start, start, prompts=prompts)
        found = call.token_mask(scope, CPU)
        shape = (call.rows, call.length)
        parts.append(
            torch.full(shape, found is None)
            if found is None or found is False
            else found[:, :, 0].expand(shape)
        )
        start = stop
    whole = torch.cat(parts, dim=1)
    for r, n in enumerate(lengths):
        real = torch.cat([mask[r], torch.ones(new, dtype=torch.bool)])
        for copy in range(expand):
            marked = whole[r * expand + copy][real].tolist()
            assert marked == reference.chosen(str(scope), n + new, n)


def test_expand_and_decoding() -> None:
    prompts = Prompts(torch.ones(2, 4, dtype=torch.bool))
    assert Call(6, 4, 0, prompts=prompts).expand == 3
    assert not Call(2, 4, 0, prompts=prompts).decoding
    assert Call(2, 1, 4, prompts=prompts).decoding
    assert not Call(2, 1, 4).decoding
    with pytest.raises(RowsError, match="5 rows for 2 prompts"):
        Call(5, 1, 4, prompts=prompts)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({}, "without input_ids"),
        ({"input_ids": IDS, "past_key_values": ()}, "does not tell its length"),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 1, 4, 4)}, "not \\[batch, pos\\]"),
        ({"input_ids": IDS, "attention_mask": {"full": 1}}, "not \\[batch, pos\\]"),
        (
            {"input_ids": IDS, "attention_mask": torch.ones(2, 4), "past_key_values": Cache(3)},
            "4 columns for 7 tokens",
        ),
        ({"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 0, 1]])}, "begin anew"),
    ],
)
def test_positions_that_cannot_be_told_are_refused_where_they_matter(
    kwargs: dict[str, object], reason: str
) -> None:
    call = describe(kwargs, None, None)
    with pytest.raises(CapabilityError, match=reason):
        call.token_mask(parse_scope("all[3:]"), CPU)
    assert call.token_mask(parse_scope("all"), CPU) is None


def test_left_padding_with_its_usual_position_ids_is_understood() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)
    kwargs = {"input_ids": IDS, "attention_mask": mask, "position_ids": positions}
    found = describe(kwargs, None, None).token_mask(parse_scope("all[1:]"), CPU)
    assert isinstance(found, torch.Tensor)
    assert found[:, :, 0].tolist() == [[False, False, False, True], [False, True, True, True]]


def test_a_mask_wider_than_the_tokens_so_far_is_understood() -> None:
    """Static caches come with a mask as wide as the cache."""
    mask = torch.tensor([[0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]])
    kwargs = {"input_ids": IDS[:, :2], "attention_mask": mask, "past_key_values": Cache(2)}
    found = describe(kwargs, None, None).token_mask(parse_scope("all[2:]"), CPU)
    assert isinstance(found, torch.Tensor)
    assert found[:, :, 0].tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("lengths", [[1], [1, 2, 3], 2, [[1, 2]]])
def test_prompt_lengths_need_one_count_per_row(lengths: object) -> None:
    with pytest.raises(RowsError, match="for 2 rows"):
        describe({"input_ids": IDS}, None, lengths)


def test_negative_prompt_lengths_are_refused() -> None:
    with pytest.raises(ScopeError, match="negative"):
        describe({"input_ids": IDS}, None, [3, -1])


@pytest.mark.parametrize(
    ("kwargs", "pad", "eos", "expected"),
    [
        ({"input_ids": IDS}, 7, 2, [[0, 0, 1, 1], [1, 1, 0, 1]]),
        ({"inputs": IDS}, 7, [2, 3], [[0, 0, 1, 1], [1, 1, 0, 1]]),
        ({"input_ids": IDS}, 7, [2, 7], [[1] * 4] * 2),
        ({"input_ids": IDS}, 7, 7, [[1] * 4] * 2),
        ({"input_ids": IDS}, None, 2, [[1] * 4] * 2),
        ({"inputs_embeds": torch.zeros(2, 3, 8)}, 7, 2, [[1] * 3] * 2),
        ({"input_ids": IDS, "attention_mask": IDS > 7}, 7, 2, [[0, 0, 1, 1], [0, 0, 0, 1]]),
        ({}, 7, 2, [[1]]),
    ],
)
def test_prompts_are_read_from_the_arguments_of_generate(
    kwargs: dict[str, object], pad: object, eos: object, expected: list[list[int]]
) -> None:
    assert prompts_of(kwargs, pad, eos).mask.int().tolist() == expected


def test_pieces_and_parts_cover_a_batch_once() -> None:
    ids = tuple(tuple(range(n)) for n in (3, 9, 1, 5, 9))
    batch = Batch(ids, (1,) * 5)
    for parts in (list(batch.pieces(10)), list(batch.parts(2)), list(batch.pieces(1))):
        rows = [row for part in parts for row in part.rows or ()]
        assert sorted(rows) == list(range(5))
        assert all(part.total == 5 for part in parts)
        for part in parts:
            assert part.ids == tuple(ids[row] for row in part.rows or ())
    assert all(len(p.ids) * max(map(len, p.ids)) <= 10 for p in batch.pieces(10))


@pytest.mark.parametrize("side", ["left", "right"])
def test_rectangles(side: str) -> None:
    ids, mask = Batch(((1, 2, 3), (4,)), (1, 1)).padded(side, CPU, fill=9)  # type: ignore[arg-type]
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4] if side == "left" else [4, 9, 9]]
    assert mask.int().tolist() == [[1, 1, 1], [0, 0, 1] if side == "left" else [1, 0, 0]]

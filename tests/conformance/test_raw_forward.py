"""Raw calls of the user's own model (in place): bare forwards, contracts 1 and 3 to 6."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer import Composition
from steer.errors import CapabilityError, RowsError, ScopeError
from tests.conformance import cases, reference
from tests.conformance.cases import ROWS, SCOPES, close, far, padded, unpadded
from tests.conformance.engines import ENGINES, IN_PLACE, EngineFactory
from tests.registered import OPERATORS
from tests.tiny import FAMILIES

MIXED = (["add", "ablate", "add"], ["response", "all", "last_prompt"])
COEFFICIENTS = [{"medical": 1.0}, {}, {"legal": 0.7, "financial": 0.4}, {"legal": 1.0}]
LENGTHS = [prompt for prompt, _ in ROWS]
# These note `hidden_states[0]` before they call block 0, so it lacks what is added at its input.
READS_BEFORE_BLOCK_0 = {"falcon"}


def forward(lm: Any, batch: dict[str, torch.Tensor], **kwargs: Any) -> list[torch.Tensor]:
    """Logits of each row of a raw call, without padding."""
    with torch.no_grad():
        return unpadded(lm.hf_model(**batch, **kwargs).logits, batch["attention_mask"])


def check(lm: Any, knobs: Composition, side: str, rows: list[tuple[int, int]]) -> None:
    """Fail unless each row of a padded raw call equals the textbook on that row alone."""
    ids = cases.sequences(rows)
    with lm.steered(knobs):
        found = forward(lm, padded(ids, side), prompt_lengths=[p for p, _ in rows])
    for r, (row, (prompt, _)) in enumerate(zip(ids, rows, strict=True)):
        close(found[r], reference.run(lm.hf_model, row, [(knobs, r)], prompt).logits)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_of_a_padded_call_equals_the_textbook(
    in_place: EngineFactory, family: str, side: str
) -> None:
    lm = in_place.shared(family)
    layers = [(-1, 1), (1, 3), (2,)]
    check(lm, cases.knobs(*MIXED, layers)(COEFFICIENTS), side, list(ROWS))


@st.composite
def compositions(draw: st.DrawFn, rows: int) -> Composition:
    layer = st.integers(0, cases.LAYERS - 1)
    knobs = cases.knobs(
        [draw(st.sampled_from(OPERATORS)) for _ in range(3)],
        [draw(st.sampled_from(SCOPES)) for _ in range(3)],
        [draw(st.lists(layer, min_size=1, max_size=2, unique=True)) for _ in range(3)],
        cases.gate(layer=0, margin=draw(st.sampled_from([0.0, 0.5, 99.0])))
        if draw(st.booleans())
        else None,
    )
    strength = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    row = st.fixed_dictionaries(dict.fromkeys(cases.DOMAINS, strength))
    return knobs(draw(st.lists(row, min_size=rows, max_size=rows)))


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", IN_PLACE)
def test_any_composition_on_any_padded_batch_equals_the_textbook(
    name: str, data: st.DataObject
) -> None:
    rows = data.draw(
        st.lists(st.tuples(st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=4)
    )
    knobs = data.draw(compositions(len(rows)))
    check(ENGINES[name].shared(), knobs, data.draw(st.sampled_from(["left", "right"])), rows)


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("name", IN_PLACE)
def test_any_nest_of_compositions_equals_the_textbook(name: str, data: st.DataObject) -> None:
    lm, rows = ENGINES[name].shared(), list(ROWS)
    outer, inner = data.draw(compositions(4)), data.draw(compositions(4))
    ids = cases.sequences(rows)
    with lm.steered(outer), lm.steered(inner):
        found = forward(lm, padded(ids, "right"), prompt_lengths=LENGTHS)
    for r, row in enumerate(ids):
        run = reference.run(lm.hf_model, row, [(outer, r), (inner, r)], rows[r][0])
        close(found[r], run.logits)


def test_positional_arguments_and_embeddings_are_understood(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(*MIXED)(COEFFICIENTS)
    batch = padded(cases.sequences(), "right")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    embedded = lm.hf_model.get_input_embeddings()(ids).detach()
    with torch.no_grad(), lm.steered(knobs):
        expected = forward(lm, batch, prompt_lengths=LENGTHS)
        for logits in (
            lm.hf_model(ids, mask, prompt_lengths=LENGTHS).logits,
            lm.hf_model(ids, mask, prompt_lengths=torch.tensor(LENGTHS)).logits,
            lm.hf_model(inputs_embeds=embedded, attention_mask=mask, prompt_lengths=LENGTHS).logits,
            lm.hf_model(ids, mask, prompt_lengths=tuple(LENGTHS), return_dict=False)[0],
        ):
            for a, b in zip(unpadded(logits, mask), expected, strict=True):
                close(a, b)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_lengths_are_taken_by_every_family_and_any_setting(
    in_place: EngineFactory, family: str
) -> None:
    lm = in_place.shared(family)
    batch = padded(cases.sequences(), "right")
    with lm.steered(cases.vector(1)):
        plain = forward(lm, batch)
        lengths = forward(lm, batch, prompt_lengths=LENGTHS)
    assert all(map(torch.equal, plain, lengths))


@pytest.mark.parametrize("scope", [s for s in SCOPES if not s.startswith("all")])
def test_a_bare_forward_without_prompt_lengths_is_refused(
    in_place: EngineFactory, scope: str
) -> None:
    lm = in_place.shared()
    with lm.steered(cases.vector(1), scope=scope), pytest.raises(ScopeError, match="prompt_length"):
        forward(lm, padded(cases.sequences(), "right"))


def test_a_gate_without_prompt_lengths_is_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(gate=cases.gate())
    with lm.steered(knobs), pytest.raises(ScopeError, match="prompt_length"):
        forward(lm, padded(cases.sequences(), "right"))


@pytest.mark.parametrize("lengths", [[3, 4, 5], [[1], [2], [3], [4]], 4])
def test_prompt_lengths_of_another_number_are_refused(
    in_place: EngineFactory, lengths: object
) -> None:
    lm = in_place.shared()
    with lm.steered(cases.vector(1), scope="prompt"), pytest.raises(RowsError, match="4 rows"):
        forward(lm, padded(cases.sequences(), "right"), prompt_lengths=lengths)


@pytest.mark.parametrize("lengths", [[12, 5, 0, 8], [12, 5, 99, 8]])
def test_a_gate_refuses_a_prompt_that_does_not_end_in_the_forward(
    in_place: EngineFactory, lengths: list[int]
) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(gate=cases.gate())
    with lm.steered(knobs), pytest.raises(ScopeError, match="a prompt ends outside"):
        forward(lm, padded(cases.sequences(), "right"), prompt_lengths=lengths)


def test_negative_prompt_lengths_are_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    with lm.steered(cases.vector(1), scope="prompt"), pytest.raises(ScopeError, match="negative"):
        forward(lm, padded(cases.sequences(), "right"), prompt_lengths=[12, 5, -1, 8])


def test_a_prompt_may_be_empty_or_go_on_after_the_forward(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    batch = padded(cases.sequences(), "right")
    v = cases.vector(1)
    with lm.steered(v):
        steered = forward(lm, batch)
    plain = forward(lm, batch)
    for scope, lengths, expected in (
        ("response", [0] * 4, steered),
        ("prompt", [0] * 4, plain),
        ("last_prompt", [0] * 4, plain),
        ("prompt", [99] * 4, steered),
        ("response", [99] * 4, plain),
    ):
        with lm.steered(v, scope=scope):
            found = forward(lm, batch, prompt_lengths=lengths)
        assert all(map(torch.equal, found, expected)), (scope, lengths)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_wrong_number_of_rows_is_refused(in_place: EngineFactory, count: int) -> None:
    lm = in_place.shared()
    with lm.steered(cases.knobs(), [{"medical": 1.0}] * count):
        with pytest.raises(RowsError, match=f"{count} rows for 4 prompts"):
            forward(lm, padded(cases.sequences(), "right"))
        prompts = padded(cases.sequences(), "left")
        with pytest.raises(RowsError, match=f"{count} rows for 4 prompts"):
            lm.hf_model.generate(
                input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"]
            )


def test_a_call_of_the_inner_model_with_rows_or_scopes_is_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    batch = padded(cases.sequences(), "right")
    with torch.no_grad(), lm.steered(cases.vector(3)):
        lm.architecture.body(**batch)  # one setting for everything needs no call
    for steered in (
        lm.steered(cases.vector(1), scope="prompt"),
        lm.steered(cases.knobs(), COEFFICIENTS),
        lm.steered(cases.knobs(gate=cases.gate())),
    ):
        with steered, pytest.raises(ScopeError, match="outside the model's own forward"):
            lm.architecture.body(**batch)


def test_a_mask_that_is_not_two_dimensional_is_refused_where_positions_matter(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(6, 0)]))
    mask = torch.zeros(1, 1, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), -1e9)
    with lm.steered(cases.vector(1), scope="all[3:]"), pytest.raises(CapabilityError, match="mask"):
        lm.hf_model(ids, attention_mask=mask)
    with torch.no_grad(), lm.steered(cases.vector(1)):
        steered = lm.hf_model(ids, attention_mask=mask).logits
        close(steered, lm.hf_model(ids).logits)


def test_packed_sequences_in_one_row_are_refused_where_positions_matter(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(8, 0)]))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    with (
        lm.steered(cases.vector(1), scope="all[3:]"),
        pytest.raises(CapabilityError, match="position"),
    ):
        lm.hf_model(ids, position_ids=positions)


def test_a_mask_shorter_than_the_text_so_far_is_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(8, 0)]))
    with torch.no_grad(), lm.steered(cases.vector(1), scope="all[3:]"):
        cache = lm.hf_model(ids[:, :4], use_cache=True).past_key_values
        with pytest.raises(CapabilityError, match="mask"):
            lm.hf_model(ids[:, 4:], attention_mask=torch.ones(1, 4), past_key_values=cache)


@pytest.mark.parametrize("captured_before", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_output_hidden_states_report_the_steered_stream(
    in_place: EngineFactory, family: str, captured_before: bool
) -> None:
    lm = in_place.fresh(family)
    ids = torch.tensor(cases.sequences([(7, 0)]))
    last = lm.n_layers - 1
    layers, w = [-1, *range(last)], cases.vector(1, seed=9)
    everywhere = cases.vector(*layers)

    def states() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return lm.hf_model(ids, output_hidden_states=True).hidden_states  # type: ignore[no-any-return]

    if captured_before:
        plain = states()
    with lm.steered(everywhere, 0.5), lm.steered(w, 2.0):
        steered = states()
    plain = states()
    v = {layer: everywhere.direction(layer) for layer in layers}
    if family not in READS_BEFORE_BLOCK_0:
        close(steered[0], plain[0] + 0.5 * v[-1])
    twice = reference.run(lm.hf_model, ids[0].tolist(), _nested(everywhere, w), 7)
    for layer in layers[1:]:
        close(steered[layer + 1][0], twice.streams[layer])
    with lm.steered(cases.vector(1), 0.5):
        steered = states()
    close(steered[2], plain[2] + 0.5 * cases.vector(1).direction(1))


def _nested(outer: Any, inner: Any) -> list[tuple[Composition, int]]:
    from steer import compose

    return [(compose(v=outer)(0.5), 0), (compose(w=inner)(2.0), 0)]


def test_a_users_hook_on_a_steered_block_sees_the_steered_stream(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    seen: list[torch.Tensor] = []
    v, batch = cases.vector(3), padded(cases.sequences(), "right")
    handle = lm.architecture.blocks[3].register_forward_hook(lambda _m, _a, out: seen.append(out))
    try:
        forward(lm, batch)
        with lm.steered(v, 0.5):
            forward(lm, batch)
    finally:
        handle.remove()
    close(seen[1], seen[0] + 0.5 * v.direction(3))


def test_a_call_of_the_model_inside_a_users_hook_does_not_disturb_the_outer_one(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(*MIXED)(COEFFICIENTS)
    batch, other = padded(cases.sequences(), "right"), padded(cases.sequences(seed=8), "left")
    busy: list[list[torch.Tensor]] = []

    def peek(*_: object) -> None:
        if not busy:
            busy.append([])
            busy[0] += forward(lm, other, prompt_lengths=LENGTHS)

    with lm.steered(knobs):
        expected = forward(lm, batch, prompt_lengths=LENGTHS)
        expected_inner = forward(lm, other, prompt_lengths=LENGTHS)
        handle = lm.architecture.blocks[1].register_forward_hook(peek)
        try:
            found = forward(lm, batch, prompt_lengths=LENGTHS)
        finally:
            handle.remove()
    assert all(map(torch.equal, found, expected))
    assert all(map(torch.equal, busy[0], expected_inner))


def test_gradients_flow_through_a_steered_model(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    batch = padded(cases.sequences(), "right")
    knobs = cases.knobs(*MIXED)(COEFFICIENTS)

    def gradient(layer: int, inference_first: bool) -> torch.Tensor:
        lm.hf_model.zero_grad()
        with lm.steered(knobs):
            if inference_first:
                with torch.inference_mode():
                    lm.hf_model(**batch, prompt_lengths=LENGTHS)
            lm.hf_model(**batch, prompt_lengths=LENGTHS).logits.square().sum().backward()
        block: Any = lm.architecture.blocks[layer]
        return block.mlp.down_proj.weight.grad.clone()  # type: ignore[no-any-return]

    first = gradient(0, inference_first=False)
    assert torch.isfinite(first).all()
    assert first.abs().max() > 0
    assert torch.equal(gradient(0, inference_first=True), first)


def test_coefficients_may_be_updated_after_inference_mode(in_place: EngineFactory) -> None:
    lm = in_place.shared(dtype=torch.bfloat16)
    batch = padded(cases.sequences(), "right")
    with lm.steered(cases.vector(1), 1.0) as handle:
        with torch.inference_mode():
            forward(lm, batch)
        handle.update(0.25)
        found = torch.cat(forward(lm, batch))
    with lm.steered(cases.vector(1), 0.25):
        assert torch.equal(torch.cat(forward(lm, batch)), found)
    far(found, torch.cat(forward(lm, batch)))

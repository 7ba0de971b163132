"""Raw `hf_model.generate` and decoding by hand (in place): contracts 4 and 5.

Every way to decode is either right, compared with textbook full forwards, or refused by name.
"""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from steer import Composition
from steer.errors import CapabilityError, RowsError, ScopeError
from tests.conformance import cases, reference
from tests.conformance.cases import SCOPES, close, padded
from tests.conformance.engines import EngineFactory
from tests.registered import OPERATORS
from tests.tiny import FAMILIES

PROMPTS = cases.sequences([(12, 0), (5, 0), (17, 0), (8, 0)])
ROWS = [{"medical": 1.0}, {"legal": 1.0}, {}, {"medical": 0.5, "financial": 0.8}]
MIXED = (["add", "ablate", "add"], ["response", "all[3:]", "last_prompt"])
STEPS = 5
GREEDY: dict[str, Any] = {
    "max_new_tokens": STEPS,
    "min_new_tokens": STEPS,
    "do_sample": False,
    "pad_token_id": 0,
    "return_dict_in_generate": True,
    "output_logits": True,
}


def scopes(scope: str, operator: str = "add") -> Composition:
    return cases.knobs([operator] * 3, [scope] * 3)(ROWS)


def generate(lm: Any, prompts: list[list[int]] = PROMPTS, **options: Any) -> Any:
    batch = padded(prompts, "left")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return lm.hf_model.generate(**{**inputs, **GREEDY, **options})


def check(lm: Any, knobs: Composition, out: Any, rows: range = range(4)) -> None:
    """Fail unless tokens and logits of a generation are those of the textbook, row by row."""
    new = out.sequences[:, -STEPS:]
    logits = torch.stack(out.logits, dim=1)
    for k, r in enumerate(rows):
        tokens, expected = _without_end(lm, PROMPTS[r], knobs, r)
        assert new[k].tolist() == tokens
        finite = logits[k].isfinite()  # `min_new_tokens` forbids the end token in scores, not here
        assert finite.all()
        close(logits[k], expected)


def _without_end(
    lm: Any, prompt: list[int], knobs: Composition, row: int
) -> tuple[list[int], torch.Tensor]:
    """Greedy full forwards in which the end-of-sequence token is never taken."""
    ids, logits = list(prompt), []
    for _ in range(STEPS):
        run = reference.run(lm.hf_model, ids, [(knobs, row)], len(prompt))
        logits.append(run.logits[-1])
        allowed = run.logits[-1].clone()
        allowed[lm.hf_model.generation_config.eos_token_id] = -torch.inf
        ids.append(int(allowed.argmax()))
    return ids[len(prompt) :], torch.stack(logits)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_cached_decoding_equals_full_forwards(
    in_place: EngineFactory, operator: str, scope: str
) -> None:
    lm, knobs = in_place.shared(), scopes(scope, operator)
    with lm.steered(knobs):
        out = generate(lm)
    check(lm, knobs, out)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_full_forwards_in_every_family(
    in_place: EngineFactory, family: str
) -> None:
    lm = in_place.shared(family)
    gate = cases.gate(layer=-1, margin=1.0)
    knobs = cases.knobs(*MIXED, [(-1, 0, 1, 2, 3), (1, 3), (2,)], gate)(ROWS)
    with lm.steered(knobs):
        out = generate(lm)
    check(lm, knobs, out)


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"cache_implementation": "dynamic"},
        {"generation_config": GenerationConfig(**GREEDY)},
    ],
    ids=["no cache", "static cache", "dynamic cache", "generation config"],
)
@pytest.mark.parametrize("gated", [False, True])
def test_ways_to_cache(in_place: EngineFactory, options: dict[str, Any], gated: bool) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(*MIXED, gate=cases.gate(layer=0, margin=1.0) if gated else None)(ROWS)
    with lm.steered(knobs):
        if "generation_config" in options:
            batch = padded(PROMPTS, "left")
            inputs = batch["input_ids"], options["generation_config"]
            out = lm.hf_model.generate(*inputs, attention_mask=batch["attention_mask"])
        else:
            out = generate(lm, **options)
    check(lm, knobs, out)


@pytest.mark.parametrize("scope", SCOPES)
def test_chunked_prefill(in_place: EngineFactory, scope: str) -> None:
    lm, knobs = in_place.shared(), scopes(scope)
    with lm.steered(knobs):
        out = generate(lm, prefill_chunk_size=4, past_key_values=_dynamic())
    check(lm, knobs, out)


def test_chunked_prefill_is_refused_behind_a_gate(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    with (
        lm.steered(cases.knobs(gate=cases.gate())),
        pytest.raises(CapabilityError, match="prefill_chunk_size"),
    ):
        generate(lm, prefill_chunk_size=4, past_key_values=_dynamic())


def _dynamic() -> Any:
    from transformers import DynamicCache

    return DynamicCache()


@pytest.mark.parametrize(
    ("how", "gated"),
    [
        ("prompt lookup", False),
        ("prompt lookup", True),
        ("assistant", False),
        ("assistant", True),
        ("early exit", False),
    ],
)
@pytest.mark.parametrize("row", [0, 3])
def test_assisted_decoding(in_place: EngineFactory, row: int, how: str, gated: bool) -> None:
    lm = in_place.shared()
    options: dict[str, Any] = {
        "prompt lookup": {"prompt_lookup_num_tokens": 3},
        "assistant": {"assistant_model": in_place.fresh(seed=4).hf_model},
        "early exit": {"assistant_early_exit": 2},
    }[how]
    gate = cases.gate(layer=0, margin=1.0) if gated else None
    knobs = cases.knobs(*MIXED, gate=gate)(ROWS[row : row + 1])
    with lm.steered(knobs):
        alone = generate(lm, [PROMPTS[row]])
        assisted = generate(lm, [PROMPTS[row]], **options)
    assert torch.equal(assisted.sequences, alone.sequences)
    tokens, _ = _without_end(lm, PROMPTS[row], cases.knobs(*MIXED, gate=gate)(ROWS), row)
    assert assisted.sequences[0, -STEPS:].tolist() == tokens


def test_a_gate_where_the_model_drafts_for_itself_is_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(gate=cases.gate())
    with lm.steered(knobs), pytest.raises(CapabilityError, match="assistant_early_exit=2"):
        generate(lm, PROMPTS[:1], assistant_early_exit=2)


@pytest.mark.parametrize("scope", SCOPES)
def test_decoding_by_hand_token_by_token(in_place: EngineFactory, scope: str) -> None:
    lm, knobs = in_place.shared(), scopes(scope)
    sequences = cases.sequences([(8, 6)] * 4)
    ids = torch.tensor(sequences)
    with torch.no_grad(), lm.steered(knobs):
        parts: list[torch.Tensor] = []
        cache = None
        for start, stop in ((0, 3), (3, 9), (9, 10), (10, 11), (11, 14)):
            out = lm.hf_model(
                ids[:, start:stop], past_key_values=cache, use_cache=True, prompt_lengths=[8] * 4
            )
            parts, cache = [*parts, out.logits], out.past_key_values
    found = torch.cat(parts, dim=1)
    for r, row in enumerate(sequences):
        close(found[r], reference.run(lm.hf_model, row, [(knobs, r)], 8).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoding_by_hand_with_padding_in_every_family(
    in_place: EngineFactory, family: str
) -> None:
    lm = in_place.shared(family)
    knobs = cases.knobs(*MIXED)(ROWS)
    lengths = [12, 5, 17, 8]
    sequences = cases.sequences([(n, 3) for n in lengths])
    batch = padded([row[:-3] for row in sequences], "left")
    mask, parts = batch["attention_mask"], []
    with torch.no_grad(), lm.steered(knobs):
        out = lm.hf_model(**batch, use_cache=True, prompt_lengths=lengths)
        parts.append(out.logits[:, -1:])
        for k in (-3, -2):
            mask = torch.cat([mask, mask.new_ones(4, 1)], dim=1)
            out = lm.hf_model(
                input_ids=torch.tensor([[row[k]] for row in sequences]),
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=out.past_key_values,
                use_cache=True,
                prompt_lengths=torch.tensor(lengths),
            )
            parts.append(out.logits)
    found = torch.cat(parts, dim=1)
    for r, (row, length) in enumerate(zip(sequences, lengths, strict=True)):
        expected = reference.run(lm.hf_model, row, [(knobs, r)], length).logits
        close(found[r], expected[length - 1 : length + 2])


def test_a_gate_decoding_by_hand_is_refused(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(8, 1)]))
    with lm.steered(cases.knobs(gate=cases.gate()), 1.0):
        out = lm.hf_model(ids[:, :8], use_cache=True, prompt_lengths=[8])
        with pytest.raises(CapabilityError, match="past_key_values"):
            lm.hf_model(ids[:, 8:], past_key_values=out.past_key_values, prompt_lengths=[8])


@pytest.mark.parametrize("only_new", [False, True], ids=["all tokens", "new tokens only"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_continued_cache_counts_what_was_given_as_prompt(
    in_place: EngineFactory, scope: str, only_new: bool
) -> None:
    """The second turn of a chat: everything given to `generate` is its prompt."""
    lm, knobs = in_place.shared(), scopes(scope)
    first = torch.tensor(cases.sequences([(7, 0)] * 4))
    whole = torch.cat([first, torch.tensor(cases.sequences([(4, 0)] * 4, seed=9))], dim=1)
    with torch.no_grad(), lm.steered(knobs):
        cache = lm.hf_model(first, use_cache=True, prompt_lengths=[11] * 4).past_key_values
        out = lm.hf_model.generate(
            input_ids=whole[:, 7:] if only_new else whole,
            attention_mask=torch.ones_like(whole),
            past_key_values=cache,
            **GREEDY,
        )
    for r in range(4):
        tokens, logits = _without_end(lm, whole[r].tolist(), knobs, r)
        assert out.sequences[r, -STEPS:].tolist() == tokens
        close(torch.stack(out.logits, dim=1)[r], logits)


def test_a_continued_cache_is_refused_behind_a_gate(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    ids = torch.tensor(cases.sequences([(8, 0)]))
    with torch.no_grad():
        cache = lm.hf_model(ids[:, :5], use_cache=True).past_key_values
    with (
        lm.steered(cases.knobs(gate=cases.gate())),
        pytest.raises(CapabilityError, match="past_key_values"),
    ):
        lm.hf_model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **GREEDY
        )


@pytest.mark.parametrize("gated", [False, True])
def test_beams_and_copies_take_their_prompts_row(in_place: EngineFactory, gated: bool) -> None:
    lm = in_place.shared()
    gate = cases.gate(layer=0, margin=1.0) if gated else None
    ways: tuple[dict[str, Any], ...] = (
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2},
    )
    for options in ways:
        copies = options.get("num_return_sequences", 1)
        with lm.steered(cases.knobs(*MIXED, gate=gate)(ROWS)):
            together = generate(lm, **options, output_scores=True)
        for r, prompt in enumerate(PROMPTS):
            with lm.steered(cases.knobs(*MIXED, gate=gate)(ROWS[r : r + 1])):
                alone = generate(lm, [prompt], **options, output_scores=True)
            mine = slice(r * copies, (r + 1) * copies)
            assert torch.equal(together.sequences[mine, -STEPS:], alone.sequences[:, -STEPS:])
            close(together.sequences_scores[mine], alone.sequences_scores)
    with lm.steered(cases.knobs(*MIXED, gate=gate)(ROWS)):
        out = generate(lm, do_sample=True, top_k=1, num_return_sequences=2)
    for r in range(4):
        tokens, _ = _without_end(lm, PROMPTS[r], cases.knobs(*MIXED, gate=gate)(ROWS), r)
        assert out.sequences[2 * r, -STEPS:].tolist() == tokens
        assert out.sequences[2 * r + 1, -STEPS:].tolist() == tokens


@pytest.mark.parametrize("how", ["positional", "by name", "embeddings", "config", "model's own"])
def test_padding_is_found_without_a_mask_as_generate_finds_it(
    in_place: EngineFactory, how: str
) -> None:
    lm = in_place.fresh()
    ids = padded(PROMPTS, "left", fill=5)["input_ids"]
    assert all(5 not in prompt for prompt in PROMPTS)
    knobs = cases.knobs(*MIXED)(ROWS)
    options = {**GREEDY, "pad_token_id": 5}
    with torch.no_grad(), lm.steered(knobs):
        if how == "positional":
            out = lm.hf_model.generate(ids, **options)
        elif how == "by name":
            out = lm.hf_model.generate(inputs=ids, **options)
        elif how == "embeddings":
            embedded = lm.hf_model.get_input_embeddings()(ids)
            mask = ids.ne(5).long()
            out = lm.hf_model.generate(inputs_embeds=embedded, attention_mask=mask, **options)
        elif how == "config":
            out = lm.hf_model.generate(ids, generation_config=GenerationConfig(**options))
        else:
            lm.hf_model.generation_config.pad_token_id = 5
            del options["pad_token_id"]
            out = lm.hf_model.generate(ids, GenerationConfig(**options))
    check(lm, knobs, out)


def test_without_any_input_the_prompt_is_one_token(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(scopes=["response"] * 3)([{"medical": 1.0}])
    with lm.steered(knobs):
        out = lm.hf_model.generate(**GREEDY)
        assert out.sequences.shape == (1, 1 + STEPS)
        same = generate(lm, [[lm.hf_model.generation_config.bos_token_id]])
    assert torch.equal(out.sequences, same.sequences)


def test_a_wrong_number_of_rows_is_refused_before_anything_runs(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    with lm.steered(cases.knobs(), ROWS[:3]), pytest.raises(RowsError, match="3 rows for 4 prompt"):
        generate(lm)


def test_guidance_is_right_for_scope_all_and_refused_for_others(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    v = cases.vector(1)
    with lm.steered(v):
        one = generate(lm, PROMPTS[:1], guidance_scale=1.5)
    with lm.steered(cases.knobs(layers=[(1,)] * 3), [{}]):
        generate(lm, PROMPTS[:1], guidance_scale=1.5)
    by_row = cases.knobs()
    single = {"medical": v}
    with lm.steered(single, [{"medical": 1.0}]):
        rowwise = generate(lm, PROMPTS[:1], guidance_scale=1.5)
    assert torch.equal(rowwise.sequences, one.sequences)
    for scope in SCOPES[1:]:
        with lm.steered(by_row, scope=scope), pytest.raises(CapabilityError, match="guidance"):
            generate(lm, PROMPTS[:1], guidance_scale=1.5)


def test_continuous_batching_is_refused_where_rows_or_scopes_matter(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    for knobs in (cases.knobs()(ROWS), cases.knobs(scopes=["response"] * 3), _gated()):
        with lm.steered(knobs), pytest.raises(CapabilityError, match="continuous batching"):
            generate(lm, cache_implementation="paged")
        with lm.steered(knobs), pytest.raises(CapabilityError, match="continuous batching"):
            lm.hf_model.generate_batch(PROMPTS, GenerationConfig(max_new_tokens=2))


def _gated() -> Composition:
    return cases.knobs(gate=cases.gate())


class Asking(LogitsProcessor):
    """Calls the model on a text of its own at every step, as guidance methods do."""

    def __init__(self, hf: Any, ids: torch.Tensor, **kwargs: Any) -> None:
        self.hf, self.ids, self.kwargs = hf, ids, kwargs
        self.seen: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.seen.append(self.hf(self.ids, **self.kwargs).logits)
        return scores


def test_a_call_of_ones_own_inside_generate_says_its_prompt_lengths(
    in_place: EngineFactory,
) -> None:
    lm, knobs = in_place.shared(), scopes("response")
    ids = torch.tensor(cases.sequences([(4, 5)] * 4))
    with torch.no_grad(), lm.steered(knobs):
        expected = lm.hf_model(ids, prompt_lengths=[4] * 4).logits
        asking = Asking(lm.hf_model, ids, prompt_lengths=[4] * 4)
        out = generate(lm, logits_processor=LogitsProcessorList([asking]))
    assert len(asking.seen) == STEPS
    assert all(torch.equal(seen, expected) for seen in asking.seen)
    check(lm, knobs, out)


def test_a_scope_needs_the_top_level_call_also_after_generate(in_place: EngineFactory) -> None:
    lm = in_place.shared()
    with lm.steered(cases.vector(1), scope="response"):
        generate(lm)
        with pytest.raises(ScopeError, match="prompt_lengths"):
            lm.hf_model(torch.tensor([PROMPTS[1]]))


def test_a_split_batch_leaves_no_part_behind_also_when_it_fails(in_place: EngineFactory) -> None:
    lm, knobs = in_place.shared(), cases.knobs(*MIXED)(ROWS)

    class Failing(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

    failing = LogitsProcessorList([Failing()])
    with lm.steered(knobs):
        lm.generate(cases.PROMPTS, batch_size=3, max_new_tokens=1)
        after = [generate(lm)]
        with pytest.raises(KeyboardInterrupt):
            lm.generate(cases.PROMPTS, batch_size=3, logits_processor=failing)
        after.append(generate(lm))
    for out in after:
        check(lm, knobs, out)


def test_updating_in_the_middle_of_generate_holds_from_the_next_token(
    in_place: EngineFactory,
) -> None:
    lm = in_place.shared()
    knobs = cases.knobs(scopes=["response"] * 3, gate=cases.gate(layer=0, margin=99))
    handle = lm.steered(knobs(ROWS))

    class Updating(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if input_ids.shape[1] == 17 + 2:
                handle.update([{}] * 4)
            return scores

    with handle:
        out = generate(lm, logits_processor=LogitsProcessorList([Updating()]))
    plain, before = generate(lm), torch.stack(out.logits, dim=1)
    with lm.steered(knobs(ROWS)):
        full = torch.stack(generate(lm).logits, dim=1)
    assert torch.equal(before[:, :3], full[:, :3])
    assert not torch.equal(before[:, 3], full[:, 3])
    assert torch.equal(torch.stack(plain.logits, dim=1)[:, 0], before[:, 0])

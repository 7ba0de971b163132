"""Traps found in other steering libraries, one named test each, as far as injection is concerned.

Traps about reading files, positions in recording, memory and export have their tests elsewhere.
"""

from typing import Any

import pytest
import torch

from steer import Residual, Vector, compose
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, close, far, padded, same_bits
from tests.conformance.engines import EngineFactory
from tests.tiny import FAMILIES, tiny_tokenizer, tiny_vlm


def test_trap_01_response_scope_steers_cached_decoding(engine_factory: EngineFactory) -> None:
    """A token index relative to the current forward makes "generated tokens only" a no-op."""
    lm = engine_factory.shared()
    plain = lm.generate(PROMPTS, max_new_tokens=6)
    with lm.steered(cases.vector(1, 2, size=3.0), scope="response"):
        steered = lm.generate(PROMPTS, max_new_tokens=6)
        uncached = lm.generate(PROMPTS, max_new_tokens=6, use_cache=False)
    assert steered != plain
    assert steered == uncached


def test_trap_02_a_range_of_positions_can_be_steered(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    v = cases.vector(1)
    plain = lm.activations(PROMPTS[:1], layers=[1])[0][0]
    with lm.steered(v, scope="all[2:4]"):
        moved = lm.activations(PROMPTS[:1], layers=[1])[0][0] - plain
    close(moved[2:4], v.direction(1).expand(2, -1))
    assert not moved[:2].any()
    assert not moved[4:].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_03_a_bare_forward_of_several_rows_works(in_place: EngineFactory, family: str) -> None:
    lm = in_place.shared(family)
    ids = padded(cases.sequences(), "right")["input_ids"]
    with torch.no_grad(), lm.steered(cases.vector(1, 2)):
        together = lm.hf_model(ids).logits
        for r in range(4):
            close(together[r], lm.hf_model(ids[r : r + 1]).logits[0])


def test_trap_04_the_last_layer_is_before_the_final_norm(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    last = lm.n_layers - 1
    v = cases.vector(last)
    before = lm.activations(PROMPTS[:1], layers=[last])[0][0]
    with lm.steered(v):
        after = lm.activations(PROMPTS[:1], layers=[last])[0][0]
        logits = lm.logits(PROMPTS[:1], ["No."])[0]
    close(after, before + v.direction(last))
    unembedded = lm.architecture.unembed(before[-1:] + v.direction(last))
    close(logits[:1], unembedded)


def test_trap_05_read_and_written_at_the_same_place(engine_factory: EngineFactory) -> None:
    """A vector read at the output of block l and added at its input would not cancel."""
    lm = engine_factory.shared()
    a, b = (lm.activations([PROMPTS[k]], layers=range(4))[0][:, -1] for k in (0, 1))
    for layer in range(4):
        difference = Vector.of({layer: b[layer] - a[layer]})
        with lm.steered(difference, scope="last_prompt"):
            moved = lm.activations([PROMPTS[0]], layers=[layer])[0][0, -1]
        close(moved, b[layer])


def test_trap_06_the_gate_is_read_for_every_row_and_kept_by_no_class(
    engine_factory: EngineFactory,
) -> None:
    lm, other = engine_factory.shared(), engine_factory.fresh()
    means = torch.stack([row[0, -1] for row in lm.activations(PROMPTS[:3], layers=[1])])
    knobs = cases.knobs(layers=[(3,)] * 3, gate=cases.gate(means))
    plain = lm.activations(PROMPTS[:3], layers=[3])
    with lm.steered(knobs, 1.0):
        steered = lm.activations(PROMPTS[:3], layers=[3])
        untouched = other.activations(PROMPTS[:3], layers=[3])
    for domain, before, after, elsewhere in zip(
        cases.DOMAINS, plain, steered, untouched, strict=True
    ):
        close(after, before + knobs.parts[domain].vector.direction(3))
        assert torch.equal(before, elsewhere)


@pytest.mark.parametrize("side", ["left", "right"])
def test_trap_07_the_last_prompt_token_on_either_padding_side(
    in_place: EngineFactory, side: str
) -> None:
    lm = in_place.shared()
    lengths = [12, 5, 17, 8]
    batch = padded(cases.sequences([(n, 0) for n in lengths]), side)
    seen: list[torch.Tensor] = []
    handle = lm.architecture.blocks[2].register_forward_hook(lambda _m, _a, h: seen.append(h))
    try:
        with torch.no_grad():
            lm.hf_model(**batch)
            with lm.steered(cases.vector(2), scope="last_prompt"):
                lm.hf_model(**batch, prompt_lengths=lengths)
    finally:
        handle.remove()
    moved = (seen[1] - seen[0]).abs().sum(-1) > 0
    width = batch["input_ids"].shape[1]
    last = [width - 1 if side == "left" else n - 1 for n in lengths]
    assert moved.nonzero().tolist() == [[r, column] for r, column in enumerate(last)]


def test_trap_08_padding_takes_no_part(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    with lm.steered(cases.vector(1, 2)):
        for together, prompt in zip(lm.activations(PROMPTS), PROMPTS, strict=True):
            close(together, lm.activations([prompt])[0])


def test_trap_09_the_text_is_steered_and_not_the_vision_tower(in_place: EngineFactory) -> None:
    lm = in_place.wrap(tiny_vlm(), tiny_tokenizer())
    assert lm.n_layers == 3
    tower = [m for n, m in lm.hf_model.named_modules() if "visual" in n]
    assert tower
    plain = lm.logits(PROMPTS[:1], ["No."])[0]
    with lm.steered(cases.vector(2)):
        assert cases.hooks_of(lm.hf_model)
        assert not any(cases.hooks_of(module) for module in tower)
        far(lm.logits(PROMPTS[:1], ["No."])[0], plain)


def test_trap_10_several_preferences_are_several_vectors(engine_factory: EngineFactory) -> None:
    """(1, 0) and (0, 1) must not both act as one vector times the sum of the coefficients."""
    lm = engine_factory.shared()
    knobs = cases.knobs(layers=[(3,)] * 3)
    plain = lm.activations(PROMPTS[:1], layers=[3])[0]
    for row in ({"medical": 1.0}, {"legal": 1.0}, {"medical": 2.0, "legal": -0.5}):
        with lm.steered(knobs, row):
            moved = lm.activations(PROMPTS[:1], layers=[3])[0] - plain
        wanted = sum(
            (c * knobs.parts[name].vector.direction(3) for name, c in row.items()), torch.zeros(1)
        )
        close(moved[0], wanted.expand_as(moved[0]))


def test_trap_12_every_layer_gets_its_own_vector(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    v = cases.vector(0, 1, 2, 3)
    plain = lm.activations(PROMPTS[:1], layers=range(4))[0]
    for layer in range(4):
        with lm.steered(v[layer]):
            moved = lm.activations(PROMPTS[:1], layers=[layer])[0][0] - plain[layer]
        close(moved, v.direction(layer).expand_as(moved))
    one_by_one: list[Any] = [lm.steered(v[layer]) for layer in range(4)]
    for handle in one_by_one:
        handle.attach()
    separately = lm.activations(PROMPTS[:1])[0]
    for handle in one_by_one:
        handle.remove()
    with lm.steered(v):
        assert torch.equal(lm.activations(PROMPTS[:1])[0], separately)


def test_trap_13_nothing_stale_after_another_vector_of_the_same_name(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    for seed in (1, 2):
        v = cases.vector(3, seed=seed)
        plain = lm.activations(PROMPTS[:1], layers=[3])[0]
        with lm.steered({"v": v}, v=1.0) as handle:
            close(lm.activations(PROMPTS[:1], layers=[3])[0], plain + v.direction(3))
            handle.update(v=0.0)
            assert same_bits(lm.activations(PROMPTS[:1], layers=[3])[0], plain)


def test_trap_14_all_vectors_act_where_several_meet(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    v, w = cases.vector(3, seed=1), cases.vector(3, seed=2)
    plain = lm.activations(PROMPTS[:1], layers=[3])[0]
    for knobs in (compose(v=v, w=w), compose(w=w, v=v)):
        with lm.steered(knobs, 1.0):
            moved = lm.activations(PROMPTS[:1], layers=[3])[0]
        close(moved, plain + (v + w).direction(3))


def test_trap_15_the_first_block_and_the_embedding_output_can_be_steered(
    engine_factory: EngineFactory,
) -> None:
    lm = engine_factory.shared()
    v = cases.vector(-1, 0)
    assert [str(site) for site in v.sites] == ["embed", "resid_post.0"]
    plain = lm.activations(PROMPTS[:1], layers=[-1, 0])[0]
    with lm.steered(v[Residual(0)]):
        close(lm.activations(PROMPTS[:1], layers=[0])[0][0], plain[1] + v.direction(0))
    with lm.steered(v[-1]):
        close(lm.activations(PROMPTS[:1], layers=[-1])[0][0], plain[0] + v.direction(-1))


def test_trap_17_the_tokenizer_gets_no_pad_token(engine_factory: EngineFactory) -> None:
    lm = engine_factory.fresh()
    with lm.steered(cases.vector(1)):
        lm.generate(PROMPTS, max_new_tokens=2)
    assert lm.tokenizer.pad_token is None
    assert lm.hf_model.generation_config.pad_token_id is None


def test_trap_18_vectors_are_in_no_checkpoint(in_place: EngineFactory, tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    lm = in_place.fresh()
    names = set(lm.hf_model.state_dict())
    knobs = cases.knobs(scopes=["response", "all", "prompt"], gate=cases.gate())
    with lm.steered(knobs):
        lm.generate(PROMPTS, max_new_tokens=2)
        lm.hf_model.save_pretrained(tmp_path)
        assert set(lm.hf_model.state_dict()) == names
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert set(loaded.state_dict()) == names
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in lm.hf_model.state_dict().items())


@pytest.mark.parametrize("strength", [1e-30, 1e-8, 1e-3, 1.0])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e15])
def test_trap_19_no_strength_or_length_gives_nan(
    engine_factory: EngineFactory, strength: float, size: float
) -> None:
    lm = engine_factory.shared()
    parts = {"a": cases.vector(1, size=size), "b": Vector.of({1: torch.zeros(cases.WIDTH)})}
    with lm.steered(parts, strength, operator="ablate"):
        assert torch.cat(lm.logits(PROMPTS, ["No."] * 4)).isfinite().all()


def test_trap_20_copies_are_not_taken_for_prompts(engine_factory: EngineFactory) -> None:
    lm = engine_factory.shared()
    rows = [{"medical": 3.0}, {}]
    with lm.steered(cases.knobs(), rows):
        beams = lm.generate(PROMPTS[:2], max_new_tokens=5, num_beams=2, num_return_sequences=2)
    plain = lm.generate(PROMPTS[:2], max_new_tokens=5, num_beams=2, num_return_sequences=2)
    assert beams[2:] == plain[2:]
    assert beams[:2] != plain[:2]

import pytest
import torch

from steer.engine._attention import UnpackableError
from steer.engine._layout import Place
from steer.engine._packing import packing_of, position_limit, scaled_by_length
from steer.engine._reading import read_packed
from steer.errors import RecordingError
from steer.extract import packing_report, record
from steer.model import Model
from steer.pairs import Pair, Pairs
from tests.extract.reference import EVERYWHERE, off, some_pairs, textbook, tiny, tokenizer
from tests.models.tiny import tiny_causal_model
from tests.tiny import FAMILIES, tiny_vlm

PADDED = {
    "gemma2": "its attention takes 'softcap'",
    "falcon": "its attention does not go through transformers' attention interface",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_padded_and_one_by_one_are_the_same(family: str) -> None:
    model, pairs = tiny(family), some_pairs(6, (None,))
    found = record(model, pairs, EVERYWHERE, progress=False)
    padded = record(model, pairs, EVERYWHERE, progress=False, packing=False)
    alone = record(model, pairs, EVERYWHERE, progress=False, packing=False, max_tokens=1)
    reason = PADDED.get(family)
    assert found.path == ("packed" if reason is None else f"padded: {reason}")
    assert padded.path == alone.path == "padded: asked for by packing=False"
    for key, moments in alone.moments.items():
        for other in (found.moments[key], padded.moments[key]):
            assert off(other.mean_chosen, moments.mean_chosen) < 1e-5
            assert off(other.mean_rejected, moments.mean_rejected) < 1e-5
            if key[1] != "prompt_last":
                assert off(other.difference, moments.difference) < 1e-5


@pytest.mark.parametrize("family", PADDED)
def test_packing_can_be_demanded(family: str) -> None:
    with pytest.raises(RecordingError, match="cannot be packed") as caught:
        record(tiny(family), some_pairs(2), packing=True, progress=False)
    assert PADDED[family] in str(caught.value)
    assert str(packing_report(tiny(family))) == f"padded: {PADDED[family]}"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("axk2", "its forward fails where attention is ours and no mask is made"),
        ("glm_moe_dsa", "its forward fails where attention is ours and no mask is made"),
        ("rwkv", "its attention does not go through transformers' attention interface"),
    ],
)
def test_a_failure_inside_the_model_is_no_reason_to_show(model_type: str, reason: str) -> None:
    assert str(packing_report(Model(tiny_causal_model(model_type)))) == f"padded: {reason}"


@pytest.mark.parametrize("family", ["mistral", "qwen3", "gemma3", "phi3"])
def test_a_window_shorter_than_the_text_is_honoured(family: str) -> None:
    options = {"use_sliding_window": True, "max_window_layers": 1} if family == "qwen3" else {}
    narrow, wide = tiny(family, sliding_window=6, **options), tiny(family, sliding_window=500)
    pairs = some_pairs(4, (None,))
    packed = record(narrow, pairs, "response_last", packing=True, progress=False).of()
    alone = record(narrow, pairs, "response_last", packing=False, max_tokens=1, progress=False)
    unbound = record(wide, pairs, "response_last", packing=False, max_tokens=1, progress=False)
    assert off(packed.difference, alone.of().difference) < 1e-5
    assert off(packed.difference, unbound.of().difference) > 1e-2


def test_a_model_whose_packed_forward_differs_is_found_out() -> None:
    """A model that quietly adds the row number to its stream, which packing would change."""
    model = tiny()
    block = model.architecture.blocks[1]

    def by_row(_module: object, _args: object, out: torch.Tensor) -> torch.Tensor:
        return out + torch.arange(out.shape[1])[:, None]

    handle = block.register_forward_hook(by_row)
    found = packing_report(model)
    handle.remove()
    assert not found.packed
    assert "differ from plain ones" in found.reason
    assert found.error is not None
    assert found.error > 0.1


def test_longer_texts_are_tried_again() -> None:
    architecture = tiny().architecture
    short = packing_of(architecture, 20)
    assert (short.packed, short.length) == (True, 32)
    assert packing_of(architecture, 32) is short
    assert packing_of(architecture, 33).length == 64
    assert packing_of(architecture, 20).length == 64, "what is known is kept"


def test_the_trial_fits_into_the_positions() -> None:
    model = tiny("gpt2", n_positions=40)
    assert position_limit(model.architecture) == 40
    assert packing_of(model.architecture, 40).length == 40


def test_positions_scaled_by_the_longest_text_are_run_alone() -> None:
    scaling = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 3.0, 5.0, 7.0],
        "original_max_position_embeddings": 40,
    }
    model = tiny(max_position_embeddings=400, rope_parameters=scaling)
    assert scaled_by_length(model.architecture, 41)
    assert not scaled_by_length(model.architecture, 40)
    pairs = Pairs.of([Pair("Why?", "Yes.", "No, " + "the price rises, " * 9)])
    found = record(model, pairs, "response_mean", progress=False)
    assert found.path.endswith("scaled by the longest sequence of a batch")
    expected = textbook(model, pairs, None, "response_mean")
    assert off(found.of().mean_chosen, expected.chosen[0]) < 1e-5
    assert off(found.of().mean_rejected, expected.rejected[0]) < 1e-5


def test_half_precision_is_packed_too() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        found = packing_report(tiny(dtype=dtype), 100)
        assert found.packed
        assert found.error is not None
        assert found.error < 1e-2


def test_a_vision_language_model_records_its_text_blocks() -> None:
    model = Model(tiny_vlm(), tokenizer())
    found = record(model, some_pairs(3, (None,)), progress=False)
    alone = record(model, some_pairs(3, (None,)), packing=False, max_tokens=1, progress=False)
    assert found.layers == (0, 1, 2)
    for key, moments in alone.moments.items():
        assert off(found.moments[key].difference, moments.difference) < 1e-5


def test_attention_that_sees_a_mask_of_its_own_is_refused() -> None:
    model = tiny()
    attention = model.architecture.blocks[0].self_attn

    def masked(_module: object, args: object, kwargs: dict[str, object]) -> object:
        return args, {**kwargs, "attention_mask": torch.zeros(1, 1, 12, 12)}

    handle = attention.register_forward_pre_hook(masked, with_kwargs=True)  # type: ignore[union-attr,operator]
    with pytest.raises(UnpackableError, match="mask of its own"):
        read_packed(model.architecture, [list(range(5, 17))], [Place(0, (3,))], [0])
    handle.remove()

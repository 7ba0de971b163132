"""Low-rank weight vectors as adapters: the same tokens as the hook engine, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from steer import LowRank, Vector, Weight
from steer.errors import CapabilityError
from tests.engines.compare import differences, reference
from tests.engines.subjects import VOCAB, WIDTH, requests, write_requests, write_vectors
from tests.engines.test_offline import answers, engine, shut_down

MODULES = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.down_proj": (WIDTH, 2 * WIDTH)}
SETTINGS: list[Any] = [
    None,
    {"tone": 1.0},
    {"tone": -0.8, "style": 0.5},
    {"style": 1.0, "medical": 0.7},
    {"medical": -1.0},
]
LORA = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("weights") / "vectors"
    write_vectors(found, width=WIDTH, layers=(1, 2), size=1.0)
    generator = torch.Generator().manual_seed(2)
    for name in ("tone", "style"):
        terms = {}
        for layer in range(3):
            for module, (rows, columns) in MODULES.items():
                B, A = (torch.randn(s, generator=generator) for s in ((rows, 3), (3, columns)))
                terms[Weight(f"model.layers.{layer}.{module}.weight")] = LowRank(0.1 * B, 0.1 * A)
        Vector(terms).save(found / f"{name}.safetensors")
    return found


def test_weight_vectors_and_directions_equal_the_hook_engine(
    llama: Path, folder: Path, tmp_path: Path
) -> None:
    from vllm.exceptions import VLLMValidationError

    plain = requests(20, vocab=VOCAB, tokens=12, seed=3)
    asked = [{**r, "setting": SETTINGS[k % len(SETTINGS)]} for k, r in enumerate(plain)]
    expected = reference(llama, folder, write_requests(asked, tmp_path / "asked.json"))
    llm = engine(llama, {"vectors": str(folder), "adapters": 3}, **LORA)
    found = [list(out.token_ids) for out in answers(llm, asked)]
    wrong, ties = differences(found, expected)
    assert (wrong, ties <= 1) == ([], True)
    for setting, told in (
        ({"tone": 0.123}, "too many distinct settings"),
        ({"coefficients": {"tone": 1.0}, "scope": "response"}, "every token"),
    ):
        with pytest.raises(VLLMValidationError, match=told):
            answers(llm, [{**plain[0], "setting": setting}])
    again = [list(out.token_ids) for out in answers(llm, asked[:5])]
    assert again == found[:5]  # a refused request leaves the others as they were
    shut_down(llm)


@pytest.mark.parametrize(
    "more", [{}, {**LORA, "max_lora_rank": 1}, {**LORA, "max_loras": 3}], ids=str
)
def test_an_engine_without_room_for_them_is_refused(
    llama: Path, folder: Path, more: dict[str, Any]
) -> None:
    with pytest.raises(CapabilityError, match="--enable-lora"):
        engine(llama, {"vectors": str(folder), "adapters": 3}, **more)

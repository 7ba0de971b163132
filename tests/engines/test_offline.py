"""Other architectures, eager and in the process that asks; and engines that are refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.engines.compare import differences, reference
from tests.engines.server import ENVIRONMENT
from tests.engines.subjects import (
    VOCAB,
    WIDTH,
    requests,
    write_model,
    write_requests,
    write_vectors,
)

os.environ.update(ENVIRONMENT)
QUICK = ("gemma3",)
EVERYTHING = os.environ.get("STEER_ENGINES") == "full"
FULL = ("llama", "qwen3", "gemma3", "olmo2", "gpt2", "mixtral")
FAMILIES = FULL if EVERYTHING else QUICK
FEW_BLOCKS = 14  # of the cache of keys and values, so that requests are preempted
COUNT = 150 if EVERYTHING else 50


def engine(model: Path, steer: dict[str, Any] | None, **more: Any) -> Any:
    from vllm import LLM

    configured = {} if steer is None else {"additional_config": {"steer": steer}}
    sizes = {
        "max_model_len": 300,
        "max_num_batched_tokens": 128,
        "max_num_seqs": 16,
        "disable_log_stats": False,
    }
    return LLM(
        str(model), dtype="float32", **{**sizes, "enforce_eager": True, **configured, **more}
    )


def parameters(setting: Any, tokens: int = 12) -> Any:
    from vllm import SamplingParams

    extra = {"steer": setting} if setting else None
    return SamplingParams(
        temperature=0, max_tokens=tokens, ignore_eos=True, logprobs=0, extra_args=extra
    )


def answers(llm: Any, asked: list[dict[str, Any]], *, steered: bool = True) -> list[Any]:
    prompts = [{"prompt_token_ids": request["prompt"]} for request in asked]
    own = [parameters(r["setting"] if steered else None, r["tokens"]) for r in asked]
    return [out.outputs[0] for out in llm.generate(prompts, own, use_tqdm=False)]


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_equal_the_hook_engine(family: str, tmp_path: Path) -> None:
    model = write_model(family, tmp_path / family)
    vectors = write_vectors(tmp_path / "vectors", width=WIDTH, layers=(0, 2, 3), size=1.0)
    asked = requests(COUNT, vocab=VOCAB, tokens=12, seed=1)
    grow = requests(16, vocab=VOCAB, tokens=45, seed=2)  # beyond a block of 128 tokens
    asked += [{**r, "prompt": [11 + k + 3 * i for i in range(100)]} for k, r in enumerate(grow)]
    expected = reference(model, vectors, write_requests(asked, tmp_path / "asked.json"))
    llm = engine(model, {"vectors": str(vectors)}, num_gpu_blocks_override=FEW_BLOCKS)
    found = [list(out.token_ids) for out in answers(llm, asked)]
    chat = [[{"role": "user", "content": "Is this contract binding?"}]] * 2
    chats = llm.chat(chat, [parameters({"medical": 2.0}), parameters(None)], use_tqdm=False)
    ids = {"prompt": list(chats[0].prompt_token_ids), "tokens": 12}
    asked_so = answers(llm, [{**ids, "setting": {"medical": 2.0}}, {**ids, "setting": None}])
    preempted = [m.value for m in llm.get_metrics() if m.name == "vllm:num_preemptions"]
    shut_down(llm)
    assert sum(preempted) > 0  # and what was preempted is right below
    wrong, ties = differences(found, expected)
    assert wrong == []
    assert ties <= COUNT / 20
    spoken = [list(out.outputs[0].token_ids) for out in chats]
    assert spoken == [list(out.token_ids) for out in asked_so]
    assert spoken[0] != spoken[1]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            "speculative decoding",
        ),
        ({"worker_extension_cls": "some.Class"}, "a worker extension"),
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
    ],
)
def test_an_engine_that_cannot_be_steered_is_refused_at_the_start(
    llama: Path, vectors: Path, more: dict[str, Any], told: str
) -> None:
    from steer.errors import CapabilityError

    with pytest.raises(CapabilityError, match=told):
        engine(llama, {"vectors": str(vectors)}, **more)


@pytest.mark.parametrize(
    ("steer", "told"),
    [
        ({}, "vectors"),
        ({"vectors": "nowhere"}, "nowhere"),
        ({"vectors": "HERE", "gates": 1}, "gates"),
        ({"vectors": "HERE", "capacity": 1}, "capacity"),
        ({"vectors": "HERE", "layers": [1]}, "layers"),
        ({"vectors": "HERE", "layers": [99]}, "layers"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_at_the_start(
    llama: Path, vectors: Path, steer: dict[str, Any], told: str
) -> None:
    from steer.errors import ArgumentError

    here = {key: str(vectors) if value == "HERE" else value for key, value in steer.items()}
    with pytest.raises(ArgumentError, match=told):
        engine(llama, here)


def test_vectors_of_another_width_are_refused_at_the_start(llama: Path, tmp_path: Path) -> None:
    from steer.errors import ArgumentError

    other = write_vectors(tmp_path / "wide", width=64, layers=(1,), size=1.0)
    with pytest.raises(ArgumentError, match="width 64"):
        engine(llama, {"vectors": str(other)})


def shut_down(llm: Any) -> None:
    llm.llm_engine.engine_core.shutdown()

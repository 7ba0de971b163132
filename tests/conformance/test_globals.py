"""Contract 10 (in place): nothing outside the model changes behind the user's back."""

import random
from typing import Any

import pytest
import torch

from steer import Model, Pair, Pairs, domain_gate, mean_difference, record
from steer.errors import CapabilityError, SteerError
from tests.conformance import cases
from tests.conformance.cases import PROMPTS, Snapshot
from tests.conformance.engines import EngineFactory

PAIRS = Pairs.of(
    [
        Pair("What is the dose?", "Ask a doctor.", "Take two."),
        Pair("Is it binding?", "The court says so.", "No."),
        Pair("Sell it?", "When the rate falls.", "Yes."),
    ]
)


def tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    backend = tokenizer.backend_tokenizer
    return {
        "serialised": backend.to_str(),
        "padding": backend.padding,
        "truncation": backend.truncation,
        "pad_token": tokenizer.pad_token,
        "special": dict(tokenizer.special_tokens_map),
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "max_length": tokenizer.model_max_length,
        "template": tokenizer.chat_template,
        "attributes": sorted(vars(tokenizer)),
        "size": len(tokenizer),
    }


def global_state() -> dict[str, Any]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "torch rng": torch.get_rng_state().tolist(),
        "python rng": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "sdp": (
            cuda.flash_sdp_enabled(),
            cuda.math_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ),
        "tf32": (cuda.matmul.allow_tf32, cudnn.allow_tf32),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "mkldnn": torch.backends.mkldnn.enabled,
    }


def construct(lm: Model) -> None:
    Model(lm.hf_model, lm.tokenizer)


def recording(lm: Model) -> None:
    for at in ("template", "response_mean"):
        record(lm, PAIRS, at, progress=False)
    record(lm, PAIRS, "prompt_last", progress=False, packing=False)
    mean_difference(record(lm, PAIRS, "response_last", progress=False))
    domain_gate(lm, {"a": PROMPTS[:2], "b": PROMPTS[2:]}, layer=0)


def generating(lm: Model) -> None:
    lm.generate(PROMPTS, max_new_tokens=3)
    lm.generate("What?", max_new_tokens=3, num_beams=2)


def scoring(lm: Model) -> None:
    lm.logprobs(PROMPTS, ["No."] * 4)
    lm.logits(PROMPTS, ["No."] * 4)
    lm.activations(PROMPTS)


def steering(lm: Model) -> None:
    knobs = cases.knobs(["add", "ablate", "add"], ["response", "all", "all"], gate=cases.gate())
    with lm.steered(knobs, 0.5):
        generating(lm)
        scoring(lm)


def sampling(lm: Model) -> None:
    """Sampling by the user moves the user's own generator, and nothing else."""
    with torch.random.fork_rng(devices=[]), lm.steered(cases.vector(1)):
        lm.generate(PROMPTS, max_new_tokens=3, do_sample=True)


def failing(lm: Model) -> None:
    with pytest.raises(Exception, match="rows"), lm.steered(cases.knobs(), [{}] * 3):
        lm.generate(PROMPTS)


WORK = [construct, recording, generating, scoring, steering, sampling, failing]


@pytest.fixture(params=["as it comes", "padding, truncation and a pad token set by the user"])
def lm(request: pytest.FixtureRequest, in_place: EngineFactory) -> Model:
    model = in_place.fresh()
    if request.param != "as it comes":
        tokenizer = model.tokenizer
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        tokenizer.backend_tokenizer.enable_padding(length=40, pad_id=2, pad_token="</s>")
        tokenizer.backend_tokenizer.enable_truncation(30)
        model.hf_model.generation_config.max_new_tokens = 7
        model.hf_model.generation_config.pad_token_id = 3
    return model


@pytest.mark.parametrize("work", WORK)
def test_tokenizer_configs_and_global_state_stay(lm: Model, work: Any) -> None:
    before = tokenizer_state(lm.tokenizer), global_state(), Snapshot(lm.hf_model)
    work(lm)
    assert tokenizer_state(lm.tokenizer) == before[0]
    now = global_state()
    assert {k: v for k, v in now.items() if v != before[1][k]} == {}
    before[2].check(lm.hf_model)


def test_training_mode_and_gradients_are_left_to_the_user(in_place: EngineFactory) -> None:
    lm = in_place.fresh()
    lm.hf_model.train()
    lm.hf_model.requires_grad_(False)
    with lm.steered(cases.vector(1)):
        lm.hf_model(torch.tensor([[7, 8, 9]]))
    assert lm.hf_model.training
    assert not any(p.requires_grad for p in lm.hf_model.parameters())


@pytest.mark.parametrize(
    "work",
    [
        lambda lm: lm.logits(PROMPTS, ["No."] * 4),
        lambda lm: lm.logprobs(PROMPTS, ["No."] * 4),
        lambda lm: lm.activations(PROMPTS),
        lambda lm: lm.generate(PROMPTS, max_new_tokens=1),
        lambda lm: domain_gate(lm, {"a": PROMPTS[:2], "b": PROMPTS[2:]}, layer=0),
    ],
    ids=["logits", "logprobs", "activations", "generate", "domain_gate"],
)
def test_what_dropout_would_change_is_refused_in_training_mode(
    in_place: EngineFactory, work: Any
) -> None:
    lm = in_place.fresh("gpt2", resid_pdrop=0.5)
    work(lm)
    lm.hf_model.train()
    with pytest.raises(CapabilityError, match="training mode"):
        work(lm)
    with lm.steered(cases.vector(1)), pytest.raises(SteerError, match=r"training mode|steered"):
        work(lm)


def test_an_extraction_while_the_model_is_steered_is_no_silent_mistake(
    in_place: EngineFactory,
) -> None:
    from steer.errors import SteerError

    lm = in_place.fresh()
    with lm.steered(cases.vector(1)), pytest.raises(SteerError, match="steered"):
        record(lm, PAIRS, progress=False)

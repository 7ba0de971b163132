"""The demo model, its pairs and vectors, as the tests of views share them."""

from functools import cache

import torch

import steer
from steer.demo import load_model, vectors_path
from steer.demo.language import pairs, questions

LAYER = 3
AT = "template[-1]"


@cache
def model() -> steer.Model:
    """The demo model."""
    return load_model()


@cache
def half() -> steer.Model:
    """The demo model in bfloat16."""
    lm = load_model()
    return steer.Model(lm.hf_model.to(torch.bfloat16), lm.tokenizer)


@cache
def train() -> steer.Pairs:
    """Pairs that directions are made from."""
    return pairs("medical", 24)


@cache
def held_out() -> steer.Pairs:
    """Pairs of other topics."""
    return pairs("medical", 20, split="test")


@cache
def activations() -> steer.Activations:
    """The moments of the training pairs at the last template token."""
    return steer.record(model(), train(), progress=False)


@cache
def everywhere() -> steer.Vector:
    """The difference of means at every layer."""
    return steer.mean_difference(activations(), position=AT)


@cache
def palrs() -> steer.Vector:
    """The PaLRS vector at one layer."""
    return steer.palrs(activations(), positions=[AT], layers=[LAYER])


@cache
def weights() -> steer.Vector:
    """The shipped alignment vector of the same domain."""
    return steer.Vector.load(vectors_path() / "medical-weights.safetensors")


@cache
def asked() -> tuple[str, ...]:
    """Questions of the same domain."""
    return tuple(questions("medical", 6, seed=3))


def last_block() -> int:
    """The number of the last block."""
    return model().n_layers - 1


def next_logits(prompt: str) -> torch.Tensor:
    """The logits of the next token from a bare call of the model, in float64."""
    lm = model()
    ids = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.no_grad():
        logits: torch.Tensor = lm.hf_model(input_ids=ids).logits[0, -1].double()
    return logits

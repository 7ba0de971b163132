"""The demo model and its knobs, as the tests of the console share them."""

from functools import cache
from typing import Any

import steer
from steer.console import console
from steer.demo import load_model, vectors_path

QUESTION = "I have gout again. Can you help?"
DOMAINS = ("medical", "legal")
TOKENS = 24
LONG = "rash " * 300  # tokens; the demo model was made for 256


@cache
def model() -> steer.Model:
    """The demo model."""
    return load_model()


@cache
def knobs() -> steer.Composition:
    """Two shipped vectors, both at zero."""
    vectors = {d: steer.Vector.load(vectors_path() / f"{d}.safetensors") for d in DOMAINS}
    return steer.compose(vectors)(0.0)


@cache
def answer(medical: float, legal: float = 0.0, prompt: str = QUESTION) -> str:
    """What the library itself generates."""
    with model().steered(knobs(), medical=medical, legal=legal):
        return model().generate(prompt, max_new_tokens=TOKENS)


@cache
def plain(prompt: str = QUESTION) -> str:
    """What the library generates without steering."""
    return model().generate(prompt, max_new_tokens=TOKENS)


def console_of_knobs() -> Any:
    """A console whose answers go on and on, asked nothing yet."""
    model().hf_model.generation_config.eos_token_id = None
    return console(model(), knobs(), max_new_tokens=4000)

"""Texts and settings that vLLM and `Model` are both asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from steer import Composition, Pair, Pairs, Part, Vector, compose
from steer.algebra import parse_scope
from tests.engines.subjects import DOMAINS

PROMPTS = [
    "What is the usual dose?",
    "Who signs the contract?",
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Well,"}],
    "Is it safe to take both?",
    "Name one risk.",
    "Say yes or no.",
]
RESPONSES = [" Two a day.", " The tenant does.", " hello there", " No.", " Loss of money.", "yes"]
ROWS = [
    {"medical": 1.0},
    {"legal": -1.5, "financial": 0.7},
    {"medical": 0.5, "legal": 1.0, "financial": -1.0},
    {},
    {"financial": 2.0},
    {"medical": -1.0},
]
SCOPES = ("own", "all", "prompt", "response", "last_prompt", "all[4:]")

SETTING = {"medical": 1.0, "financial": -0.8}
TASKS = ["persona:sober", "truthfulqa_mc1", "gsm8k"]


GRID = {"medical": [-1.0, 0.0, 1.0], "financial": [0.0, 0.7]}
BY_SCOPE = ["all", "response"]


def pairs() -> Pairs:
    """Return a pair for each prompt, rejected what the next one gets."""
    asked = [p if isinstance(p, str) else "Hello" for p in PROMPTS]
    turned = [*RESPONSES[1:], RESPONSES[0]]
    return Pairs(tuple(Pair(*each) for each in zip(asked, RESPONSES, turned, strict=True)))


def harness(data: Path) -> dict[str, Any]:
    """Return how lm-eval is run."""
    return {"data": data, "num_fewshot": 0, "max_new_tokens": 16, "progress": False}


def composition(folder: Path) -> Composition:
    """Return the vectors of a folder, two of them with a scope of their own."""
    vectors = {name: Vector.load(folder / f"{name}.safetensors") for name in DOMAINS}
    scopes = {"medical": "response", "legal": "prompt", "financial": "all"}
    return compose({d: Part(v, scope=parse_scope(scopes[d])) for d, v in vectors.items()})


def steered(knobs: Composition, scope: str) -> Composition:
    """Return the composition at one scope; `own` leaves it as it is."""
    if scope == "own":
        return knobs
    parts = {d: replace(part, scope=parse_scope(scope)) for d, part in knobs.parts.items()}
    return replace(knobs, parts=parts)

"""Models, vectors and requests that both the server and the reference read from one folder."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from steer import Vector
from tests.tiny import tiny_model, tiny_tokenizer

DOMAINS = ("medical", "legal", "financial")
SCOPES = (None, None, None, "all", "prompt", "response", "last_prompt", "all[3:]", "prompt[1:9]")
WIDTH, VOCAB = 128, 512
HEADS = {"head_dim": 32, "num_key_value_heads": 2}  # vLLM on a CPU wants 32 or more
OVERRIDES: dict[str, dict[str, Any]] = {
    "llama": HEADS,
    "qwen3": HEADS,
    "gemma3": {**HEADS, "query_pre_attn_scalar": 32, "sliding_window": 64},
    "olmo2": {},
    "gpt2": {},
    "mixtral": HEADS,
}


def write_model(family: str, folder: Path) -> Path:
    """Write a random model of a family with its tokenizer."""
    model = tiny_model(family, width=WIDTH, vocab=VOCAB, **OVERRIDES[family])
    model.save_pretrained(folder)
    tiny_tokenizer(VOCAB).save_pretrained(folder)
    return folder


def write_vectors(folder: Path, *, width: int, layers: tuple[int, ...], size: float) -> Path:
    """Write a random vector for each domain; `legal` has the last layer alone."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    for domain in DOMAINS:
        own = layers[-1:] if domain == "legal" else layers
        vectors = {layer: size * torch.randn(width, generator=generator) for layer in own}
        Vector.of(vectors).save(folder / f"{domain}.safetensors")
    return folder


def requests(count: int, *, vocab: int, tokens: int, seed: int) -> list[dict[str, Any]]:
    """Return prompts of random lengths, a fifth of them unsteered, each with its own setting."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        prompt = [draw.randrange(10, vocab) for _ in range(draw.choice((2, 5, 17, 40, 90)))]
        chosen = draw.sample(DOMAINS, draw.randint(1, 3))
        setting: Any = {domain: round(draw.uniform(-1.5, 1.5), 3) for domain in chosen}
        if scope := draw.choice(SCOPES):
            setting = {"coefficients": setting, "scope": scope}
        found.append(
            {
                "prompt": prompt,
                "setting": None if draw.random() < 0.2 else setting,
                "tokens": tokens,
            }
        )
    return found


def write_requests(found: list[dict[str, Any]], path: Path) -> Path:
    """Write requests as JSON."""
    path.write_text(json.dumps(found))
    return path

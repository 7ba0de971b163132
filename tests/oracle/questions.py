"""What both sides are asked: the same prompts and vectors, from seeds."""

from types import MappingProxyType

import torch

from tests.conformance import cases

STEPS = 4
IDS = torch.tensor(cases.sequences([(11, 0), (11, 0)]))
LAYERS = tuple(range(cases.LAYERS))
ONE, ALL = cases.vector(1), cases.vector(*LAYERS, seed=5, size=0.5)
ROWS = cases.vector(1, seed=6), cases.vector(1, seed=7)
VECTORS = MappingProxyType(
    {
        "one layer": {1: ONE.direction(1)},
        "all layers": {layer: ALL.direction(layer) for layer in LAYERS},
    }
)
ROW_VECTORS = tuple(v.direction(1) for v in ROWS)
NAMES = MappingProxyType(
    {
        "llama": "model.layers",
        "mistral": "model.layers",
        "qwen2": "model.layers",
        "qwen3": "model.layers",
        "gemma2": "model.layers",
        "gemma3": "model.layers",
        "phi3": "model.layers",
        "olmo2": "model.layers",
        "gpt2": "transformer.h",
        "gpt_neox": "gpt_neox.layers",
        "opt": "model.decoder.layers",
        "falcon": "transformer.h",
        "mixtral": "model.layers",
        "qwen3_moe": "model.layers",
    }
)

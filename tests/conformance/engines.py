"""The engines that must pass this suite. A new engine is one entry in `ENGINES`."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch

from steer.engine import HooksEngine
from steer.engine._nnsight import NNsightEngine
from steer.model import Model
from tests.tiny import tiny_model, tiny_tokenizer


@dataclass(frozen=True)
class EngineFactory:
    """How an engine is made, and what it declares.

    Args:
        name: Name of the engine.
        capabilities: What it declares.
        wrap: From a Hugging Face model and a tokenizer to a `Model` on this engine.
    """

    name: str
    capabilities: frozenset[str]
    wrap: Callable[[Any, Any], Model]

    def fresh(self, family: str = "llama", **sizes: Any) -> Model:
        """A model that no other test sees."""
        return self.wrap(tiny_model(family, **sizes), tiny_tokenizer())

    def shared(self, family: str = "llama", dtype: torch.dtype = torch.float32) -> Model:
        """A model that many tests use one after the other, as contract 2 allows."""
        return _shared(self.name, family, dtype)


def _traced(hf: Any, tokenizer: Any) -> Model:
    from nnsight import TransformersModel

    from steer.tracing import TracedModel

    own = copy.deepcopy(tokenizer)  # nnsight gives it a padding token
    model = TransformersModel(hf, tokenizer=own, task="text-generation")
    return TracedModel(model, tokenizer)


_ALL = (
    EngineFactory("hooks", HooksEngine.capabilities, Model),
    # Importing nnsight changes every object of a process: tests/nnsight runs this suite in one
    # of its own.
    EngineFactory("nnsight", NNsightEngine.capabilities, _traced),
)
_ASKED = os.environ.get("STEER_TEST_ENGINE", "hooks")
ENGINES: Mapping[str, EngineFactory] = MappingProxyType(
    {engine.name: engine for engine in _ALL if engine.name == _ASKED}
)
IN_PLACE = tuple(name for name, engine in ENGINES.items() if "in_place" in engine.capabilities)


@cache
def _shared(engine: str, family: str, dtype: torch.dtype) -> Model:
    return ENGINES[engine].fresh(family, dtype=dtype)

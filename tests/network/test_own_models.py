"""Models of a user's own classes, and wrappers around models."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from steer.network import block_output, find_architecture
from tests.network.refusals import refused
from tests.tiny import tiny_model


class Wrapper(nn.Module):
    """Passes on what it does not know, as adapters do."""

    def __init__(self, inner: PreTrainedModel) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": inner})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model["model"], name)

    def forward(self, **inputs: Any) -> Any:
        return self.base_model["model"](**inputs)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_wrapped_model(family: str) -> None:
    inner = tiny_model(family)
    bare, wrapped = find_architecture(inner), find_architecture(Wrapper(inner))
    assert wrapped.blocks == bare.blocks
    assert wrapped.body is bare.body
    assert wrapped.names == {part: f"base_model.model.{n}" for part, n in bare.names.items()}


class OldConfig(PreTrainedConfig):
    model_type = "old_style"


class OldBlock(nn.Module):
    """Returns a tuple, as all blocks did before transformers 5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, h: Tensor) -> tuple[Tensor, None]:
        return h + self.mix(h).tanh(), None


class OldBody(nn.Module):
    """Keeps its parts in a dictionary, and its norms and blocks under names of its own."""

    def __init__(self, width: int, vocab: int, layers: int, sequential: bool) -> None:
        super().__init__()
        blocks = [OldBlock(width) for _ in range(layers)]
        stack = nn.Sequential(*blocks) if sequential else nn.ModuleList(blocks)
        self.parts = nn.ModuleDict(
            {
                "tokens": nn.Embedding(vocab, width),
                "first_norm": nn.LayerNorm(width),
                "stack": stack,
                "last_norm": nn.LayerNorm(width),
            }
        )

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        h = self.parts["first_norm"](self.parts["tokens"](input_ids))
        for block in self.parts["stack"]:
            h = block(h)[0]
        return self.parts["last_norm"](h)


class OldModel(PreTrainedModel):
    config_class = OldConfig

    def __init__(self, config: OldConfig, sequential: bool = False) -> None:
        super().__init__(config)
        sizes = (config.hidden_size, config.vocab_size, config.num_hidden_layers)
        self.inside = OldBody(*sizes, sequential)
        self.to_logits = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        return (self.to_logits(self.inside(input_ids)),)

    def get_input_embeddings(self) -> nn.Module:
        return self.inside.parts["tokens"]


def old_model(kind: type[OldModel] = OldModel, **kwargs: Any) -> OldModel:
    config = OldConfig(hidden_size=16, vocab_size=40, num_hidden_layers=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config, **kwargs).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
    return model


def test_unembedding_that_is_not_declared_is_named_by_hand() -> None:
    model = old_model()
    error = refused(model, "unembedding of OldModel is not known")
    assert 'unembedding="…"' in error.do
    found = find_architecture(model, unembedding="to_logits")
    assert found.names == {
        "body": "inside",
        "embedding": "inside.parts.tokens",
        "blocks": "inside.parts.stack",
        "final_norm": "inside.parts.last_norm",
        "unembedding": "to_logits",
    }
    assert found.body is model.inside


def test_blocks_that_return_tuples() -> None:
    found = find_architecture(old_model(), unembedding="to_logits")
    with torch.no_grad():
        out = found.blocks[0](torch.ones(1, 2, 16))
    assert isinstance(out, tuple)
    assert block_output(out).shape == (1, 2, 16)


def test_blocks_in_a_sequential_are_named_by_hand() -> None:
    model = old_model(sequential=True)
    refused(model, "decoder blocks of OldModel are not found", unembedding="to_logits")
    found = find_architecture(model, unembedding="to_logits", blocks="inside.parts.stack")
    assert found.n_layers == 3


class Bypassing(OldModel):
    """Runs the blocks itself and never calls its body."""

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> tuple[Tensor]:
        return (self.to_logits(OldBody.forward(self.inside, input_ids)),)


def test_body_that_does_not_run() -> None:
    error = refused(old_model(Bypassing), "body inside", unembedding="to_logits")
    assert error.found == "0 calls"

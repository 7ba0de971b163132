"""The textbook way: every text alone, every hidden state kept, plain means in float64."""

import functools
import random
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from steer.extract import POSITIONS
from steer.extract._positions import _IN_EXCHANGE
from steer.model import Model
from steer.network import block_output, encode_exchange, encode_prompt
from steer.pairs import Pair, Pairs
from tests.tiny import tiny_model, tiny_tokenizer

EVERYWHERE = POSITIONS
WORDS = ("dose", "drug", "contract", "court", "bond", "share", "rate", "rises", "price", "ask")


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def tiny(family: str = "llama", **options: object) -> Model:
    return Model(tiny_model(family, **options), tokenizer())  # type: ignore[arg-type]


def some_pairs(count: int = 7, domains: tuple[str | None, ...] = ("law", "med")) -> Pairs:
    """Pairs with prompts and answers of 1 to 8 words, their domains in turn."""
    draw = random.Random(5)

    def text() -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 8)))

    return Pairs.of(
        Pair(f"{text()}?", f"{text()}.", f"No {text()}.", domains[i % len(domains)])
        for i in range(count)
    )


def streams(model: Model, ids: tuple[int, ...]) -> Tensor:
    """Return the outputs of all blocks for one text, `[layer pos d_model]` in float64."""
    kept: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _i, out: kept.append(block_output(out)[0].double()))
        for block in model.architecture.blocks
    ]
    with torch.no_grad():
        model.hf_model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.stack(kept)


def side(model: Model, prompt: str, response: str, position: str) -> tuple[Tensor, Tensor]:
    """Return the mean `[layer d_model]` and the mean norm `[layer]` of one text at one position."""
    if position.startswith("template"):
        stream = streams(model, encode_prompt(model.tokenizer, response))
        read = stream[:, [int(position.removeprefix("template[").removesuffix("]"))]]
    else:
        exchange = encode_exchange(model.tokenizer, prompt, response)
        stream, start = streams(model, exchange.ids), exchange.response_start
        known = {
            "response_mean": stream[:, start:],
            "response_first": stream[:, start : start + 1],
            "response_last": stream[:, -1:],
            "prompt_last": stream[:, start - 1 : start],
        }
        if position in known:
            read = known[position]
        else:  # no textbook has it: what was registered is taken at its word
            read = stream[:, list(_IN_EXCHANGE[position](exchange))]
    return read.mean(dim=1), read.norm(dim=-1).mean(dim=1)


@dataclass(frozen=True)
class Textbook:
    """Statistics of the pairs of one domain at one position, computed at once."""

    chosen: Tensor  # [pair layer d_model]
    rejected: Tensor
    norms: Tensor  # [pair layer]

    @property
    def difference(self) -> Tensor:
        return (self.chosen - self.rejected).mean(dim=0)

    @property
    def standard_error(self) -> Tensor:
        differences = self.chosen - self.rejected
        return differences.std(dim=0, correction=1) / len(differences) ** 0.5

    @property
    def split_half_cosine(self) -> Tensor:
        differences = self.chosen - self.rejected
        even, odd = differences[::2].mean(dim=0), differences[1::2].mean(dim=0)
        return torch.cosine_similarity(even, odd, dim=-1, eps=1e-300)


def textbook(model: Model, pairs: Pairs, domain: str | None, position: str) -> Textbook:
    rows = [
        [side(model, str(pair.prompt), text, position) for text in (pair.chosen, pair.rejected)]
        for pair in pairs
        if pair.domain == domain
    ]
    return Textbook(
        torch.stack([chosen[0] for chosen, _ in rows]),
        torch.stack([rejected[0] for _, rejected in rows]),
        torch.stack([(chosen[1] + rejected[1]) / 2 for chosen, rejected in rows]),
    )


def off(found: Tensor, expected: Tensor) -> float:
    """Return the largest ‖found − expected‖ / ‖expected‖ over layers."""
    difference = (found - expected).norm(dim=-1)
    return float((difference / expected.norm(dim=-1).clamp_min(1e-12)).max())

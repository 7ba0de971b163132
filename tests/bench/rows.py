"""Sixty-four rows with sixty-four settings of three domains, gate on.

The reference is the same rows unsteered. The gate is read at block 0 and every block is steered,
so nothing is left out that could cost. Prompts and answers have a quarter of the length that the
other generations have, in the same proportion: a round is then short enough to be compared with
the next, and what is done once per call (attaching, the gate) weighs four times as much.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

import steer
from steer.network import encode_prompt
from steer.pairs import Prompt
from tests.bench.generation import check_differs, directions_of, generate
from tests.bench.lines import Limit, Line
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, measure
from tests.bench.setting import LAYERS, SPECIALS, WIDTH, bench_model, bench_pairs, bench_tokenizer
from tests.bench.slices import twin

_ROWS = 64
_PROMPT = 16  # tokens at most
_NEW_TOKENS = 16
_DOMAINS = ("medical", "legal", "financial")


@bench("rows")
def rows(options: Options) -> Iterator[Line]:
    """64 rows with 64 coefficient rows, three domains, gate on: the unsteered rows."""
    model = bench_model()
    lm, unsteered = steer.Model(twin(model), bench_tokenizer()), twin(model)
    prompts = _prompts()
    ids, mask = _padded(lm, prompts)
    knobs, coefficients = _knobs(lm, prompts)

    def plain(number: int) -> Tensor:
        return generate(unsteered, ids, nullcontext, _NEW_TOKENS, mask)

    def steered(number: int) -> Tensor:
        context = partial(lm.steered, knobs, coefficients)
        return generate(lm.hf_model, ids, context, _NEW_TOKENS, mask)

    check_differs("64 rows", plain(0), steered(0))
    yield from measure(
        [Method("unsteered", plain), Method("steered", steered)],
        [
            Comparison(
                "rows.64",
                "64 rows, 64 coefficient rows, 3 domains, 12 layers, gate on / unsteered rows",
                "steered",
                "unsteered",
                Limit(1.05),
            )
        ],
        options.budget,
    )


def _prompts() -> list[Prompt]:
    """Return prompts of 9 to 16 tokens, template included."""
    words = [str(pair.prompt).split() for pair in bench_pairs()[:_ROWS]]
    return [" ".join(w[: _PROMPT - 4 - row % 8]) for row, w in enumerate(words)]


def _padded(lm: steer.Model, prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Return prompts as ids and mask, padded at the left."""
    encoded = [encode_prompt(lm.tokenizer, prompt) for prompt in prompts]
    width = max(map(len, encoded))
    pad = SPECIALS.index("<pad>")
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in encoded])
    return ids, (ids != pad).long()


def _knobs(lm: steer.Model, prompts: list[Prompt]) -> tuple[steer.Composition, Tensor]:
    """Return three random vectors over all layers with a gate, and one setting per row."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(_DOMAINS), LAYERS, WIDTH, generator=generator)
    directions = directions_of(lm.hf_model, noise)
    vectors = {
        domain: steer.Vector.of(dict(enumerate(own)))
        for domain, own in zip(_DOMAINS, directions, strict=True)
    }
    third = len(prompts) // len(_DOMAINS)
    asked = {d: prompts[k * third : (k + 1) * third] for k, d in enumerate(_DOMAINS)}
    gate = steer.domain_gate(lm, asked, layer=0)
    coefficients = 0.5 + torch.rand(_ROWS, len(_DOMAINS), generator=generator)
    return steer.compose(vectors, gate=gate), coefficients

"""A sweep of 21 coefficients over the likelihood of given answers.

In each round one prompt with its two answers, the next one in the next round, 32 in all: a sweep
works through its texts one after the other, so that the ratio of a prompt is that of the sweep.
The separate evaluations are the model's own forward, one text at a time inside `lm.steered`, for
every seventh coefficient, times seven; so is the limit, which is the same for each coefficient.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import steer
from steer.algebra import parse_scope
from steer.engine._reading import keep_freed_memory
from steer.measure import likelihoods
from steer.network import Exchange, encode_exchange
from tests.bench.lines import Limit, Line
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, measure
from tests.bench.setting import LAYERS, WIDTH, bench_model, bench_pairs, bench_tokenizer
from tests.bench.slices import twin

COEFFICIENTS = torch.linspace(-1, 1, 21)
_EVERY = 7  # of 21
_PROMPTS = 32
_AT_ONCE = 240  # positions that the limit unembeds at once
_LAYERS = {"middle": LAYERS // 2, "two_thirds": 2 * LAYERS // 3}
_LIMITS = {
    ("middle", "all"): 2.2,
    ("middle", "response"): 3.2,
    ("two_thirds", "all"): 3.0,
    ("two_thirds", "response"): 4.5,
}


@bench("sweep")
def sweep(options: Options) -> Iterator[Line]:
    """21 coefficients on 32 prompts, likelihood of given answers: 21 evaluations, and the limit."""
    keep_freed_memory()
    model = bench_model()
    pairs = bench_pairs()[:_PROMPTS]
    for (where, scope), least in _LIMITS.items():
        yield from _at(model, pairs, where, scope, least, options)


def _at(
    model: torch.nn.Module,
    pairs: steer.Pairs,
    where: str,
    scope: str,
    least: float,
    options: Options,
) -> Iterator[Line]:
    layer = _LAYERS[where]
    lm, plain, bare = (steer.Model(twin(model), bench_tokenizer()) for _ in range(3))
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(layer))
    knobs = steer.compose(
        {"vector": steer.Part(steer.Vector.of({layer: direction}), "add", parse_scope(scope))}
    )

    def together(number: int) -> list[Tensor]:
        pair = pairs[number % _PROMPTS]
        asked, answers = [pair.prompt] * 2, [pair.chosen, pair.rejected]
        return list(likelihoods(lm, knobs, COEFFICIENTS[:, None], asked, answers).logprobs)

    def apart(number: int) -> list[Tensor]:
        return _separately(plain, knobs, _exchanges(plain, pairs[number % _PROMPTS]))

    def limit(number: int) -> None:
        exchanges = _exchanges(bare, pairs[number % _PROMPTS])
        for _ in COEFFICIENTS[::_EVERY]:
            _least(bare, layer, exchanges, scope)

    _check(together(0), apart(0))
    scale = partial(lambda times, number: times, len(COEFFICIENTS) / len(COEFFICIENTS[::_EVERY]))
    name = f"sweep.{where}.{scope}"
    yield from measure(
        [
            Method("together", together),
            Method("apart", apart, scale=scale),
            Method("limit", limit, scale=scale),
        ],
        [
            Comparison(
                name,
                f"21 evaluations / sweep, layer {layer} of {LAYERS}, scope {scope}",
                "apart",
                "together",
                Limit(least, "at least"),
            ),
            Comparison(
                f"{name}.limit",
                "sweep / blocks above over tokens that can change + unembedding where scored",
                "together",
                "limit",
                Limit(1.1),
            ),
            Comparison(f"{name}.ideal", "21 evaluations / that limit", "apart", "limit"),
        ],
        options.budget,
    )


def _exchanges(lm: steer.Model, pair: steer.Pair) -> list[Exchange]:
    return [encode_exchange(lm.tokenizer, pair.prompt, a) for a in (pair.chosen, pair.rejected)]


@torch.no_grad()
def _separately(
    lm: steer.Model, knobs: steer.Composition, exchanges: list[Exchange]
) -> list[Tensor]:
    """Return the log-probabilities of each answer at every seventh coefficient, `[setting pos]`."""
    found: list[list[Tensor]] = [[] for _ in exchanges]
    everywhere = all(part.scope.everything for part in knobs.parts.values())
    for c in COEFFICIENTS[::_EVERY].tolist():
        with lm.steered(knobs, c):
            for k, exchange in enumerate(exchanges):
                start = exchange.response_start
                where = {} if everywhere else {"prompt_lengths": [start]}
                logits = lm.hf_model(torch.tensor([exchange.ids]), **where).logits
                table = torch.log_softmax(logits[0, start - 1 : -1], dim=-1)
                found[k].append(table.gather(1, torch.tensor(exchange.ids[start:])[:, None])[:, 0])
    return [torch.stack(rows) for rows in found]


@torch.no_grad()
def _least(lm: steer.Model, layer: int, exchanges: list[Exchange], scope: str) -> None:
    """Run what no method can leave out for one coefficient, on one row of as many tokens.

    These are the tokens of the prompt, once, if they are steered, and of both answers but their
    last, which predict nothing; the scored positions are all that can change.
    """
    prompt = exchanges[0].response_start
    answers = sum(len(e.response_ids) - 1 for e in exchanges)
    tokens = answers + (prompt if scope == "all" else 0)
    scored = answers + (1 if scope == "all" else 0)
    h = torch.ones(1, tokens, WIDTH)
    body = lm.hf_model.model
    embeddings = body.rotary_emb(h, torch.arange(tokens)[None])
    for block in body.layers[layer + 1 :]:
        h = block(h, position_embeddings=embeddings)
    for piece in h[0, -scored:].split(_AT_ONCE):
        torch.log_softmax(lm.architecture.unembed(piece), dim=-1)


def _check(together: list[Tensor], apart: list[Tensor]) -> None:
    """Refuse results that differ: the work compared would not be the same.

    Raises:
        RuntimeError: A log-probability differs by more than 1e-5, relative to the largest.
    """
    for many, few in zip(together, apart, strict=True):
        error = float((many[::_EVERY] - few).abs().max() / few.abs().max())
        if not error <= 1e-5:
            raise RuntimeError(f"sweep: differs from separate evaluations by {error:.1e}")

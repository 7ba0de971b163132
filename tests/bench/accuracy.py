"""Recorded vectors against a textbook computation in float64."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import steer
from steer.network import encode_exchange, encode_prompt
from tests.bench.lines import Limit, Line, exact
from tests.bench.registry import Options, bench
from tests.bench.setting import LAYERS, WIDTH, bench_model, bench_pairs, bench_tokenizer

_LIMIT = Limit(1e-5)
_POSITIONS = ("response_mean", "template[-1]")


@bench("accuracy")
def accuracy(options: Options) -> Iterator[Line]:
    """Vectors of float32 recordings against float64, one text at a time."""
    lm = steer.Model(bench_model(), bench_tokenizer())
    pairs = bench_pairs()[: 10 if options.quick else 100]
    activations = steer.record(lm, pairs, ["response_mean", "template"], progress=False)
    exact_model = copy.deepcopy(lm.hf_model).double()
    for position, truth in _textbook(exact_model, lm.tokenizer, pairs).items():
        vector = steer.mean_difference(activations, position=position)
        found = torch.stack([vector.direction(layer) for layer in range(LAYERS)]).double()
        errors = (found - truth).norm(dim=1) / truth.norm(dim=1)
        yield Line(
            f"accuracy.{position}",
            f"max over layers of ‖v − v64‖ / ‖v64‖, {len(pairs)} pairs",
            exact(float(errors.max())),
            1,
            _LIMIT,
        )


def _textbook(model: Any, tokenizer: Any, pairs: steer.Pairs) -> dict[str, Tensor]:
    """Return the difference of means at each position, `[layer d_model]`, in float64."""
    sums = {name: torch.zeros(LAYERS, WIDTH).double() for name in _POSITIONS}
    for pair in pairs:
        for sign, answer in ((1, pair.chosen), (-1, pair.rejected)):
            exchange = encode_exchange(tokenizer, pair.prompt, answer)
            stream = _streams(model, exchange.ids)
            sums["response_mean"] += sign * stream[:, exchange.response_start :].mean(dim=1)
            sums["template[-1]"] += sign * _streams(model, encode_prompt(tokenizer, answer))[:, -1]
    return {name: total / len(pairs) for name, total in sums.items()}


def _streams(model: Any, ids: tuple[int, ...]) -> Tensor:
    """Return the outputs of all blocks for one text, `[layer pos d_model]`."""
    kept: list[Tensor] = []

    def keep(module: torch.nn.Module, args: object, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in model.model.layers]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return torch.cat(kept)

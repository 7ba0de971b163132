"""Steered generation of 64 tokens: one layer and all layers, batch 1 and 8.

The same token ids, greedy, nothing ends early. Each round counts attaching and detaching as well.
The peers stand beside, with the same directions, and stop after a few rounds.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

import steer
from tests.bench.lines import Limit, Line
from tests.bench.peers import steered_by_repeng, steered_by_steering_vectors
from tests.bench.registry import Options, bench
from tests.bench.rounds import Comparison, Method, measure
from tests.bench.setting import LAYERS, VOCAB, WIDTH, bench_model, bench_tokenizer
from tests.bench.slices import twin

_NEW_TOKENS = 64
_PROMPT = 60
_ONE = LAYERS // 2
_PEER_ROUNDS = 8
_LIMIT = Limit(1.03)
_LAYERS = {"one": (_ONE,), "all": tuple(range(LAYERS))}
Steering = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class WeightMode:
    """One way to steer, on a model of its own.

    Args:
        who: Library.
        layers: `one` or `all`.
        model: The model.
        steering: Makes the context in which it is steered.
    """

    who: str
    layers: str
    model: PreTrainedModel
    steering: Steering

    @property
    def name(self) -> str:
        """Library and layers."""
        return f"{self.who}, {self.layers}"


@bench("generation_1")
def generation_1(options: Options) -> Iterator[Line]:
    """Steered generation, batch 1: one layer and all layers; the peers beside."""
    yield from _generation(1, options)


@bench("generation_8")
def generation_8(options: Options) -> Iterator[Line]:
    """Steered generation, batch 8: one layer and all layers; the peers beside."""
    yield from _generation(8, options)


def _generation(batch: int, options: Options) -> Iterator[Line]:
    model = bench_model()
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(6, VOCAB, (batch, _PROMPT), generator=generator)
    ways = _ways(model, _directions(model, generator))
    _check(model, ids, ways)
    unsteered = twin(model)
    plain = Method("unsteered", lambda number: generate(unsteered, ids, nullcontext))
    methods = [_method(way, ids) for way in ways]
    yield from measure([plain, *methods], [_against(w, batch) for w in ways], options.budget)


def generate(
    model: PreTrainedModel,
    ids: Tensor,
    steering: Steering,
    new_tokens: int = _NEW_TOKENS,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the new tokens of a plain call of the model's own `generate` inside a context.

    Args:
        model: The model.
        ids: `[batch pos]`.
        steering: Makes the context.
        new_tokens: How many are generated.
        mask: Attention mask; all ones if not given.
    """
    mask = torch.ones_like(ids) if mask is None else mask
    with steering():
        out: Tensor = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False
        )
    return out[:, ids.shape[1] :]


def check_differs(name: str, plain: Tensor, steered: Tensor) -> None:
    """Refuse a method that does not steer every row, or generates another number of tokens.

    Raises:
        RuntimeError: What it generates is wrong.
    """
    if steered.shape != plain.shape:
        raise RuntimeError(f"{name}: {tuple(steered.shape)} new tokens, not {tuple(plain.shape)}")
    if bool((steered == plain).all(dim=1).any()):
        raise RuntimeError(f"{name}: a row is what the unsteered model generates")


def directions_of(model: PreTrainedModel, noise: Tensor) -> Tensor:
    """Return directions a third as long as the residual stream is at their layers.

    Args:
        model: The model.
        noise: `[..., layer d_model]`.
    """
    lm = steer.Model(model, bench_tokenizer())
    sizes = lm.activations(["w10 w11 w12"])[0].norm(dim=-1).mean(dim=-1) / 3
    return sizes[:, None] * torch.nn.functional.normalize(noise, dim=-1)


def _directions(model: PreTrainedModel, generator: torch.Generator) -> dict[int, Tensor]:
    noise = torch.randn(LAYERS, WIDTH, generator=generator)
    return dict(enumerate(directions_of(model, noise)))


def _ways(model: PreTrainedModel, every: dict[int, Tensor]) -> list[WeightMode]:
    """Return every way to steer with the same directions."""
    ways = []
    for which, layers in _LAYERS.items():
        directions = {layer: every[layer] for layer in layers}
        for who in ("steer", "steering-vectors", "repeng"):
            own = twin(model)
            ways.append(WeightMode(who, which, own, _steering(who, own, directions)))
    return ways


def _steering(who: str, model: PreTrainedModel, directions: dict[int, Tensor]) -> Steering:
    if who == "steering-vectors":
        return lambda: steered_by_steering_vectors(model, directions)
    if who == "repeng":
        return lambda: steered_by_repeng(model, directions)
    lm, vector = steer.Model(model, bench_tokenizer()), steer.Vector.of(directions)
    return lambda: lm.steered(vector, 1.0)


def _check(model: PreTrainedModel, ids: Tensor, ways: list[WeightMode]) -> None:
    """Refuse ways that do not steer, or not alike: the work compared would not be the same.

    Raises:
        RuntimeError: The unsteered tokens, or others than those of steer at the same layers.
    """
    plain = generate(model, ids, nullcontext)
    found = {way.name: generate(way.model, ids, way.steering) for way in ways}
    for way in ways:
        check_differs(way.name, plain, found[way.name])
        if not torch.equal(found[way.name][:, 0], found[f"steer, {way.layers}"][:, 0]):
            raise RuntimeError(f"{way.name}: steers otherwise than steer does")


def _method(way: WeightMode, ids: Tensor) -> Method:
    rounds = None if way.who == "steer" else _PEER_ROUNDS
    return Method(way.name, lambda number: generate(way.model, ids, way.steering), rounds)


def _against(way: WeightMode, batch: int) -> Comparison:
    ours = way.who == "steer"
    return Comparison(
        f"generation_{batch}.{way.layers}{'' if ours else '.' + way.who}",
        f"{way.who}, {way.layers} layer{'s' if way.layers == 'all' else ''}, batch {batch}, "
        f"{_NEW_TOKENS} new tokens / unsteered",
        way.name,
        "unsteered",
        _LIMIT if ours else None,
    )

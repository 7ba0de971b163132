"""What a vector does to the residual stream, and how that compares with a residual direction."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list, one_of
from steer.algebra import CoefficientsLike, Composition, Part, Vector
from steer.errors import CompositionError, SelectionError
from steer.extract import Activations
from steer.measure import Estimate
from steer.measure._estimate import jackknife, mean_of
from steer.model import Model, check_model, exchange_batch, prompt_batch
from steer.pairs import Prompt
from steer.show import Chart, Curves, Row, Series
from steer.show._chart import Point
from steer.view._base import View
from steer.view._charts import LAYER, columns, estimates, zipped
from steer.view._checks import check_finite, check_kind, check_one_setting
from steer.view._directions import directions

Tokens = Literal["last_prompt", "prompt", "response", "all"]
_AT_ONCE = 2**28  # bytes of the streams that are held at once, in float32


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Displacement(View):
    """How far, and where to, the stream of each text was moved.

    Args:
        moved: `[pair layer d_model]` in float64: for each text the mean over its tokens of the
            stream with steering minus without, in residual units.
        norm: `[pair layer]`: mean ‖h‖ of the same tokens without steering.
        against: `[layer d_model]`: the directions compared with; None without.
        tokens: Which tokens.
        name: What is compared with, for people.
    """

    moved: Float[Tensor, "pair layer d_model"]
    norm: Float[Tensor, "pair layer"]
    against: Float[Tensor, "layer d_model"] | None
    tokens: Tokens
    name: str

    @property
    def mean(self) -> Float[Tensor, "layer d_model"]:
        """The mean displacement of each layer, in residual units."""
        return self.moved.mean(dim=0)

    @property
    def relative(self) -> tuple[Estimate, ...]:
        """At each layer the length of each text's displacement relative to its stream's."""
        shares = self.moved.norm(dim=-1) / self.norm
        found = [mean_of("‖displacement‖/‖h‖", column) for column in shares.T]
        return tuple(replace(e, interval=(max(e.interval[0], 0.0), e.interval[1])) for e in found)

    @property
    def common(self) -> Float[Tensor, " layer"]:
        """‖mean displacement‖ / mean ‖displacement‖: 1 if every text is moved alike, else less."""
        lengths = self.moved.norm(dim=-1).mean(dim=0)
        whole: Tensor = self.mean.norm(dim=-1)
        return whole / torch.where(lengths > 0, lengths, torch.nan)

    @property
    def cosine(self) -> tuple[Estimate, ...]:
        """At each layer the cosine of the mean displacement with what it is compared with."""
        if self.against is None:
            return ()
        n = len(self.moved)
        found = []
        for layer, along in enumerate(self.against):
            rows = self.moved[:, layer]
            left = (rows.sum(dim=0) - rows) / max(n - 1, 1)
            found.append(
                jackknife(
                    "cosine", _cosine(rows.mean(dim=0), along), _cosines(left, along), (-1, 1)
                )
            )
        return tuple(found)

    @property
    def rows(self) -> list[Row]:
        """One row per layer: relative length, common share, and the cosine with its interval."""
        rows: list[Row] = []
        cosines = self.cosine
        for layer, (size, common) in enumerate(zip(self.relative, self.common, strict=True)):
            row = {
                "layer": layer,
                "‖moved‖/‖h‖": size.value,
                "low": size.interval[0],
                "high": size.interval[1],
                "common": float(common),
            }
            rows.append(row | (columns("cosine", cosines[layer]) if cosines else {}))
        return rows

    @property
    def title(self) -> str:
        """Which tokens of how many texts, compared with what."""
        with_what = f" · cosine with {self.name}" if self.against is not None else ""
        where = self.tokens.replace("_", " ")
        return f"Displacement of the stream · {len(self.moved)} texts, {where} tokens{with_what}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """Length by layer, and cosine by layer."""
        whole = self.mean.norm(dim=-1) / self.norm.mean(dim=0)
        layers = range(len(whole))
        size: dict[str, tuple[Point, ...]] = {
            "mean over texts": estimates(layers, self.relative),
            "common part": zipped(layers, whole),
        }
        label = "‖displacement‖ / ‖h‖ (no unit)"
        found: dict[str, Chart] = {
            "length": Curves(label, LAYER, size, limits=(0.0, None), whole=True)
        }
        if self.against is not None:
            found["cosine"] = Curves(
                f"cosine with {self.name}",
                LAYER,
                {"": Series(estimates(layers, self.cosine), hue=2)},
                level=0.0,
                limits=(-1.05, 1.05),
                whole=True,
            )
        return found


def displacement(
    model: Model,
    what: Vector | Part | Composition | Mapping[str, Vector | Part],
    prompts: Sequence[Prompt],
    coefficients: CoefficientsLike | None = None,
    *,
    responses: Sequence[str] | None = None,
    tokens: Tokens = "last_prompt",
    against: Vector | Activations | None = None,
    domain: str | None = None,
    position: str | None = None,
) -> Displacement:
    """Return what steering does to the residual stream, layer by layer.

    d_i = mean over tokens of h' − h, with and without steering, on the same text. For an alignment
    vector this is the bridge to residual vectors: the cosine of the mean d with the direction of
    the same domain says at which layers changed weights do what adding that direction does.

    Args:
        model: The model; what steers it already stays in both, and must be one setting too.
        what: As for `model.steered`: a vector of weights, of residual sites, or a composition.
        prompts: The prompts.
        coefficients: As for `model.steered`, one setting for all prompts.
        responses: What is answered, the same with and without steering, if tokens of it are read.
        tokens: Which tokens to read: `last_prompt`, `prompt`, `response` or `all`.
        against: A residual vector to compare with (one of a single layer is compared at every
            layer), or activations, for their difference of means at each layer.
        domain: The domain of the activations; may be left out if there is one.
        position: The position of the activations, likewise.

    Returns:
        The displacements.

    Raises:
        ArgumentError: An argument has the wrong type, or `tokens` is not one of the options.
        SelectionError: There are no prompts, `tokens` needs responses, or the stream is not finite.
        CompositionError: Coefficients with one row for each prompt.
        SteeringError: The model is steered with one row for each prompt.
        RecordingError: There is no direction to compare with at some layer.
        FitError: The directions have another width than the model.
    """
    check_model(model)
    steering = model.steered(what, coefficients)
    if steering.composition.per_row:
        raise CompositionError(
            "displacement measures one setting",
            found=f"{len(steering.composition.coefficients)} rows of coefficients",
            expected="a number for all prompts, or one for each domain",
            do="call displacement once for each setting",
        )
    check_one_setting(model)
    prompts = as_list("prompts", prompts)
    one_of("tokens", tokens, get_args(Tokens))
    responses = None if responses is None else as_list("responses", responses)
    for response in responses or ():
        check_kind("a response", response, str)
    if not len(prompts) or (responses is None and tokens in ("response", "all")):
        raise SelectionError(
            "there is nothing to read",
            found=f"{len(prompts)} prompts, tokens={tokens!r}, "
            f"{'no' if responses is None else len(responses)} responses",
            expected="at least one prompt, and responses for tokens='response' or 'all'",
            do="pass responses, for instance what model.generate returned",
        )
    along = None
    if against is not None:
        check_kind("against", against, Vector, Activations)
        every, width = range(model.n_layers), model.d_model
        along = directions(against, every, domain, position, width=width)[1]
    texts = _texts(model, prompts, responses, tokens)
    before, norm = _means(model, prompts, responses, texts)
    with steering:
        after, _ = _means(model, prompts, responses, texts)
    check_finite("the stream", before, after)
    return Displacement(after - before, norm, along, tokens, _named(against))


class _Text(NamedTuple):
    """A text to read: how many tokens it has, and which of them are read."""

    length: int
    span: slice


def _texts(
    model: Model, prompts: Sequence[Prompt], responses: Sequence[str] | None, tokens: Tokens
) -> list[_Text]:
    """Return how long each text is, and which of its tokens are read."""
    if responses is None:
        batch = prompt_batch(model.chat, prompts)
    else:
        batch = exchange_batch(model.chat, prompts, responses)
    span = {
        "last_prompt": lambda start: slice(start - 1, start),
        "prompt": lambda start: slice(0, start),
        "response": lambda start: slice(start, None),
        "all": lambda start: slice(0, None),
    }[tokens]
    both = zip(batch.ids, batch.prompt_lengths, strict=True)
    return [_Text(len(ids), span(start)) for ids, start in both]


def _parts(texts: Sequence[_Text], most: int) -> Iterator[slice]:
    """Yield texts that hold together at most so many tokens, one text at least."""
    start, held = 0, 0
    for k, text in enumerate(texts):
        if k > start and held + text.length > most:
            yield slice(start, k)
            start, held = k, 0
        held += text.length
    yield slice(start, len(texts))


def _means(
    model: Model,
    prompts: Sequence[Prompt],
    responses: Sequence[str] | None,
    texts: Sequence[_Text],
) -> tuple[Float[Tensor, "pair layer d_model"], Float[Tensor, "pair layer"]]:
    """Return the mean stream and the mean length of the stream over some tokens of each text."""
    means, norms = [], []
    token = 4 * model.n_layers * model.architecture.d_model  # bytes
    for part in _parts(texts, _AT_ONCE // token):
        rows = model.activations(prompts[part], None if responses is None else responses[part])
        for row, text in zip(rows, texts[part], strict=True):
            stream = row[:, text.span].double().cpu()
            means.append(stream.mean(dim=1))
            norms.append(stream.norm(dim=-1).mean(dim=1))
    return torch.stack(means), torch.stack(norms)


def _cosines(rows: Tensor, along: Tensor) -> Tensor:
    lengths = rows.norm(dim=-1) * along.norm()
    return (rows @ along) / torch.where(lengths > 0, lengths, torch.nan)


def _cosine(row: Tensor, along: Tensor) -> float:
    value = float(_cosines(row[None], along))
    return value if math.isnan(value) else max(-1.0, min(1.0, value))


def _named(against: Vector | Activations | None) -> str:
    if isinstance(against, Vector):
        made = against.provenance
        return " ".join(filter(None, (made.method, made.domain)))
    return "difference of means"

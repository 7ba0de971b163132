"""What a vector does to the residual stream, and how that compares with a residual direction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list, one_of
from steer.algebra import CoefficientsLike, Composition, Part, Vector
from steer.measure import Estimate
from steer.measure._estimate import jackknife, mean_of, within
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
        found = (mean_of("‖displacement‖/‖h‖", column) for column in shares.T)
        return tuple(within(e, 0.0, math.inf) for e in found)

    @property
    def common(self) -> Float[Tensor, " layer"]:
        """‖mean displacement‖ / mean ‖displacement‖: 1 if every text is moved alike, else less."""
        share: Tensor = self.mean.norm(dim=-1) / self.moved.norm(dim=-1).mean(dim=0)
        return share

    @property
    def cosine(self) -> tuple[Estimate, ...]:
        """At each layer the cosine of the mean displacement with what it is compared with."""
        if self.against is None:
            return ()
        found = []
        for rows, along in zip(self.moved.unbind(1), self.against, strict=True):
            left = (rows.sum(dim=0) - rows) / max(len(rows) - 1, 1)
            value = float(_cosines(rows.mean(dim=0), along))
            found.append(jackknife("cosine", value, _cosines(left, along), (-1, 1)))
        return tuple(found)

    @property
    def rows(self) -> list[Row]:
        """One row per layer: relative length, common share, and the cosine with its interval."""
        cosines = [columns("cosine", e) for e in self.cosine] or [{} for _ in self.common]
        return [
            {
                "layer": layer,
                "‖moved‖/‖h‖": size.value,
                "low": size.interval[0],
                "high": size.interval[1],
                "common": common,
                **cosine,
            }
            for layer, (size, common, cosine) in enumerate(
                zip(self.relative, self.common.tolist(), cosines, strict=True)
            )
        ]

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
    against: Vector | None = None,
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
        against: A residual vector to compare with; one of a single layer is compared at every
            layer.

    Returns:
        The displacements.

    Raises:
        ArgumentError: An argument has the wrong type, there are no prompts, or `tokens` is not one
            of the options, or needs responses.
        SelectionError: The stream is not finite.
        SteeringError: It is steered, by `coefficients` or before, with one row for each prompt.
        RecordingError: There is no direction to compare with at some layer.
        FitError: The directions have another width than the model.
    """
    check_model(model)
    steering = model.steered(what, coefficients)
    prompts = as_list("prompts", prompts, least=1)
    known = get_args(Tokens) if responses is not None else ("last_prompt", "prompt")
    one_of("tokens", tokens, known, do="pass responses to read tokens of them")
    if responses is None:
        batch = prompt_batch(model.chat, prompts)
    else:
        responses = as_list("responses", responses)
        for response in responses:
            check_kind("a response", response, str)
        batch = exchange_batch(model.chat, prompts, responses)
    spans = [_span(tokens, start) for start in batch.prompt_lengths]
    token = 4 * model.n_layers * model.d_model  # bytes
    count = max(1, _AT_ONCE // (token * max(map(len, batch.ids))))

    def read() -> tuple[Tensor, Tensor]:
        return _means(model, prompts, responses, spans, count)

    along, name = None, ""
    if against is not None:
        along = directions("against", against, range(model.n_layers), model=model)[1]
        made = against.provenance
        name = " ".join(filter(None, (made.method, made.domain)))
    with steering:
        check_one_setting(model)
        after, _ = read()
    before, norm = read()
    check_finite("the stream", before, after)
    return Displacement(after - before, norm, along, tokens, name)


def _span(tokens: Tokens, start: int) -> slice:
    """Return which tokens of a text to read, if the response begins at `start`."""
    first = {"last_prompt": start - 1, "response": start}.get(tokens, 0)
    return slice(first, start if tokens in ("last_prompt", "prompt") else None)


def _means(
    model: Model,
    prompts: Sequence[Prompt],
    responses: Sequence[str] | None,
    spans: Sequence[slice],
    count: int,
) -> tuple[Float[Tensor, "pair layer d_model"], Float[Tensor, "pair layer"]]:
    """Return mean and mean length of the stream over some tokens, of `count` texts at a time."""
    means, norms = [], []
    for start in range(0, len(prompts), count):
        part = slice(start, start + count)
        rows = model.activations(prompts[part], None if responses is None else responses[part])
        for row, span in zip(rows, spans[part], strict=True):
            stream = row[:, span].double().cpu()
            means.append(stream.mean(dim=1))
            norms.append(stream.norm(dim=-1).mean(dim=1))
    return torch.stack(means), torch.stack(norms)


def _cosines(rows: Float[Tensor, "*pair d_model"], along: Tensor) -> Float[Tensor, "*pair"]:
    """Return cosines; NaN where nothing moved."""
    cosines: Tensor = (rows @ along) / (rows.norm(dim=-1) * along.norm())
    return cosines.clamp(-1.0, 1.0)

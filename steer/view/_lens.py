"""Which tokens a vector promotes and suppresses, layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.functional import jvp

from steer._check import as_integer, as_list, integer, one_of
from steer.algebra import Vector
from steer.errors import RecordingError, SelectionError
from steer.extract import Activations
from steer.model import Model, check_model
from steer.pairs import Prompt
from steer.show import Chart, Matrix, Row
from steer.view._base import View
from steer.view._charts import around_zero, matrix
from steer.view._checks import check_finite, check_kind
from steer.view._directions import directions
from steer.view._far import near
from steer.view._tokens import short, tokens_of

Path = Literal["direct", "model"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Lens(View):
    """The first-order effect of a vector on every logit.

    Args:
        effects: `[layer vocab]` in float64: d logit / d coefficient at coefficient 0.
        tokens: The text of each token.
        layers: The layers that the vector is added at.
        path: `direct` to the unembedding, or through the `model`.
        at: What the derivative was taken at, for people.
        k: Tokens shown at each end.
    """

    effects: Float[Tensor, "layer vocab"]
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    path: Path
    at: str
    k: int

    def promoted(self, layer: int) -> list[tuple[str, float]]:
        """Return the tokens whose logits rise most at a layer, with d logit / d coefficient.

        Args:
            layer: One of `layers`.
        """
        return self._ends(layer, largest=True)

    def suppressed(self, layer: int) -> list[tuple[str, float]]:
        """Return the tokens whose logits fall most at a layer, with d logit / d coefficient.

        Args:
            layer: One of `layers`.
        """
        return self._ends(layer, largest=False)

    def _ends(self, layer: int, *, largest: bool) -> list[tuple[str, float]]:
        one_of("layer", as_integer(layer), self.layers)
        row = self.effects[self.layers.index(layer)]
        found = row.topk(self.k, largest=largest)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [(self.tokens[token], value) for token, value in pairs]

    def _limits(self) -> tuple[float, float]:
        """Return the ends of the colours, which hold all effects shown but those far out."""
        ends = [self.effects.topk(self.k, largest=up).values for up in (True, False)]
        shown = torch.cat(ends).flatten()
        return around_zero(shown[near(shown.abs())])

    @property
    def rows(self) -> list[Row]:
        """One row per layer and rank: a token promoted and one suppressed, each with its slope."""
        return [
            {
                "layer": layer,
                "rank": rank,
                "promoted": up,
                "rise": rise,
                "suppressed": down,
                "fall": fall,
            }
            for layer in self.layers
            for rank, ((up, rise), (down, fall)) in enumerate(
                zip(self.promoted(layer), self.suppressed(layer), strict=True), start=1
            )
        ]

    @property
    def title(self) -> str:
        """Which path, and what the derivative was taken at."""
        way = "straight to the unembedding" if self.path == "direct" else "through the model"
        return f"Tokens promoted and suppressed, {way} · logit per unit of coefficient at {self.at}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The tokens promoted most, and those suppressed most."""
        return {name: self._chart(name) for name in ("promoted", "suppressed")}

    def _chart(self, name: str) -> Matrix:
        found = [getattr(self, name)(layer) for layer in self.layers]
        return matrix(
            "logit per unit of coefficient",
            [[value for _, value in row] for row in found],
            map(str, self.layers),
            [str(rank + 1) for rank in range(self.k)],
            self._limits(),
            texts=[[short(token) for token, _ in row] for row in found],
            down="added after block",
            across="rank",
            upwards=True,
            title=name,
        )


def lens(
    model: Model,
    vector: Vector,
    at: Sequence[Prompt] | Activations,
    *,
    layers: Sequence[int] | None = None,
    k: int = 8,
    path: Path = "direct",
    domain: str | None = None,
    position: str | None = None,
) -> Lens:
    """Return which tokens a vector promotes and suppresses when it is added at each layer.

    The effect is the derivative d logits / d coefficient at coefficient 0, of
    `direct`: logits(c) = unembed(h + c·v), the final norm (with its scale at h, and what the norm
    takes out of v along h), projection, unembedding and soft caps exactly as the model's own;
    blocks after the layer are left out. Of `model`: the model's own next-token logits when c·v is
    added at that layer to every token of the prompt, by a central difference: all later blocks
    take part. Its step is the cube root of the dtype's epsilon, of the stream's length (0.5% in
    float32, 20% in bfloat16). At the last layer both agree, up to the error of that step. A
    constant added to all logits changes no probability: compare tokens.

    Args:
        model: The model; inside `with model.steered(...)` the derivative is taken there.
        vector: A residual vector.
        at: Prompts, whose last token's stream is h at each layer (the mean effect over prompts is
            returned); or activations, for the mean of chosen and rejected as h (`direct` only).
        layers: Layers to add at; by default the vector's own. A vector of one layer is added at
            all of them.
        k: Tokens shown at each end.
        path: `direct` or `model`.
        domain: The domain of the activations; may be left out if there is one.
        position: The position of the activations, likewise.

    Returns:
        The effect on every token.

    Raises:
        ArgumentError: An argument has the wrong type, or `path` or `k` is out of range.
        SelectionError: There are no prompts, activations for `path="model"`, or an effect that is
            not finite.
        RecordingError: No such layer, domain or position.
        FitError: The vector has another width than the model.
    """
    check_model(model)
    check_kind("vector", vector, Vector)
    one_of("path", path, get_args(Path))
    integer("k", k, least=1)
    wanted, along = directions(vector, layers, width=model.d_model)
    if not isinstance(at, Activations):
        at = as_list("prompts", at)
    if not isinstance(at, Activations) and len(at):
        where = f"the last token of {len(at)} prompts"
        if path == "model":
            effects = _through_model(model, wanted, along, at)
        else:
            rows = model.activations(at, layers=wanted)
            effects = _direct(model, torch.stack([row[:, -1] for row in rows], dim=1), along)
    elif isinstance(at, Activations) and path == "direct":
        moments = at.of(domain, position)
        if missing := [layer for layer in wanted if layer not in at.layers]:
            raise RecordingError(
                "the activations lack a layer",
                found=f"layers {missing} asked for",
                expected=f"some of {list(at.layers)}",
                do="record these layers, or name others: layers=[…]",
            )
        rows_of = [at.layers.index(layer) for layer in wanted]
        mean = (moments.mean_chosen + moments.mean_rejected)[rows_of, None] / 2
        where = f"the mean activation at {at.position(position)}"
        effects = _direct(model, mean, along)
    else:
        raise SelectionError(
            "the derivative needs a stream to be taken at",
            found=f"{type(at).__name__} for path {path!r}",
            expected="at least one prompt; activations for 'direct' only",
            do="pass prompts",
        )
    check_finite("the effect", effects)
    tokens = tokens_of(model)
    return Lens(effects[:, : len(tokens)], tokens, wanted, path, where, min(k, len(tokens)))


def _direct(
    model: Model, h: Float[Tensor, "layer batch d_model"], along: Float[Tensor, "layer d_model"]
) -> Float[Tensor, "layer vocab"]:
    """Return the mean over prompts of the derivative of unembed(h + c·v)."""
    architecture = model.architecture
    home = next(architecture.embedding.parameters())
    effects = []
    for base, v in zip(h, along, strict=True):
        base = base.to(home.device, home.dtype)
        tangent = v.to(base).expand_as(base)
        slope: Tensor = jvp(architecture.unembed, base, tangent.contiguous())[1]
        effects.append(slope.detach().double().mean(dim=0).cpu())
    return torch.stack(effects)


def _through_model(
    model: Model,
    layers: Sequence[int],
    along: Float[Tensor, "layer d_model"],
    prompts: Sequence[Prompt],
) -> Float[Tensor, "layer vocab"]:
    """Return the mean over prompts of the central difference of the model's logits."""
    streams = model.activations(prompts, layers=layers)
    norms = torch.stack([row.double().norm(dim=-1).mean(dim=-1) for row in streams]).mean(dim=0)
    share = float(torch.finfo(streams[0].dtype).eps ** (1 / 3))
    effects = []
    for layer, v, norm in zip(layers, along, norms.cpu(), strict=True):
        step = share * float(norm / (v.norm() or 1.0))
        at = Vector.of({layer: v.float()})
        ends = []
        for c in (step, -step):
            with model.steered(at, c):
                ends.append(_next_logits(model, prompts))
        effects.append((ends[0] - ends[1]).mean(dim=0) / (2 * step))
    return torch.stack(effects)


def _next_logits(model: Model, prompts: Sequence[Prompt]) -> Float[Tensor, "batch vocab"]:
    last = model.n_layers - 1
    rows = model.activations(prompts, layers=[last])
    with torch.no_grad():
        return torch.stack([model.architecture.unembed(row[0, -1]).double() for row in rows]).cpu()

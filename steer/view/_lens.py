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
from steer.model import Model, check_model
from steer.pairs import Prompt
from steer.show import Chart, Row
from steer.view._base import View
from steer.view._charts import around_zero, near
from steer.view._checks import check_finite
from steer.view._directions import directions
from steer.view._tokens import Ranked, ranked, ranked_matrix, ranked_rows, tokens_of

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

    def _ends(self, layer: int, *, largest: bool) -> Ranked:
        one_of("layer", as_integer(layer), self.layers)
        row = self.effects[self.layers.index(layer)]
        return ranked(row, self.tokens, self.k, largest=largest)

    @property
    def rows(self) -> list[Row]:
        """One row per layer and rank: a token promoted and one suppressed, each with its slope."""
        names = "promoted", "rise", "suppressed", "fall"
        return ranked_rows(self.layers, names, self.promoted, self.suppressed)

    @property
    def title(self) -> str:
        """Which path, and what the derivative was taken at."""
        way = "straight to the unembedding" if self.path == "direct" else "through the model"
        return f"Tokens promoted and suppressed, {way} · logit per unit of coefficient at {self.at}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """The tokens promoted and suppressed most; effects far out are off the scale."""
        ends = [self.effects.topk(self.k, largest=up).values for up in (True, False)]
        shown = torch.cat(ends).flatten()
        limits = around_zero(shown[near(shown.abs())])
        caption, down = "logit per unit of coefficient", "added after block"
        lists = {"promoted": self.promoted, "suppressed": self.suppressed}
        return {
            name: ranked_matrix(caption, self.layers, of, limits, down=down, title=name)
            for name, of in lists.items()
        }


def lens(
    model: Model,
    vector: Vector,
    prompts: Sequence[Prompt],
    *,
    layers: Sequence[int] | None = None,
    k: int = 8,
    path: Path = "direct",
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
        prompts: Prompts, whose last token's stream is h at each layer; the mean effect over them is
            returned.
        layers: Layers to add at; by default the vector's own. A vector of one layer is added at
            all of them.
        k: Tokens shown at each end.
        path: `direct` or `model`.

    Returns:
        The effect on every token.

    Raises:
        ArgumentError: An argument has the wrong type, there are no prompts, or `path` or `k` is out
            of range.
        SelectionError: An effect is not finite.
        RecordingError: No such layer.
        FitError: The vector has another width than the model.
    """
    check_model(model)
    one_of("path", path, get_args(Path))
    integer("k", k, least=1)
    wanted, along = directions("vector", vector, layers, model=model)
    prompts = as_list("prompts", prompts, least=1)
    if path == "model":
        effects = _through_model(model, wanted, along, prompts)
    else:
        rows = model.activations(prompts, layers=wanted)
        effects = _direct(model, torch.stack([row[:, -1] for row in rows], dim=1), along)
    check_finite("the effect", effects)
    tokens = tokens_of(model)
    at, k = f"the last token of {len(prompts)} prompts", min(k, len(tokens))
    return Lens(effects[:, : len(tokens)], tokens, wanted, path, at, k)


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

"""Predicting from gradients what candidates do: one forward and backward of each pair.

To first order a vector v at layer l with coefficient c changes the preference margin of a pair by
c Σ_t ⟨∂margin/∂h_{l,t}, v⟩ over the tokens t of the scope, and KL(steered‖unsteered) is ½ c² times
the Fisher form E[(Σ_t ⟨∂log p(y)/∂h_{l,t}, v⟩)²] of tokens y that the model draws itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steer._progress import progress_bar
from steer.algebra import Composition, Residual, Weight, as_composition
from steer.algebra._site import EMBED
from steer.engine import Batch, HooksEngine
from steer.engine._branches.scores import token_logprobs
from steer.engine._gradients import Score, TextGradient, text_gradients
from steer.errors import CapabilityError
from steer.extract._preference_gradient import response_score
from steer.measure import NeutralText
from steer.measure._likelihood import gate_weights
from steer.measure._reduce import Reduce
from steer.model import Model, exchange_batch
from steer.pairs import Pairs
from steer.selection._candidates import Candidate

DRAWS = 2  # draws of the tokens of each neutral text


@dataclass(frozen=True, eq=False, slots=True)
class Prediction:
    """The slope of each pair's margin and the KL per squared coefficient of one candidate."""

    slopes: Float[Tensor, " pair"]
    curvature: float

    @property
    def finite(self) -> bool:
        """Whether slopes and curvature are finite."""
        return bool(torch.isfinite(self.slopes).all()) and math.isfinite(self.curvature)

    def coefficient(self, kl: float) -> float:
        """Return the coefficient, with its sign, at which a KL is predicted."""
        sign = -1.0 if float(self.slopes.mean()) < 0 else 1.0
        return sign * math.sqrt(kl / self.curvature) if self.curvature > 0 else sign * math.inf

    def gain(self, kl: float) -> float:
        """Return the predicted mean change of margin at a KL, in nats."""
        slope = abs(float(self.slopes.mean()))
        return slope * math.sqrt(kl / self.curvature) if self.curvature > 0 else math.inf


def unscreened(model: Model, candidate: Candidate) -> str:
    """Return why a candidate has no prediction; empty if it has one."""
    (part,) = candidate.composition.parts.values()
    sites = part.vector.sites
    if not isinstance(model.engine, HooksEngine):
        return f"the engine {model.engine.name} gives no gradients"
    if part.operator not in _RULES:
        return "its operator has no rule"
    if part.scope.marker is not None:
        return "its scope is found by a marker"
    if EMBED in sites:
        return "it acts on the embedding"
    if any(isinstance(site, Weight) for site in sites):
        tried = Batch(((0, 1, 2, 3, 4),) * 2, (2, 2))  # rows and tokens unlike in number
        weights = _on_weights([candidate])
        try:
            next(text_gradients(model.architecture, tried, [], part.scope, [_sum], weights))
        except CapabilityError:
            return "it displaces weights that can only be merged"
    return ""


def screen(
    model: Model,
    candidates: Sequence[Candidate],
    pairs: Pairs,
    text: NeutralText,
    reduce: Reduce,
    seed: int,
    progress: bool,
) -> list[Prediction]:
    """Return a prediction for each candidate."""
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = exchange_batch(model.chat, prompts + prompts, answers)
    score = partial(response_score, batch, reduce == "mean")
    slopes = _slopes(model, candidates, batch, [score], progress, "pairs")[:, 0]
    margins = slopes[:, : len(pairs)] - slopes[:, len(pairs) :]
    neutral = exchange_batch(model.chat, text.prompts, text.responses)
    drawings = [_drawn(torch.Generator().manual_seed(seed))] * DRAWS
    squares = _slopes(model, candidates, neutral, drawings, progress, "neutral").square()
    curvatures = squares.sum(dim=(1, 2)) / DRAWS / 2 / text.tokens
    return [Prediction(*found) for found in zip(margins, curvatures.tolist(), strict=True)]


def _drawn(generator: torch.Generator) -> Score:
    """Return a score of drawn tokens whose squared derivative estimates the Fisher form.

    The response tokens of a text have random signs and share one backward: the cross terms have
    mean 0, so the square has the mean of the sum of the squares.
    """

    def drawn(row: int, logits: Tensor) -> Tensor:
        p = logits.detach().float().softmax(dim=-1).cpu()
        tokens = torch.multinomial(p, 1, generator=generator)[:, 0]
        signs = torch.randint(0, 2, (len(p),), generator=generator) * 2 - 1
        return (token_logprobs(logits, tokens.tolist()) * signs).sum()

    return drawn


def _slopes(
    model: Model,
    candidates: Sequence[Candidate],
    batch: Batch,
    scores: Sequence[Score],
    progress: bool,
    what: str,
) -> Float[Tensor, "candidate score text"]:
    """Return the derivative of each text's scores in the coefficient of each candidate.

    A gate multiplies the coefficient, by the same factor whatever the coefficient is.
    """
    sites = {site for c in candidates for site in c.composition.sites}
    layers = sorted(site.layer for site in sites if isinstance(site, Residual))
    scope = next(iter(candidates[0].composition.parts.values())).scope
    weights = _on_weights(candidates)
    slopes = torch.zeros(len(candidates), len(scores), len(batch.ids), dtype=torch.float64)
    with progress_bar(
        progress=progress, total=len(batch.ids), desc=f"screen: {what}", unit="text"
    ) as bar:
        for found in text_gradients(model.architecture, batch, layers, scope, scores, weights):
            for k, one in enumerate(found):
                slopes[:, k, one.row] = _of_text(candidates, one, layers, weights)
            bar.update()
    for gate in {id(g): g for c in candidates if (g := c.composition.gate)}.values():
        behind = [k for k, c in enumerate(candidates) if c.composition.gate is gate]
        domains = [candidates[k].composition.domains[0] for k in behind]
        opened = torch.tensor(gate_weights(model, gate, domains, batch), dtype=torch.float64)
        slopes[behind] *= opened.T[:, None]
    return slopes


def _on_weights(candidates: Sequence[Candidate]) -> Composition | None:
    """Return the candidates that displace weights as domains of one composition."""
    parts = {
        str(k): part
        for k, candidate in enumerate(candidates)
        for part in candidate.composition.parts.values()
        if any(isinstance(site, Weight) for site in part.vector.sites)
    }
    return as_composition(parts) if parts else None


def _of_text(
    candidates: Sequence[Candidate],
    found: TextGradient,
    layers: Sequence[int],
    weights: Composition | None,
) -> Float[Tensor, " candidate"]:
    """Return the derivative of one text's score in each coefficient, summed over its sites."""
    slopes = torch.zeros(len(candidates), dtype=torch.float64)
    if weights is not None:
        slopes[[int(name) for name in weights.domains]] += found.coefficients.double().sum(0).cpu()
    for k, candidate in enumerate(candidates):
        (part,) = candidate.composition.parts.values()
        for layer in part.vector.layers:
            at = layers.index(layer)
            g, h = found.gradient[at].double(), found.stream[at].double()
            slopes[k] += _RULES[part.operator](g, h, part.vector.direction(layer).to(g)).cpu()
    return slopes


def _sum(row: int, logits: Tensor) -> Tensor:
    return logits.sum()


def _added(g: Tensor, h: Tensor, v: Tensor) -> Tensor:
    """Σ_t ⟨g_t, v⟩: the stream is h + c v."""
    return (g @ v).sum()


def _ablated(g: Tensor, h: Tensor, v: Tensor) -> Tensor:
    """−Σ_t ⟨g_t, u⟩⟨h_t, u⟩ with u = v / ‖v‖: the stream is h − c u⟨u, h⟩."""
    u = v / v.norm()
    removed: Tensor = ((g @ u) * (h @ u)).sum()
    return -removed


_RULES = {"add": _added, "ablate": _ablated}


def rank_correlation(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three values."""
    if len(predicted) < 3 or len({*predicted}) < 2 or len({*measured}) < 2:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(predicted, measured).statistic)

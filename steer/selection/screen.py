"""Predicting what candidates do, from gradients: one forward and backward of each pair.

To first order a vector v at layer l with coefficient c changes the preference margin of a pair by
c Σ_t ⟨∂margin/∂h_{l,t}, v⟩ over the tokens t of the scope: its *slope*. On neutral text, with
tokens y drawn from the model's own distribution, E[(Σ_t ⟨∂log p(y)/∂h_{l,t}, v⟩)²] is the Fisher
form, and KL(steered‖unsteered) is ½ c² times its mean over response tokens. Both are local: the
screen is a filter, and what passes it is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steer.batch import exchange_batch
from steer.engine.gradients import TextGradient, stream_gradients
from steer.engine.hooks import HooksEngine
from steer.evaluate.kl import NeutralText
from steer.evaluate.reduce import Reduce
from steer.model import Model
from steer.pairs import Pairs
from steer.selection.candidates import Candidate
from steer.site import Residual
from steer.term import Direction

DRAWS = 2  # draws of the tokens of each neutral text


@dataclass(frozen=True, eq=False, slots=True)
class Prediction:
    """What the screen says of one candidate."""

    slopes: Float[Tensor, " pair"]
    curvature: float
    curvature_error: float

    def coefficient(self, kl: float) -> float:
        """Return the coefficient at which the KL is predicted to be a given one, with its sign."""
        sign = -1.0 if float(self.slopes.mean()) < 0 else 1.0
        return sign * math.sqrt(kl / self.curvature) if self.curvature > 0 else sign * math.inf

    def gain(self, kl: float) -> float:
        """Return the predicted mean change of margin at a KL, in nats."""
        slope = abs(float(self.slopes.mean()))
        return slope * math.sqrt(kl / self.curvature) if self.curvature > 0 else math.inf


def unscreened(model: Model, candidate: Candidate) -> str:
    """Return why a candidate has no prediction; empty if it has one."""
    parts = list(candidate.composition.parts.values())
    if not isinstance(model.engine, HooksEngine):
        return f"the engine {model.engine.name} gives no gradients"
    if candidate.composition.gate is not None:
        return "it is gated"
    if any(part.operator not in _RULES for part in parts):
        return "its operator has no rule"
    if any(part.scope.marker is not None for part in parts):
        return "its scope is found by a marker"
    sites = [*candidate.composition.sites]
    if len(sites) != 1 or not isinstance(sites[0], Residual) or sites[0].layer < 0:
        return "it acts on weights or at several places"
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
    layers = sorted({_layer(candidate) for candidate in candidates})
    scope = next(iter(candidates[0].composition.parts.values())).scope
    slopes = torch.zeros(len(candidates), 2 * len(pairs), dtype=torch.float64)
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = exchange_batch(model.chat, prompts + prompts, answers)
    targets = _targets(batch.ids, batch.prompt_lengths)

    def score(row: int, logits: Tensor) -> Tensor:
        own = _logprobs(logits, targets[row])
        return own.mean() if reduce == "mean" else own.sum()

    shown = None if progress else True
    with tqdm(total=len(answers), desc="screen: pairs", unit="answer", disable=shown) as bar:
        for (found,) in stream_gradients(model.architecture, batch, layers, scope, [score]):
            slopes[:, found.row] = _slopes(candidates, found, layers)
            bar.update()
    margins = slopes[:, : len(pairs)] - slopes[:, len(pairs) :]
    squares = _squares(model, candidates, layers, text, seed, progress)
    half = squares / 2 / text.tokens * len(text.prompts)  # each column: one text, one draw
    mean, n = half.mean(dim=1), half.shape[1]
    error = half.std(dim=1) / math.sqrt(n) if n > 1 else mean * math.nan
    return [
        Prediction(*found) for found in zip(margins, mean.tolist(), error.tolist(), strict=True)
    ]


def _squares(
    model: Model,
    candidates: Sequence[Candidate],
    layers: Sequence[int],
    text: NeutralText,
    seed: int,
    progress: bool,
) -> Float[Tensor, "candidate draw"]:
    """Return, for each text and draw, the squared derivative of the drawn tokens' score.

    The response tokens of a text have random signs and share one backward: the cross terms have
    mean 0, so the square has the mean of the sum of the squares.
    """
    scope = next(iter(candidates[0].composition.parts.values())).scope
    batch = exchange_batch(model.chat, text.prompts, text.responses)
    generator = torch.Generator().manual_seed(seed)

    def drawn(row: int, logits: Tensor) -> Tensor:
        p = logits.detach().float().softmax(dim=-1).cpu()
        tokens = torch.multinomial(p, 1, generator=generator)[:, 0]
        signs = torch.randint(0, 2, (len(p),), generator=generator) * 2 - 1
        return (_logprobs(logits, tokens) * signs.to(logits.device)).sum()

    squares: list[Tensor] = []
    shown = None if progress else True
    with tqdm(total=len(text.prompts), desc="screen: neutral", unit="text", disable=shown) as bar:
        drawings = [drawn] * DRAWS
        for draws in stream_gradients(model.architecture, batch, layers, scope, drawings):
            squares += [_slopes(candidates, found, layers).square() for found in draws]
            bar.update()
    return torch.stack(squares, dim=1)


def _slopes(
    candidates: Sequence[Candidate], found: TextGradient, layers: Sequence[int]
) -> Float[Tensor, " candidate"]:
    """Return the derivative of one text's score in the coefficient of each candidate."""
    values = []
    for candidate in candidates:
        k = layers.index(_layer(candidate))
        (part,) = candidate.composition.parts.values()
        (term,) = part.vector.terms.values()
        v = term.v if isinstance(term, Direction) else torch.empty(0)
        g, h = found.gradient[k].double(), found.stream[k].double()
        values.append(_RULES[part.operator](g, h, v.to(g)))
    return torch.stack(values).cpu()


def _added(g: Tensor, h: Tensor, v: Tensor) -> Tensor:
    """Σ_t ⟨g_t, v⟩: the stream is h + c v."""
    return (g @ v).sum()


def _ablated(g: Tensor, h: Tensor, v: Tensor) -> Tensor:
    """−Σ_t ⟨g_t, u⟩⟨h_t, u⟩ with u = v / ‖v‖: the stream is h − c u⟨u, h⟩."""
    u = v / v.norm()
    removed: Tensor = ((g @ u) * (h @ u)).sum()
    return -removed


_RULES = {"add": _added, "ablate": _ablated}


def _layer(candidate: Candidate) -> int:
    (site,) = candidate.composition.sites
    return site.layer if isinstance(site, Residual) else -1


def _targets(ids: Sequence[Sequence[int]], prompts: Sequence[int]) -> list[Tensor]:
    return [torch.tensor(row[n:]) for row, n in zip(ids, prompts, strict=True)]


def _logprobs(logits: Float[Tensor, "pos vocab"], tokens: Tensor) -> Float[Tensor, " pos"]:
    table: Tensor = torch.log_softmax(logits.float(), dim=-1)
    return table.gather(1, tokens[:, None].to(logits.device)).squeeze(1)


def rank_correlation(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Return Spearman's rank correlation; NaN for fewer than three values."""
    if len(predicted) < 3 or len({*predicted}) < 2 or len({*measured}) < 2:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(predicted, measured).statistic)

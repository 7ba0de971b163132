"""How evenly preference margins follow a coefficient: a slope for each pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_list
from steer.algebra import as_composition
from steer.algebra._coefficients import coefficient_rows
from steer.algebra._composition import Steerable
from steer.engine import unsteered
from steer.errors import SelectionError
from steer.measure._data import pairs_by_domain
from steer.measure._estimate import Estimate, mean_of, within
from steer.measure._interval import Headline, Share, estimate_row
from steer.measure._reduce import Reduce
from steer.measure._scores import preferences
from steer.model import Model, check_model
from steer.pairs import Pairs, as_pairs
from steer.show import Row


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Steerability(Headline):
    """Scores of items under several coefficients, and how they depend on them; `value`: mean slope.

    Args:
        coefficients: At least two different ones, dimensionless.
        scores: `[setting item]`: the score of each item under each coefficient.
        score: What the score is, with unit and reduction.

    Raises:
        SelectionError: Fewer than two different coefficients, no items, another number of rows,
            or a score that is not finite.

    Reference:
        arXiv 2407.12404, where the slope of the mean is called steerability and an item with a
        negative slope anti-steerable.
    """

    coefficients: tuple[float, ...]
    scores: Float[Tensor, "setting item"]
    score: str = "score"

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        object.__setattr__(self, "scores", torch.as_tensor(self.scores).double().cpu())
        rows = self.scores.shape[0] if self.scores.ndim == 2 else -1
        different = len(set(self.coefficients))
        finite = bool(torch.isfinite(self.scores).all())
        fits = rows == len(self.coefficients) and self.scores.numel() > 0
        if different < 2 or not fits or not finite:
            raise SelectionError(
                "no slope can be put through these scores",
                found=f"{different} different coefficients, scores of shape "
                f"{tuple(self.scores.shape)}, finite: {finite}",
                expected="finite scores [setting item] for at least two different coefficients",
                do="measure the same items under several coefficients, for instance -1, 0, 1",
            )

    @property
    def slopes(self) -> Float[Tensor, " item"]:
        """Σ (c − c̄) s / Σ (c − c̄)² of each item: score per unit of the coefficient."""
        c = torch.tensor(self.coefficients, dtype=torch.float64)
        c = c - c.mean()
        return c @ self.scores / c.square().sum()

    @property
    def slope(self) -> Estimate:
        """The mean slope over items, which is the slope of the mean score."""
        return mean_of(f"slope of {self.score}", self.slopes)

    @property
    def wrong_way(self) -> Share:
        """The share of items with a negative slope: the vector moves them the wrong way."""
        return Share(int((self.slopes < 0).sum()), len(self.slopes))

    @property
    def rank_correlation(self) -> Estimate:
        """Spearman's correlation of coefficient and score on each item, the mean over items.

        Equal values share the mean of their ranks; an item whose score never changes counts as 0.
        """
        c = _ranks(torch.tensor(self.coefficients, dtype=torch.float64)[:, None])
        s = _ranks(self.scores)
        lengths = c.norm() * s.norm(dim=0)
        found = (c * s).sum(dim=0) / torch.where(lengths > 0, lengths, 1.0)
        name = f"rank correlation of coefficient and {self.score}"
        return within(mean_of(name, found.clamp(-1, 1)), -1.0, 1.0)

    @property
    def _headline(self) -> Estimate:
        return self.slope

    @property
    def curve(self) -> list[Row]:
        """The dose-response: one row per coefficient with the mean score."""
        means = (mean_of(self.score, row) for row in self.scores)
        rows = zip(self.coefficients, means, strict=True)
        return [{"coefficient": c, **found.rows[0]} for c, found in rows]

    @property
    def rows(self) -> list[Row]:
        """Three rows: slope, share of items that move the wrong way, rank correlation."""
        share = estimate_row("items that move the wrong way", self.wrong_way)
        return [*self.slope.rows, share, *self.rank_correlation.rows]


def steerability(
    model: Model,
    what: Steerable,
    pairs: Pairs,
    coefficients: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    *,
    domain: str | None = None,
    reduce: Reduce = "mean",
    max_tokens: int | None = None,
    progress: bool = True,
) -> Steerability:
    """Return how the preference margin of each pair follows a coefficient.

    The slope of margin(c) = score(chosen) − score(rejected) against c, by least squares on each
    pair; the share of pairs with a negative slope; and the rank correlation.

    Args:
        model: The model; it must not be steered.
        what: A vector or a composition.
        pairs: The pairs, at least one.
        coefficients: At least two different ones, dimensionless.
        domain: The domain whose coefficient is turned, where there are several; the others are 0.
        reduce: Score answers by the mean or the sum of their tokens' log-probabilities.
        max_tokens: Tokens of one forward; by default what is measured to be fastest.
        progress: Whether to show a progress bar.

    Returns:
        The margins of every pair under every coefficient, and what follows from them.

    Raises:
        SteeringError: The model is being steered.
        SelectionError: No pairs, fewer than two coefficients, or no domain named among several.
        CompositionError: An unknown domain, or a coefficient out of the operator's range.

    Reference:
        arXiv 2407.12404.
    """
    check_model(model)
    unsteered(model.engine, "steerability")
    composition = as_composition(what)
    if domain is None and len(composition.domains) > 1:
        raise SelectionError(
            "it is not said which coefficient to turn",
            found=f"domains {list(composition.domains)}",
            expected="one of them",
            do=f"domain={composition.domains[0]!r}",
        )
    name = domain or composition.domains[0]
    coefficients, score = tuple(as_list("coefficients", coefficients)), "margin in nats"
    whole = pairs_by_domain({"all": as_pairs(pairs)})
    margins = torch.empty(0, 0)
    if coefficients:
        rows, _ = coefficient_rows([{name: c} for c in coefficients], composition.domains)
        knobs = [(composition, tuple(row)) for row in rows.tolist()]
        found = preferences(model, knobs, whole, reduce, max_tokens, progress=progress)
        margins = torch.stack([at["all"].margins for at in found])
    return Steerability(coefficients, margins, f"{score} ({reduce} log-probability)")


def _ranks(values: Float[Tensor, "setting item"]) -> Float[Tensor, "setting item"]:
    """Return centred ranks down each column; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(values.numpy(), axis=0))
    return ranks - ranks.mean(dim=0)

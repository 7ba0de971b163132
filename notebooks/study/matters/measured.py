"""The one way in which the stages measure directions: each at the same KL, on validation pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from notebooks.study.behaviours import Behaviour, behaviour
from notebooks.study.make import KL
from steer.measure import NeutralText, likelihoods
from steer.pairs import Prompt

SOME = 20  # validation pairs of published sets
OTHER_QUESTIONS = 12  # training prompts of `avoidance`, which no other style uses
NEAR = 0.02  # of the KL, relative
SLICE = 14  # the layer of stages that look at one


@dataclass(frozen=True, eq=False)
class Explored:
    """A behaviour with the pairs it is explored on.

    Args:
        own: The behaviour; its test pairs are not read.
        train: Pairs that directions are made from.
        unseen: Pairs that they are measured on.
        asked: Questions that are answered.
    """

    own: Behaviour
    train: steer.Pairs
    unseen: steer.Pairs
    asked: tuple[Prompt, ...]

    @classmethod
    def of(cls, own: Behaviour, data: object = None) -> "Explored":
        """Take all validation pairs of a style, and the first ones of a published set."""
        unseen = own.validation if own.rule else own.validation[:SOME]
        prompts = dict.fromkeys(pair.prompt for pair in unseen)
        if own.rule:
            others = dict.fromkeys(pair.prompt for pair in behaviour("avoidance", None).train)
            prompts |= dict.fromkeys(list(others)[:OTHER_QUESTIONS])
        return cls(own, own.train, unseen, tuple(prompts)[:SOME])


def scaled(
    model: steer.Model, vectors: Mapping[str, steer.Vector], text: NeutralText, layer: int
) -> dict[str, steer.Vector]:
    """Return vectors with the mean norm of the stream at a layer, so that strengths compare."""
    streams = model.activations(text.prompts, layers=[layer])
    norm = torch.cat([s[0, 1:] for s in streams]).norm(dim=-1).mean()  # the first is an outlier
    return {name: vector * float(norm / vector.norm()) for name, vector in vectors.items()}


def at_budget(
    model: steer.Model, vectors: Mapping[str, steer.Vector], pairs: steer.Pairs, text: NeutralText
) -> dict[str, float]:
    """Return the coefficient of each vector that spends the KL budget on neutral text."""
    found = steer.compare_at_kl(
        model, vectors, pairs[:1], KL, neutral=text, tolerance=NEAR, progress=False
    )
    return {str(row["name"]): float(str(row["coefficient"])) for row in found.rows}


@dataclass(frozen=True, eq=False)
class Scored:
    """Log-probabilities of pairs' answers, unsteered first and then under each vector.

    Args:
        names: `unsteered`, and the vectors.
        chosen: For each pair `[setting token]`, in nats.
        rejected: Likewise.
    """

    names: tuple[str, ...]
    chosen: tuple[Float[Tensor, "setting token"], ...]
    rejected: tuple[Float[Tensor, "setting token"], ...]

    def margins(self, name: str) -> Float[Tensor, " pair"]:
        """Return the margin of each pair under a vector, per token."""
        k = self.names.index(name)
        sides = zip(self.chosen, self.rejected, strict=True)
        return torch.stack([a[k].double().mean() - b[k].double().mean() for a, b in sides])

    def gains(self, name: str) -> list[float]:
        """Return the change of each pair's margin."""
        change = self.margins(name) - self.margins("unsteered")
        return [round(float(x), 5) for x in change]


def scored(
    model: steer.Model,
    vectors: Mapping[str, steer.Vector],
    coefficients: Mapping[str, Sequence[float] | float],
    pairs: steer.Pairs,
) -> Scored:
    """Score pairs under vectors, each alone, all at once; several coefficients get names."""
    names, rows = ["unsteered"], [[0.0] * len(vectors)]
    for k, name in enumerate(vectors):
        given = coefficients[name]
        several = given if isinstance(given, Sequence) else [given]
        for c in several:
            names.append(name if len(several) == 1 else f"{name} {c:+.4f}")
            rows.append([c * (j == k) for j in range(len(vectors))])
    prompts = [pair.prompt for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    knobs = steer.compose(dict(vectors))
    found = likelihoods(model, knobs, torch.tensor(rows), prompts * 2, answers).logprobs
    return Scored(tuple(names), found[: len(pairs)], found[len(pairs) :])

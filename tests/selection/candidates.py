"""Selecting one vector's coefficient on the demo model, and the evidence for it, in one pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

import steer
from steer.demo.language import pairs
from steer.measure import Scorer
from steer.measure._reduce import reduced
from steer.selection import Evidence
from steer.selection._confirm import references
from steer.selection._significance import evidence

COEFFICIENTS = (0.25, 0.5, 0.75, 1.0)


def sides(texts: Sequence[steer.Pair]) -> tuple[list[steer.pairs.Prompt], list[str]]:
    prompts = [pair.prompt for pair in texts] * 2
    return prompts, [pair.chosen for pair in texts] + [pair.rejected for pair in texts]


def evidence_of(
    lm: steer.Model,
    vector: steer.Vector,
    domain: str,
    seed: int,
) -> Evidence:
    """Select a vector's coefficient as `select` does, without a limit on KL, all in one pass."""
    validation, unseen = pairs(domain, 60, seed=seed, split="validation").split(0.5, 0.5, seed=seed)
    drawn = references(steer.compose(vector=vector), seed)
    others = [knob.parts["vector"].vector for knob in drawn]
    knobs = steer.compose({"candidate": vector} | {f"random{k}": v for k, v in enumerate(others)})

    def margins(
        part: Sequence[steer.Pair], rows: Tensor
    ) -> tuple[Float[Tensor, "setting pair"], Float[Tensor, " setting"]]:
        scores = reduced(Scorer(lm, knobs, *sides(part))(rows).logprobs, "mean")
        chosen, rejected = scores.chunk(2, dim=1)
        return chosen - rejected, chosen.mean(dim=1)

    width = len(knobs.domains)
    one = torch.eye(width)[:1]
    seen, likely = margins(list(validation), torch.cat([c * one for c in COEFFICIENTS]))
    accuracy = (seen > 0).double().mean(dim=1).tolist()
    k = max(range(len(COEFFICIENTS)), key=lambda k: (accuracy[k], float(likely[k])))
    rows = torch.cat([torch.zeros(1, width), COEFFICIENTS[k] * torch.eye(width)])
    base, steered, *rest = margins(list(unseen), rows)[0].tolist()
    return evidence(base, steered, rest, len(COEFFICIENTS))

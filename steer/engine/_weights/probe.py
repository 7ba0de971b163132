"""Coefficients of weight displacements as variables, 0 everywhere, to differentiate in."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Composition, Dense, LowRank, Part, Term, Vector
from steer.engine._call import Call
from steer.engine._weights.displaced import Patch, patches
from steer.engine._weights.plan import plan
from steer.engine._weights.strength import Strength, Strengths
from steer.network import Architecture


class Probe(Strengths):
    """One coefficient for each row, token and domain, for weights displaced by hook."""

    def __init__(self, composition: Composition, architecture: Architecture) -> None:
        parts = {name: _factored(part) for name, part in composition.parts.items()}
        self.composition, self.call = replace(composition, parts=parts, gate=None), None
        super().__init__(self, False, self)
        self._strength: Strength | None = None
        units = plan(self.composition, architecture, "hook").units
        self.patches: list[tuple[torch.nn.Module, Patch]] = patches(units, self)

    call: Call | None

    def at(self, c: Float[Tensor, "batch pos domain"]) -> None:
        """Set the coefficients of the next call."""
        self.call = Call(c.shape[0], c.shape[1], 0)
        self._strength = Strength(c)
        self._strength.some = False  # zeros are not skipped

    def now(self, like: Tensor) -> Strength | None:
        """Return the coefficients."""
        return self._strength

    def note_checkpoint(self) -> None:
        """Do nothing: the backward pass lies within the probe."""


def _factored(part: Part) -> Part:
    """Return a part with all matrices low-rank: dense ones become factors of full rank."""
    terms = {site: _low_rank(term) for site, term in part.vector.terms.items()}
    return replace(part, vector=Vector(terms))


def _low_rank(term: Term) -> Term:
    if not isinstance(term, Dense) or len(term.shape) != 2:
        return term
    one = torch.eye(min(term.shape), dtype=term.W.dtype, device=term.W.device)
    return LowRank(one, term.W) if term.shape[0] < term.shape[1] else LowRank(term.W, one)

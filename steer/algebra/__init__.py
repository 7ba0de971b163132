"""Vectors, sites, operators, scopes, gates, compositions, and their files and cards."""

from steer.algebra._coefficients import CoefficientsLike
from steer.algebra._composition import Composition, Part, as_composition, compose
from steer.algebra._file.file import inspect_header
from steer.algebra._file.stream import VectorWriter
from steer.algebra._gate import DomainGate
from steer.algebra._operator import Operator, get_operator, operators, register_operator
from steer.algebra._provenance import LayerStats, ModelInfo, Provenance, Tuning
from steer.algebra._scope import Scope, parse_scope
from steer.algebra._site import EMBED, Residual, Site, Weight, parse_site
from steer.algebra._term import Dense, Direction, LowRank, Term, inner, tensors
from steer.algebra._vector import Vector

__all__ = [
    "EMBED",
    "CoefficientsLike",
    "Composition",
    "Dense",
    "Direction",
    "DomainGate",
    "LayerStats",
    "LowRank",
    "ModelInfo",
    "Operator",
    "Part",
    "Provenance",
    "Residual",
    "Scope",
    "Site",
    "Term",
    "Tuning",
    "Vector",
    "VectorWriter",
    "Weight",
    "as_composition",
    "compose",
    "get_operator",
    "inner",
    "inspect_header",
    "operators",
    "parse_scope",
    "parse_site",
    "register_operator",
    "tensors",
]

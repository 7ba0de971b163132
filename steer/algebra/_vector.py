"""Vectors: immutable maps from sites to terms, with the algebra of a vector space."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import as_integer, is_number
from steer.algebra import _term as terms_
from steer.algebra._gate import DomainGate
from steer.algebra._hub.pushed import Pushed
from steer.algebra._provenance import (
    LayerStats,
    ModelInfo,
    Provenance,
    Tuning,
    combined,
    mean_norms,
    multiplied,
    recorded,
    scaled,
    transferred,
)
from steer.algebra._rules import check_bounds, check_one_kind, check_terms, factor_of, no_site
from steer.algebra._site import EMBED, Residual, Site, Weight, parse_site, site_order
from steer.algebra._term import Direction, Term
from steer.errors import AlgebraError

if TYPE_CHECKING:
    import os

    from steer.show import Card


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Vector(Pushed):
    """An immutable map site → term that forms a vector space.

    `u + w`, `u - w`, `2 * u`, `-u`, `u / 2`; `u @ w` (inner product), `u.norm()`, `u.cosine(w)`;
    `u[14]` and `u[10:20]` (the same vector at those layers only); `u.residual` and `u.weight` (the
    two summands). A site that one operand lacks counts as zero there. A vector has no coefficient.
    Algebra keeps the model fingerprint and drops records that no longer hold: every change drops
    the tuning, and a sum also drops the gate and the error bars. Multiples and parts of a vector
    keep its gate, which reads prompts and not the vector. The arguments of the provenance record
    changes of a single vector (`scale(-0.3)`, `truncate(rank=2)`, `weights(1 of 9)`) as `forms`.

    Args:
        terms: Term of each site: directions at residual sites, other terms at weight sites.
        provenance: How it was made.
        stats: What was measured, per layer.
        tuning: The setting a selection chose, if any.
        gate: The domain gate it was tuned with, if any.

    Raises:
        AlgebraError: No term, a term at a site of the wrong kind, or directions of unequal width.
    """

    __array_ufunc__ = None  # so that NumPy's numbers leave `number * vector` to the vector

    terms: Mapping[Site, Term]
    provenance: Provenance = field(default_factory=Provenance)
    stats: Mapping[int, LayerStats] = field(default_factory=dict)
    tuning: Tuning | None = None
    gate: DomainGate | None = None

    def __post_init__(self) -> None:
        check_terms(self.terms)
        ordered = {site: self.terms[site] for site in sorted(self.terms, key=site_order)}
        object.__setattr__(self, "terms", MappingProxyType(ordered))
        object.__setattr__(self, "stats", MappingProxyType(dict(self.stats)))

    def __reduce__(self) -> tuple[object, ...]:
        maps = (dict(self.terms), self.provenance, dict(self.stats))
        return (Vector, (*maps, self.tuning, self.gate))

    @classmethod
    def of(cls, directions: Mapping[int, Float[Tensor, " d_model"]]) -> "Vector":
        """Return a residual vector made by hand.

        Args:
            directions: `[d_model]` for each layer (block output, 0-based), in residual units; the
                vector keeps a copy.

        Returns:
            A vector without provenance: it fits every model of that width.
        """
        return cls({Residual(layer): Direction(v) for layer, v in directions.items()})

    # -- reading ---------------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, residual ones by layer first, then weights by name."""
        return tuple(self.terms)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the residual sites, ascending."""
        return tuple(site.layer for site in self.terms if isinstance(site, Residual))

    @property
    def d_model(self) -> int | None:
        """Width of the residual directions; None without residual sites."""
        layers = self.layers
        return self.direction(layers[0]).shape[0] if layers else None

    def direction(self, layer: int) -> Float[Tensor, " d_model"]:
        """Return the direction at a layer, in residual units.

        Args:
            layer: 0-based block index.

        Raises:
            AlgebraError: There is no such site.
        """
        term = self.terms.get(Residual(layer))
        if term is None:
            raise no_site(f"layer {layer}", self.terms)
        return terms_.dense(term)

    def __getitem__(self, key: "int | slice | str | Site") -> "Vector":
        """Return the vector restricted to one layer, a range of layers, or one site.

        Layer −1 is the embedding output, here as everywhere, and not the last layer; so a slice
        has no negative bound, and without a start it takes the embedding output too. Weight sites
        are in no range of layers.

        Raises:
            AlgebraError: There is no such site, or a bound is negative.
        """
        if isinstance(key, slice):
            check_bounds(key, self.layers)
            wanted = {Residual(layer) for layer in range(max(self.layers, default=-1) + 1)[key]}
            if key.start is None and key.step in (None, 1):
                wanted.add(EMBED)
            sites: list[Site] = [site for site in self.terms if site in wanted]
        else:
            site = parse_site(key) if isinstance(key, str) else key
            if isinstance(site, bool) or as_integer(site) is not None:
                site = Residual(site)  # type: ignore[arg-type]
            sites = [site] if isinstance(site, Residual | Weight) and site in self.terms else []
        if not sites:
            raise no_site(repr(key), self.terms)
        return self._restrict(sites)

    @property
    def residual(self) -> "Vector":
        """The residual summand.

        Raises:
            AlgebraError: There is none.
        """
        return self._summand(Residual)

    @property
    def weight(self) -> "Vector":
        """The weight summand.

        Raises:
            AlgebraError: There is none.
        """
        return self._summand(Weight)

    def _summand(self, kind: type[Residual] | type[Weight]) -> "Vector":
        sites = [site for site in self.terms if isinstance(site, kind)]
        if not sites:
            raise no_site(f"{kind.__name__.lower()} sites", self.terms)
        return self._restrict(sites)

    def _restrict(self, sites: list[Site]) -> "Vector":
        layers = {site.layer for site in sites if isinstance(site, Residual)}
        whole = set(sites) == set(self.terms)
        made, (kept_weights, weights) = self.provenance, map(_weights, (sites, self.terms))
        if kept_weights not in (0, weights):
            made = recorded(made, f"weights({kept_weights} of {weights})")
        kept = self.tuning and (whole or self.tuning.layer in layers)
        return replace(
            self,
            terms={site: self.terms[site] for site in sites},
            provenance=made,
            stats={layer: s for layer, s in self.stats.items() if layer in layers},
            tuning=self.tuning if kept else None,
        )

    # -- algebra ---------------------------------------------------------------------------------

    def __add__(self, other: "Vector") -> "Vector":
        if not isinstance(other, Vector):
            return NotImplemented
        terms = dict(self.terms)
        for site, term in other.terms.items():
            terms[site] = terms_.add(terms[site], term) if site in terms else term
        layers = sorted(self.stats.keys() | other.stats.keys())
        norms = {k: mean_norms(self.stats.get(k), other.stats.get(k)) for k in layers}
        return Vector(terms, combined(self.provenance, other.provenance), norms)

    def __radd__(self, other: int) -> "Vector":
        return self if type(other) is int and other == 0 else NotImplemented  # sum() begins so

    def __mul__(self, factor: float) -> "Vector":
        if not is_number(factor):
            return NotImplemented
        factor = factor_of(factor)
        terms = {site: terms_.scale(term, factor) for site, term in self.terms.items()}
        stats = {layer: scaled(s, factor) for layer, s in self.stats.items()}
        made = multiplied(self.provenance, factor)
        return replace(self, terms=terms, provenance=made, stats=stats, tuning=None)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Vector":
        if not is_number(divisor):
            return NotImplemented
        return self * factor_of(divisor, inverse=True)

    def __neg__(self) -> "Vector":
        return self * -1.0

    def __sub__(self, other: "Vector") -> "Vector":
        if not isinstance(other, Vector):
            return NotImplemented
        return self + -other

    def __matmul__(self, other: "Vector") -> float:
        """Return the inner product in float64.

        Raises:
            AlgebraError: Residual and weight sites are mixed: their units differ.
        """
        if not isinstance(other, Vector):
            return NotImplemented
        check_one_kind(self.terms, other.terms)
        shared = [site for site in self.terms if site in other.terms]
        return float(sum(terms_.inner(self.terms[site], other.terms[site]) for site in shared))

    def norm(self) -> float:
        """Return ‖u‖ = √(u @ u), in the unit of its kind.

        Raises:
            AlgebraError: Residual and weight sites are mixed.
        """
        return float(max(self @ self, 0.0) ** 0.5)

    def cosine(self, other: "Vector") -> float:
        """Return (u @ w) / (‖u‖ ‖w‖), in [−1, 1].

        Args:
            other: The vector w, of the same kind; neither may be zero.

        Returns:
            The cosine, dimensionless.

        Raises:
            AlgebraError: Kinds are mixed, or a vector is zero.
        """
        lengths = self.norm() * other.norm()
        if lengths == 0.0:
            raise AlgebraError(
                "the zero vector has no direction",
                found="norm 0",
                expected="two non-zero vectors",
                do="compare norms first",
            )
        return max(min((self @ other) / lengths, 1.0), -1.0)

    def project_out(self, other: "Vector") -> "Vector":
        """Return u − ⟨u, w⟩/⟨w, w⟩ w, site by site: what of u is orthogonal to w at each site.

        Args:
            other: The vector w; sites it lacks, or where it is zero, are left as they are.

        Returns:
            A vector at the sites of u.
        """
        terms = dict(self.terms)
        for site, term in self.terms.items():
            if site in other.terms:
                w = other.terms[site]
                length = terms_.inner(w, w)
                if length > 0.0:
                    terms[site] = terms_.add(term, terms_.scale(w, -terms_.inner(term, w) / length))
        return Vector(terms, combined(self.provenance, other.provenance), self._norms())

    def truncate(self, rank: int) -> "Vector":
        """Return the vector with every matrix reduced to its best approximation of that rank.

        Args:
            rank: At least 1.

        Raises:
            AlgebraError: The rank is not a positive integer.
        """
        terms = {site: terms_.truncate(term, rank) for site, term in self.terms.items()}
        made = recorded(self.provenance, f"truncate(rank={rank})")
        return replace(self, terms=terms, provenance=made, tuning=None)

    def _norms(self) -> dict[int, LayerStats]:
        return {layer: LayerStats(s.residual_norm) for layer, s in self.stats.items()}

    def to(self, *, dtype: torch.dtype | None = None, device: str | None = None) -> "Vector":
        """Return the vector with its tensors in another dtype or on another device.

        Args:
            dtype: A floating-point precision; None leaves it.
            device: Where to put the tensors, for instance `cuda`; None leaves them.

        Returns:
            A new vector with the same records.

        Raises:
            AlgebraError: The precision is none of float16, bfloat16, float32 and float64, or a
                value of a direction is too large for it.
        """
        moved = {}
        for site, term in self.terms.items():
            parts = {k: t.to(dtype=dtype, device=device) for k, t in terms_.tensors(term).items()}
            moved[site] = type(term)(**parts)
        return replace(self, terms=moved)

    def for_model(self, model: ModelInfo) -> "Vector":
        """Return the vector for use with another model to which you know that it transfers.

        Its fingerprints then match; widths, layers and weight names are still checked on use.
        Everything measured on the first model (norms, tuning, gate) is kept, and the arguments of
        the provenance name that model as `made_for`.

        Args:
            model: The model it is to be used with: `lm.info`.

        Returns:
            A new vector with the same terms.
        """
        return replace(self, provenance=transferred(self.provenance, model))

    # -- measures --------------------------------------------------------------------------------

    def relative_norm(self, layer: int) -> float | None:
        """Return ‖v‖ / mean‖h‖ at a layer, dimensionless; None if ‖h‖ was never measured.

        Args:
            layer: 0-based block index.

        Raises:
            AlgebraError: There is no such site.
        """
        length = float(self.direction(layer).double().norm())
        stats = self.stats.get(layer)
        return length / stats.residual_norm if stats and stats.residual_norm else None

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write the vector to a self-describing `.safetensors` file, atomically.

        Args:
            path: Where to write; the name should end in `.safetensors`.

        Raises:
            VectorFileError: The file cannot be written, or a value is not finite.
        """
        from steer.algebra._file.file import save

        save(self, path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Vector":
        """Read a vector from a file that `save` wrote; everything is validated, nothing unpickled.

        Args:
            path: The file.

        Returns:
            The vector as it was saved, bit for bit, with the same records, as another object:
            `==` does not compare tensors.

        Raises:
            VectorFileError: The file is damaged, foreign, of a future version or holds
                invalid values.
        """
        from steer.algebra._file.file import load

        with torch.inference_mode(False):  # its tensors outlive the call
            return load(path)

    def _to_push(self) -> "Mapping[str, Vector]":
        return {self.provenance.domain or "vector": self}

    @classmethod
    def from_hub(
        cls,
        repo: str,
        *,
        domain: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> "Vector":
        """Read a vector from a repository of the Hugging Face Hub; the file is validated as any.

        Downloads are cached by `huggingface_hub`. With `HF_HUB_OFFLINE=1` only the cache is read.

        Args:
            repo: Id of the repository.
            domain: Domain of the vector to read; None if the repository holds one vector.
            revision: Commit, tag or branch; None takes the newest.
            token: An access token; None takes the one you are logged in with.
            local_files_only: Whether only the cache is read.

        Returns:
            The vector; `provenance.arguments["hub"]` records repository, commit and file.

        Raises:
            VectorFileError: Neither the Hub nor the cache has it, the repository holds several
                vectors, or the file is damaged or foreign.
        """
        from steer.algebra._hub.repository import pull_one

        with torch.inference_mode(False):  # its tensors outlive the call
            return pull_one(repo, domain, revision, token, local_files_only)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def _card(self) -> "Card":
        from steer.algebra._cards.vectors import vector_card

        return vector_card(self)


def _weights(sites: Iterable[Site]) -> int:
    return sum(isinstance(site, Weight) for site in sites)

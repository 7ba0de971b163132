"""Where an alignment vector puts its energy: modules, layers, and in how many directions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import number, one_of
from steer.algebra import LowRank, Term, Vector, Weight, inner
from steer.algebra._term import dense, svd_of_product
from steer.errors import AlgebraError
from steer.show import Chart, Curves, Matrix, Row
from steer.view._base import View
from steer.view._charts import matrix, zipped
from steer.view._checks import check_kind

_KINDS = 7  # lines in the picture of spectra


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """One weight site.

    Args:
        name: The parameter's name.
        layer: The first number in the name; None without one.
        kind: The name after that number, or the whole name.
        shape: Of the parameter.
        energy: ‖Δ‖², in squared weight units.
        singular_values: Falling, in weight units; empty for what is no matrix.
    """

    name: str
    layer: int | None
    kind: str
    shape: tuple[int, ...]
    energy: float
    singular_values: Float[Tensor, " rank"]

    @property
    def stable_rank(self) -> float:
        """‖Δ‖² / σ₁²: in how many equal directions the energy would fit; NaN for no matrix."""
        first = float(self.singular_values[0]) if len(self.singular_values) else 0.0
        return self.energy / first**2 if first else float("nan")

    def rank_for(self, share: float) -> int | None:
        """Return how many singular values hold a share of the energy; None for no matrix.

        Args:
            share: In (0, 1].

        Raises:
            ArgumentError: It is not.
        """
        share = number("share", share, above=0.0, most=1.0, do="the table has that of 0.9")
        squares = self.singular_values.square()
        if not float(squares.sum()):
            return None
        held = squares.cumsum(0) / squares.sum()
        return min(int((held < share).sum()) + 1, len(squares))


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Spectrum(View):
    """The modules of an alignment vector.

    Args:
        modules: Every weight site, in the order of the vector.
    """

    modules: tuple[Module, ...]

    @property
    def energy(self) -> float:
        """‖Δ‖² of all modules together, in squared weight units."""
        return sum(m.energy for m in self.modules)

    def energy_by(self, key: str) -> dict[Any, float]:
        """Return the energy by `layer` or by `kind`, in squared weight units.

        Args:
            key: `layer` or `kind`.

        Raises:
            ArgumentError: It is neither.
        """
        one_of("key", key, ("layer", "kind"))
        found: dict[Any, float] = {}
        for module in self.modules:
            name = getattr(module, key)
            found[name] = found.get(name, 0.0) + module.energy
        return found

    @property
    def rows(self) -> list[Row]:
        """One row per module: norm, share of the energy, stable rank, rank for 90% of its own."""
        return [
            {
                "module": m.kind,
                "layer": m.layer,
                "shape": "×".join(map(str, m.shape)),
                "norm": m.energy**0.5,
                "share of energy": m.energy / self.energy if self.energy else float("nan"),
                "stable rank": m.stable_rank,
                "rank for 90%": m.rank_for(0.9),
            }
            for m in self.modules
        ]

    @property
    def title(self) -> str:
        """Number of modules and the norm of the whole."""
        return f"Spectrum of {len(self.modules)} modules · norm {self.energy**0.5:.4g}"

    @property
    def panels(self) -> Mapping[str, Chart]:
        """Energy by module and layer, and how fast the singular values fall."""
        charts: dict[str, Chart] = {"energy": self._energies()}
        if any(len(m.singular_values) for m in self.modules):
            charts["spectrum"] = self._spectra()
        return charts

    def _energies(self) -> Matrix:
        kinds, layers = list(self.energy_by("kind")), list(self.energy_by("layer"))
        shares = torch.full((len(kinds), len(layers)), torch.nan, dtype=torch.float64)
        for m in self.modules:
            cell = kinds.index(m.kind), layers.index(m.layer)
            shares[cell] = shares[cell].nan_to_num() + 100 * m.energy / (self.energy or 1.0)
        fits = len(layers) <= 12
        return matrix(
            "share of energy (%)",
            shares,
            kinds,
            ["–" if layer is None else str(layer) for layer in layers],
            (0.0, float(shares.nan_to_num().max()) or 1.0),
            texts=[["" if v != v else f"{v:.1f}" for v in r] for r in shares.tolist()] * fits,
            across="layer",
        )

    def _spectra(self) -> Curves:
        by_kind: dict[str, list[Tensor]] = {}
        for m in self.modules:
            if len(m.singular_values) and float(m.singular_values[0]):
                by_kind.setdefault(m.kind, []).append(m.singular_values / m.singular_values[0])
        series = {}
        for kind in sorted(by_kind, key=lambda kind: -self.energy_by("kind")[kind])[:_KINDS]:
            length = min(map(len, by_kind[kind]))
            mean = torch.stack([s[:length] for s in by_kind[kind]]).mean(dim=0)
            series[kind] = zipped(range(1, length + 1), mean)
        along, up = "number of singular value", "σ / largest σ (mean over layers)"
        return Curves(up, along, series, limits=(0.0, 1.04), whole=True)


def spectrum(vector: Vector) -> Spectrum:
    """Return energy and singular values of each module of an alignment vector.

    The energy is ‖Δ‖² (Frobenius). Singular values of Δ = B A are those of R_B R_Aᵀ, with
    B = Q_B R_B and Aᵀ = Q_A R_A: the product is never formed. Those of a dense matrix come from a
    decomposition of the whole, which takes long for a large one: reduce it with `steer.low_rank`.

    Args:
        vector: A vector with weight sites; residual ones are left out.

    Returns:
        One entry per weight site.

    Raises:
        AlgebraError: There is no weight site.
        ArgumentError: It is no vector.
    """
    check_kind("vector", vector, Vector)
    found = [(s.name, t) for s, t in vector.terms.items() if isinstance(s, Weight)]
    if not found:
        raise AlgebraError(
            "there is no spectrum",
            found=f"{len(vector)} residual sites and no weight",
            expected="an alignment vector",
            do="make one with steer.alignment_vector",
        )
    return Spectrum(tuple(_module(name, term) for name, term in found))


def _module(name: str, term: Term) -> Module:
    energy = max(inner(term, term), 0.0)
    block = re.search(r"(?:^|\.)(\d+)\.(.+)", name)
    layer = int(block[1]) if block else None
    kind = (block[2] if block else name).removesuffix(".weight")
    return Module(name, layer, kind, term.shape, energy, _singular_values(term))


def _singular_values(term: Term) -> Float[Tensor, " rank"]:
    if len(term.shape) != 2:
        return torch.zeros(0, dtype=torch.float64)
    if isinstance(term, LowRank):
        return svd_of_product(term)[1].cpu()
    values: Tensor = torch.linalg.svdvals(dense(term).double())
    return values.cpu()

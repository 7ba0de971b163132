"""The domain gate: decides once per prompt which domains it belongs to, and scales coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from steer._check import number
from steer.algebra._site import Residual
from steer.errors import CompositionError
from steer.show import Shown

if TYPE_CHECKING:
    from steer.show import Card


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class DomainGate(Shown):
    """Nearest centroid of the domains' prompts, read at the last prompt token.

    With x the residual stream of the last prompt token at `layer`, and c_k the mean of domain k's
    prompts there, the gate is 1 where ‖x − c_k‖ <= min_j ‖x − c_j‖ + margin and 0 elsewhere. Rows
    of `centroids` beyond the named domains are background (texts of no domain): a prompt nearest
    to one of them, by more than the margin, opens no gate.

    Args:
        domains: Names of the domains, in the order of the centroids.
        centroids: `[domain + background, d_model]`, in residual units; a copy is kept.
        layer: The block whose output is read. It must not lie above the first steered layer,
            so that the gate is known before anything is steered.
        margin: How much farther than the nearest centroid still counts, in residual units.
        accuracy: Share of held-out prompts whose own domain alone was opened, if measured.

    Raises:
        CompositionError: Names and centroids do not match, or a centroid is not finite.
        ArgumentError: The margin is negative, or the accuracy no share.
    """

    domains: tuple[str, ...]
    centroids: Float[Tensor, "domain d_model"]
    layer: int
    margin: float = 0.0
    accuracy: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", Residual(self.layer).layer)
        object.__setattr__(self, "domains", tuple(self.domains))
        centroids = self.centroids
        if not isinstance(centroids, Tensor):
            raise CompositionError(
                "the gate's centroids are no tensor",
                found=type(centroids).__name__,
                expected="a tensor [domain + background, d_model]",
                do="build the gate with steer.domain_gate(...)",
            )
        if self.accuracy is not None:
            number("accuracy", self.accuracy, least=0, most=1, do="leave it out if not measured")
        number("margin", self.margin, least=0)
        ok = centroids.ndim == 2 and len(set(self.domains)) == len(self.domains) > 0
        if not ok or centroids.shape[0] < len(self.domains):
            raise CompositionError(
                "the gate's domains and centroids do not match",
                found=f"domains {self.domains}, centroids {tuple(centroids.shape)}",
                expected="distinct names and at least one centroid [d_model] for each",
                do="build the gate with steer.domain_gate(...)",
            )
        if not torch.isfinite(centroids).all():
            raise CompositionError(
                "the gate's centroids are not finite",
                found=f"{int((~torch.isfinite(centroids)).sum())} values of NaN or infinity",
                expected="finite numbers",
                do="build the gate with steer.domain_gate(...)",
            )
        with torch.inference_mode(False):  # it outlives the call in which it is made
            object.__setattr__(self, "centroids", centroids.clone())

    def distances(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch domain"]:
        """Return ‖x − c_k‖ for every centroid, background included, in residual units."""
        centroids = self.centroids.to(device=x.device, dtype=torch.float32)
        return torch.cdist(x.float(), centroids, compute_mode="donot_use_mm_for_euclid_dist")

    def __call__(self, x: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch domain"]:
        """Return the gate's weights.

        Args:
            x: Residual stream of each row's last prompt token at `layer`, in residual units.

        Returns:
            0 or 1 for each row and each named domain.
        """
        distance = self.distances(x)
        near = distance <= distance.amin(dim=1, keepdim=True) + self.margin
        return near[:, : len(self.domains)].float()

    def __repr__(self) -> str:
        from steer.algebra._cards.gates import gate_line

        return gate_line(self)

    def _card(self) -> "Card":
        from steer.algebra._cards.gates import gate_card

        return gate_card(self)

    def columns(self, domains: Sequence[str]) -> list[int]:
        """Return the column of each domain in the gate's output.

        Args:
            domains: Names of a composition's domains.

        Returns:
            One index per name.

        Raises:
            CompositionError: A name has no centroid.
        """
        missing = [name for name in domains if name not in self.domains]
        if missing:
            raise CompositionError(
                "the gate does not know every domain",
                found=f"no centroid for {missing}",
                expected=f"domains among {list(self.domains)}",
                do="fit the gate on prompts of all domains that are composed",
            )
        return [self.domains.index(name) for name in domains]

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
        if self.accuracy is not None:
            number("accuracy", self.accuracy, least=0, most=1, do="leave it out if not measured")
        number("margin", self.margin, least=0)
        centroids = self.centroids
        right = isinstance(centroids, Tensor) and centroids.ndim == 2
        if right and bool(torch.isfinite(centroids).all()):
            right = 0 < len(set(self.domains)) == len(self.domains) <= len(centroids)
            found = f"domains {self.domains}, centroids {tuple(centroids.shape)}"
        else:
            right, found = False, f"centroids {centroids!r}"
        if not right:
            raise CompositionError(
                "the gate's centroids are not finite, or do not match its domains",
                found=found,
                expected="distinct names, and a tensor of finite numbers [domain + background, "
                "d_model] with at least one row for each",
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

    def _card(self) -> "Card":
        from steer.algebra._cards.gates import gate_card

        return gate_card(self)

    def columns(self, domains: Sequence[str]) -> list[int]:
        """Return the column of each domain of a composition in the gate's output."""
        missing = [name for name in domains if name not in self.domains]
        if missing:
            raise CompositionError(
                "the gate does not know every domain",
                found=f"no centroid for {missing}",
                expected=f"domains among {list(self.domains)}",
                do="fit the gate on prompts of all domains that are composed",
            )
        return [self.domains.index(name) for name in domains]

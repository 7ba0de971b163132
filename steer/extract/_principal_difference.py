"""The first principal component of the pairs' differences at every recorded layer."""

import torch

from steer.algebra import LayerStats, Vector
from steer.extract._activations import Activations
from steer.extract._mean_difference import no_difference, vector_of
from steer.extract._registry import method


@method("principal_difference", keep="pairs")
def principal_difference(
    activations: Activations, *, domain: str | None = None, position: str | None = None
) -> Vector:
    """Return the axis along which the differences of the pairs are largest, at each layer.

    u_l = argmax over unit u of Σ_i ⟨d_{i,l}, u⟩² and v_l = ±u_l ‖mean d_l‖, where d = chosen −
    rejected of a single pair and the sign makes ⟨v_l, mean d_l⟩ positive. The component is taken
    about zero and not about the mean, so that exchanging the sides of a pair leaves its axis, and
    computed in float64. The norm makes coefficients comparable with `mean_difference`.

    Args:
        activations: A recording made with `keep="pairs"`.
        domain: The domain; may be omitted if only one was recorded.
        position: The position; may be omitted if only one was recorded.

    Returns:
        A vector in float32 over all recorded layers, in residual units.

    Raises:
        RecordingError: The recording does not keep its pairs, there is no such domain or position,
            more than one to choose from, or no mean difference at any layer.

    Reference:
        PCA of differences as a reading vector: arXiv 2310.01405.
    """
    domain, position = activations.domain(domain), activations.position(position)
    differences = activations.pairs(domain, position).difference
    means = differences.mean(dim=0)
    if not means.any():
        raise no_difference([position])
    norms = activations.of(domain, position).norm
    directions, stats = {}, {}
    for row, layer in enumerate(activations.layers):
        u = torch.linalg.svd(differences[:, row], full_matrices=False).Vh[0]
        length = torch.copysign(means[row].norm(), u @ means[row])
        directions[layer] = u * length
        stats[layer] = LayerStats(residual_norm=float(norms[row]))
    arguments: dict[str, object] = {"position": position}
    return vector_of(
        activations, "principal_difference", domain, position, directions, arguments, stats
    )

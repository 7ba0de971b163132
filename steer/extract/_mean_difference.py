"""The difference of means at every recorded layer."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steer.algebra import Direction, LayerStats, Provenance, Residual, Site, Term, Vector
from steer.errors import RecordingError
from steer.extract._activations import Activations
from steer.extract._data_checks import problems
from steer.extract._registry import method


@method("mean_difference")
def mean_difference(
    activations: Activations,
    *,
    domain: str | None = None,
    position: str | None = None,
    rescale: bool = False,
) -> Vector:
    """Return the mean of the chosen minus the mean of the rejected, at each recorded layer.

    v_l = μ⁺_l − μ⁻_l; rescaled: v_l ‖μ⁺_l‖ / ‖v_l‖.

    Args:
        activations: A recording.
        domain: The domain; may be omitted if only one was recorded.
        position: The position; may be omitted if only one was recorded.
        rescale: Whether each direction gets the norm of the mean chosen activation.

    Returns:
        A vector in float32 over all recorded layers, in residual units, with its statistics.

    Raises:
        RecordingError: There is no such domain or position, more than one to choose from, or no
            difference at any layer.

    Reference:
        The difference of means as a steering vector: arXiv 2312.06681; the rescaling: 2509.23982.
    """
    domain, position = activations.domain(domain), activations.position(position)
    if not with_difference(activations, domain, position, activations.layers):
        raise no_difference([position])
    arguments = {"position": position, "rescale": rescale}
    return built(
        activations, "mean_difference", domain, position, activations.layers, arguments, rescale
    )


def built(
    activations: Activations,
    name: str,
    domain: str | None,
    position: str,
    layers: Sequence[int],
    arguments: dict[str, object],
    rescale: bool,
) -> Vector:
    """Return the differences of means at some layers as a vector with statistics."""
    moments = activations.of(domain, position)
    difference, factor = moments.difference, torch.ones_like(moments.norm)
    if rescale:
        length = difference.norm(dim=-1)
        factor = torch.where(length > 0, moments.mean_chosen.norm(dim=-1) / length, 1.0)
    error, cosine = moments.standard_error.norm(dim=-1) * factor, moments.split_half_cosine
    rows = {layer: activations.layers.index(layer) for layer in layers}
    directions = {layer: difference[row] * factor[row] for layer, row in rows.items()}
    stats = {
        layer: LayerStats(float(moments.norm[row]), _known(error[row]), _known(cosine[row]))
        for layer, row in rows.items()
    }
    return vector_of(activations, name, domain, position, directions, arguments, stats)


def _known(value: Tensor) -> float | None:
    """Return a number, or None for NaN."""
    return None if value.isnan() else float(value)


def vector_of(
    activations: Activations,
    name: str,
    domain: str | None,
    position: str,
    directions: Mapping[int, Float[Tensor, " d_model"]],
    arguments: dict[str, object],
    stats: Mapping[int, LayerStats],
) -> Vector:
    """Return directions by layer as a vector in float32, with the provenance of a recording."""
    from steer import __version__

    moments = activations.of(domain, position)
    terms: dict[Site, Term] = {Residual(k): Direction(v.float()) for k, v in directions.items()}
    own = {(domain, position): moments}
    warned = problems(own, activations.responses, noise=False)  # noise is told by `stats`
    provenance = Provenance(
        method=name,
        arguments=arguments | ({"warnings": warned} if warned else {}),
        domain=domain,
        pairs=moments.count,
        pairs_fingerprint=activations.pairs_fingerprints.get(domain),
        model=activations.model,
        version=__version__,
    )
    return Vector(terms, provenance, stats)


def with_difference(
    activations: Activations, domain: str | None, position: str, layers: Sequence[int]
) -> list[int]:
    """Return the layers at which the means of chosen and rejected differ."""
    differs = activations.of(domain, position).difference.any(dim=-1)
    return [layer for layer in layers if differs[activations.layers.index(layer)]]


def no_difference(positions: Sequence[str]) -> RecordingError:
    """Return the error for positions where chosen and rejected do not differ at any layer."""
    return RecordingError(
        f"there is no difference at {', '.join(positions)}",
        found="the same mean for chosen and rejected answers",
        expected="a position that reads the answers; prompt_last comes before them",
        do='record at="template" or at="response_mean"',
    )

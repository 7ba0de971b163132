"""PaLRS: one layer and position by alignment with the chosen mean, rescaled to its norm."""

from collections.abc import Sequence
from typing import Literal

import torch

from steer._check import as_layers, number, one_of
from steer.algebra import Vector
from steer.errors import RecordingError
from steer.extract._activations import Activations
from steer.extract._mean_difference import built, no_difference, with_difference
from steer.extract._moments import Moments
from steer.extract._positions import is_template_token
from steer.extract._registry import method

Alignment = Literal["cosine", "dot"]


@method("palrs")
def palrs(
    activations: Activations,
    *,
    domain: str | None = None,
    positions: str | Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    depth: tuple[float, float] = (0.2, 0.8),
    alignment: Alignment = "cosine",
    rescale: bool = True,
) -> Vector:
    """Return the PaLRS vector: a single layer's difference of means.

    r_{i,l} = μ⁺_{i,l} − μ⁻_{i,l}; (i*, l*) = argmax of the alignment of r_{i,l} with μ⁺_{i,l};
    r̂ = r ‖μ⁺‖ / ‖r‖ at (i*, l*), so that coefficient 1 adds a vector with the norm of the mean
    chosen activation.

    The paper specifies the difference of means over about 100 responses, each alone in the user's
    message, at the template tokens after it; a choice by alignment within a model-specific range of
    layers; and the rescaling. The range of layers and the cosine, rather than the dot product, are
    guesses and therefore arguments. The choice rewards the growth of a shared mean and does not
    measure how well a vector steers: compare with `steer.select`. The paper reads the *input* of
    block l; layers here are block *outputs*, so its l is l − 1.

    Args:
        activations: A recording at template tokens.
        domain: The domain; may be omitted if only one was recorded.
        positions: Position, or positions to choose from. The default is all recorded template
            tokens, or all positions if there are none.
        layers: Recorded layers to choose from; by default those within `depth`.
        depth: The range of layers as two fractions of the model's depth, the upper one exclusive.
        alignment: `cosine` or `dot` product of r with μ⁺.
        rescale: Whether the vector gets the norm of the mean chosen activation.

    Returns:
        A vector in float32 at one layer, in residual units, with its statistics; its
        provenance names the position.

    Raises:
        RecordingError: No such domain or position, layers that were not recorded, or no
            difference at all.
        ArgumentError: An unknown alignment, layers that are not integers, or fractions outside
            [0, 1].

    Reference:
        arXiv 2509.23982; the choice of positions and layers follows 2406.11717.
    """
    domain = activations.domain(domain)
    named = (positions,) if isinstance(positions, str) else positions
    template = tuple(filter(is_template_token, activations.positions))
    asked = template or activations.positions if named is None else tuple(named)
    wanted = _wanted(activations, layers, depth)
    one_of("alignment", alignment, ("cosine", "dot"))
    best: tuple[float, str, int] | None = None
    for position in asked:
        moments = activations.of(domain, position)
        for layer in with_difference(activations, domain, position, wanted):
            score = _aligned(moments, activations.layers.index(layer), alignment)
            if best is None or score > best[0]:
                best = (score, position, layer)
    if not asked:
        raise RecordingError(
            "there is no position to choose from",
            found="positions=()",
            expected=f"some of {', '.join(activations.positions)}",
            do="omit positions to choose from all",
        )
    if best is None:
        raise no_difference(asked)
    score, position, layer = best
    arguments = {
        "position": position,
        "positions": list(asked),
        "layers": [min(wanted), max(wanted)],
        "alignment": alignment,
        "alignment_score": score,
        "rescale": rescale,
    }
    return built(activations, "palrs", domain, position, [layer], arguments, rescale)


def _aligned(moments: Moments, row: int, alignment: Alignment) -> float:
    r, chosen = moments.difference[row], moments.mean_chosen[row]
    if alignment == "dot":
        return float(r @ chosen)
    return float(torch.cosine_similarity(r, chosen, dim=0))


def _wanted(
    activations: Activations, layers: Sequence[int] | None, depth: tuple[float, float]
) -> list[int]:
    """Return the recorded layers to choose from."""
    known = activations.layers
    low, high = (number("depth", end, least=0, most=1) for end in depth)
    blocks = activations.model.n_layers if activations.model else max(known) + 1
    inside = [layer for layer in known if low <= layer / blocks < high]
    wanted = inside if layers is None else sorted(set(as_layers(layers)))
    if not wanted or not set(wanted) <= set(known):
        raise RecordingError(
            "these layers were not recorded",
            found=f"depth={depth!r} of {blocks} blocks" if layers is None else f"layers={layers!r}",
            expected=f"some of the recorded layers {list(known)}",
            do="name recorded layers, widen the range, or record more layers",
        )
    return wanted

"""PaLRS: one layer and position by alignment with the chosen mean, rescaled to its norm."""

from collections.abc import Sequence
from typing import Literal

from steer._check import as_integer, is_number, one_of
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
    layers: tuple[float, float] | Sequence[int] = (0.2, 0.8),
    alignment: Alignment = "cosine",
    rescale: bool = True,
) -> Vector:
    """Return the PaLRS vector: a single layer's difference of means.

    r_{i,l} = μ⁺_{i,l} − μ⁻_{i,l}; (i*, l*) = argmax of the alignment of r_{i,l} with μ⁺_{i,l};
    r̂ = r ‖μ⁺‖ / ‖r‖ at (i*, l*), so that coefficient 1 adds a vector as long as the mean chosen
    activation.

    The paper specifies the difference of means over about 100 responses, each alone in the user's
    message, at the template tokens after it; a choice by alignment within a model-specific range of
    layers; and the rescaling. The range of layers and the cosine, rather than the dot product, are
    guesses and therefore arguments. The choice rewards the growth of a shared mean and does not
    measure how well a vector steers: compare with `steer.select`. The paper reads the *input* of
    block l; layers here are block *outputs*, so its l is l − 1.

    Args:
        activations: What `record` returned, read at template tokens.
        domain: The domain; may be left out if one was recorded.
        positions: Position, or positions to choose from. The default is all recorded template
            tokens, or all positions if there are none.
        layers: Layers to choose from: a tuple of two fractions of the depth, the upper one
            exclusive, or a sequence of recorded layers. At least one fraction is a float:
            `(0.0, 1.0)` is the whole depth and `[0, 1]` the first two blocks.
        alignment: `cosine` or `dot` product of r with μ⁺.
        rescale: Whether the vector gets the norm of the mean chosen activation.

    Returns:
        A vector in float32 at one layer, in residual units, with its statistics; the position
        stands in its provenance.

    Raises:
        RecordingError: No such domain or position, layers that were not recorded or that could
            mean fractions as well, or no difference at all.
        ArgumentError: An unknown alignment.

    Reference:
        arXiv 2509.23982; the choice of positions and layers follows 2406.11717.
    """
    domain = activations.domain(domain)
    named = (positions,) if isinstance(positions, str) else positions
    template = tuple(filter(is_template_token, activations.positions))
    asked = template or activations.positions if named is None else tuple(named)
    wanted = _wanted(activations, layers)
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
            do="leave positions out to choose from all",
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
    dot = float(r @ chosen)
    if alignment == "dot":
        return dot
    lengths = float(r.norm() * chosen.norm())
    return dot / lengths if lengths > 0 else 0.0


def _wanted(activations: Activations, layers: tuple[float, float] | Sequence[int]) -> list[int]:
    """Return the recorded layers in a range of depths or a list of layers."""
    if not isinstance(layers, Sequence) or isinstance(layers, str) or not layers:
        raise _unclear(layers)
    whole = [as_integer(layer) for layer in layers]
    two = isinstance(layers, tuple) and len(layers) == 2
    if two and None in whole:
        return _in_range(activations, *layers)
    if two and set(whole) <= {0, 1}:
        raise _unclear(layers)
    if missing := [x for x, n in zip(layers, whole, strict=True) if n not in activations.layers]:
        raise RecordingError(
            "these layers were not recorded",
            found=f"{missing} in layers={layers!r}",
            expected=f"some of the recorded layers {list(activations.layers)}",
            do="name recorded layers, or record these as well",
        )
    return [layer for layer in activations.layers if layer in whole]


def _in_range(activations: Activations, low: float, high: float) -> list[int]:
    if not all(is_number(end) and 0 <= end <= 1 for end in (low, high)):
        raise _unclear((low, high))
    depth = activations.model.n_layers if activations.model else max(activations.layers) + 1
    wanted = [layer for layer in activations.layers if low <= layer / depth < high]
    if not wanted:
        raise RecordingError(
            "no recorded layer lies in the range",
            found=f"layers={(low, high)!r} of {depth} blocks",
            expected=f"a range that holds some of the recorded layers {list(activations.layers)}",
            do="widen the range, or record more layers",
        )
    return wanted


def _unclear(layers: object) -> RecordingError:
    return RecordingError(
        "these are no layers to choose from, or it is unclear which",
        found=f"layers={layers!r}",
        expected="a tuple of two fractions of the depth, one of them a float, or a list of layers",
        do="write (0.0, 1.0) for the whole depth and [0, 1] for the first two blocks",
    )

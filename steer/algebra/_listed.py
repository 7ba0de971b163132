"""Things that come in sequence: each once, in a list, and a text is not a sequence of letters."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from steer.algebra._site import whole
from steer.errors import SelectionError

_T = TypeVar("_T")


def listed(what: str, values: Iterable[_T]) -> list[_T]:
    """Return values as a list; whatever is iterated is gone through once.

    Args:
        what: What they are, for the message.
        values: Any iterable but a text or a mapping.

    Raises:
        SelectionError: It is one text, a mapping, or nothing that can be iterated.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise SelectionError(
            f"{what} must be given in a sequence",
            found=f"{type(values).__name__} {values!r}"[:120],
            expected="a list, or another iterable",
            do="put a single one in a list: [value]",
        )
    return list(values)


def whole_layers(layers: Iterable[int]) -> tuple[int, ...]:
    """Return layers as whole numbers.

    Args:
        layers: Block outputs, 0-based.

    Raises:
        SelectionError: It is no sequence, or one is no whole number.
    """
    given = listed("layers", layers)
    found = [whole(layer) for layer in given]
    known = tuple(layer for layer in found if layer is not None)
    if len(known) < len(given):
        raise SelectionError(
            "a layer is no whole number",
            found=", ".join(f"{type(layer).__name__}" for layer in given),
            expected="whole numbers",
            do="count the blocks from 0; layer l is the output of block l",
        )
    return known

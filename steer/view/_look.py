"""Colours, markers and lines that are told apart without colour vision and in print.

Categories have the palette of Okabe and Ito, with a marker and a line each. Values from one end to
the other are drawn in viridis; values around a middle go from vermilion through white to blue.
"""

from typing import Any

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREY = "#777777"
_BELOW, _MIDDLE, _ABOVE = (213, 94, 0), (255, 255, 255), (0, 114, 178)

Rgb = tuple[int, int, int]


def category(index: int) -> dict[str, Any]:
    """Return colour, marker and line of one category, as arguments of matplotlib.

    Args:
        index: Its number; after seven the colours begin anew, with other lines.
    """
    return {
        "color": OKABE_ITO[index % len(OKABE_ITO)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[(index % len(OKABE_ITO) + index // len(OKABE_ITO)) % len(LINES)],
    }


def diverging(share: float) -> Rgb:
    """Return the colour of a value around a middle: vermilion below, white, blue above.

    Args:
        share: From -1 to 1; what lies beyond has the colour of the end.
    """
    end = _ABOVE if share > 0 else _BELOW
    part = min(abs(share), 1.0)
    red, green, blue = (round(m + part * (e - m)) for m, e in zip(_MIDDLE, end, strict=True))
    return red, green, blue


def hexadecimal(colour: Rgb) -> str:
    """Return a colour as `#rrggbb`.

    Args:
        colour: Red, green and blue from 0 to 255.
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)


def ink(colour: Rgb) -> str:
    """Return black or white, whichever is read more easily on a colour.

    Args:
        colour: Red, green and blue from 0 to 255.
    """
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in colour)
    )
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"

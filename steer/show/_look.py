"""The palette: colours, markers and lines that are told apart without colour vision and in print.

Categories take the hues of Okabe and Ito at a lightness that reads on white and on black, each with
a marker and a line. Values around a middle go from vermilion through white to blue.
"""

PALETTE = ("#2a86c2", "#d55e00", "#009e73", "#b5609a", "#b98300", "#56b4e9", "#777777")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")  # as matplotlib names them
LINES = ("-", "--", "-.", ":")
DASHES = {"-": "", "--": "6 3", "-.": "8 3 2 3", ":": "2 3"}  # the same lines in SVG
GREY = PALETTE[-1]
_BELOW, _MIDDLE, _ABOVE = (213, 94, 0), (255, 255, 255), (0, 114, 178)

Rgb = tuple[int, int, int]


def category(index: int) -> tuple[str, str, str]:
    """Return colour, marker and line of a category; after seven the colours repeat."""
    turn, place = divmod(index, len(PALETTE))
    return PALETTE[place], MARKERS[place], LINES[(place + turn) % len(LINES)]


def diverging(share: float) -> Rgb:
    """Return the colour of a value from -1 (vermilion) through 0 (white) to 1 (blue)."""
    end = _ABOVE if share > 0 else _BELOW
    part = min(abs(share), 1.0)
    red, green, blue = (round(m + part * (e - m)) for m, e in zip(_MIDDLE, end, strict=True))
    return red, green, blue


def hexadecimal(colour: Rgb) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def ink(colour: Rgb) -> str:
    """Return black or white, whichever reads more easily on a colour."""
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in colour)
    )
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#ffffff"

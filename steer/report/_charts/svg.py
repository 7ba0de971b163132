"""What pictures are made of: scales with round ticks, axes, marks and texts, as inline SVG.

Colours stand in the elements, so that a picture can be taken out of the page; the page's own
classes replace them, so that it goes with a dark screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steer.report._html import text
from steer.view._look import OKABE_ITO

_DASHES = ("", "6 3", "8 3 2 3", "2 3")
_CORNERS: tuple[tuple[tuple[float, float], ...], ...] = (
    (),  # a circle
    ((0, -4), (4, 3.5), (-4, 3.5)),
    ((-3, -3), (3, -3), (3, 3), (-3, 3)),
    ((0, -4.4), (4.4, 0), (0, 4.4), (-4.4, 0)),
    ((0, 4), (4, -3.5), (-4, -3.5)),
)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values lie along one axis.

    Args:
        low: Value at the start.
        high: Value at the end.
        start: Place of the start, in user units of the picture.
        end: Place of the end.
        root: Whether places are linear in the square root of the value; values are then at least 0.
    """

    low: float
    high: float
    start: float
    end: float
    root: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value.

        Args:
            value: The value.
        """
        low, high, value = (self._inner(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _inner(self, value: float) -> float:
        return math.sqrt(max(value, 0.0)) if self.root else value

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round values along the axis, from three to nine."""
        if self.root:
            return _root_ticks(self.high)
        raw = (self.high - self.low) / 5
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(s * unit for s in (1, 2, 2.5, 5, 10) if s * unit >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(k * step for k in range(first, last + 1))


def _root_ticks(high: float) -> tuple[float, ...]:
    """Return 0 and round values that lie about evenly on a square-root axis up to `high`."""
    found = [0.0]
    for share in (1 / 25, 4 / 25, 9 / 25, 16 / 25, 1.0):
        raw = high * share
        unit = 10.0 ** math.floor(math.log10(raw))
        value = max(s * unit for s in (1, 2, 3, 4, 5, 6, 8) if s * unit <= raw * (1 + 1e-9))
        if value > found[-1]:
            found.append(value)
    return tuple(found)


def around(values: Sequence[float], room: float = 0.06) -> tuple[float, float]:
    """Return limits that hold every finite value, with some room; 0 to 1 where there is none.

    Args:
        values: The values.
        room: Room on either side, as a share of their span.
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    least = 1e-6 * max(1.0, abs(low), abs(high))
    span = (high - low) if high - low > least else max(1.0, abs(high))
    return low - room * span, high + room * span


@dataclass(frozen=True, slots=True)
class Frame:
    """The field of a picture, between its axes.

    Args:
        width: Of the picture, in user units.
        height: Of the picture.
        x: The horizontal scale.
        y: The vertical scale.
    """

    width: float
    height: float
    x: Scale
    y: Scale

    def axes(self, x_label: str, y_label: str) -> str:
        """Return grid, ticks and labels.

        Args:
            x_label: What is along, with unit.
            y_label: What is up, with unit.
        """
        bottom, left = self.y.start, self.x.start
        out = []
        for value in self.x.ticks:
            out.append(rule(self.x(value), bottom, self.x(value), self.y.end, faint=True))
            out.append(write(self.x(value), bottom + 16, shown(value), anchor="middle"))
        for value in self.y.ticks:
            out.append(rule(left, self.y(value), self.x.end, self.y(value), faint=True))
            out.append(write(left - 6, self.y(value) + 4, shown(value), anchor="end"))
        out.append(rule(left, bottom, self.x.end, bottom) + rule(left, bottom, left, self.y.end))
        out.append(write((left + self.x.end) / 2, self.height - 6, x_label, anchor="middle"))
        middle = (bottom + self.y.end) / 2
        out.append(
            f"<text transform='translate(14 {middle:.1f}) rotate(-90)' text-anchor='middle' "
            f"font-size='12'>{text(y_label)}</text>"
        )
        return "".join(out)

    def picture(self, parts: Sequence[str], alternative: str) -> str:
        """Return the whole picture.

        Args:
            parts: What is drawn, the first at the back.
            alternative: What it shows, in words.
        """
        return picture(self.width, self.height, parts, alternative)


def picture(width: float, height: float, parts: Sequence[str], alternative: str) -> str:
    """Return a picture that takes the width it is given.

    Args:
        width: In user units.
        height: In user units.
        parts: What is drawn, the first at the back.
        alternative: What it shows, in words.
    """
    label = text(alternative)
    return (
        f"<svg viewBox='0 0 {width:g} {height:g}' role='img' aria-label='{label}' "
        f"style='max-width:{width:g}px'>{''.join(parts)}</svg>"
    )


def shown(value: float) -> str:
    """Return a number as an axis has it.

    Args:
        value: The number.
    """
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}".replace("-", "−")


def short(name: str, most: int) -> str:
    """Return a name, cut where it is longer than there is room for.

    Args:
        name: The name.
        most: Most characters.
    """
    return name if len(name) <= most else name[: most - 1] + "…"


def write(x: float, y: float, content: str, *, anchor: str = "start", size: int = 12) -> str:
    """Return a text.

    Args:
        x: Place.
        y: Place of its base line.
        content: The text.
        anchor: Which of its ends lies there: start, middle or end.
        size: In user units.
    """
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}'>"
        f"{text(content)}</text>"
    )


def rule(
    x1: float, y1: float, x2: float, y2: float, *, faint: bool = False, dashed: bool = False
) -> str:
    """Return a straight line in the colour of the text.

    Args:
        x1: Start.
        y1: Start.
        x2: End.
        y2: End.
        faint: Whether it is only to guide the eye.
        dashed: Whether it is broken.
    """
    more = " stroke-opacity='.15'" if faint else ""
    more += " stroke-dasharray='4 3'" if dashed else ""
    return (
        f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' "
        f"stroke='currentColor'{more}/>"
    )


def marker(x: float, y: float, index: int, *, hollow: bool = False, scale: float = 1.0) -> str:
    """Return a mark of one category.

    Args:
        x: Place.
        y: Place.
        index: Number of the category.
        hollow: Whether only its outline is drawn.
        scale: Factor of its size.
    """
    corners = _CORNERS[index % len(_CORNERS)]
    fill = "hollow" if hollow else ""
    look = f"class='c{index % len(OKABE_ITO)} {fill}' stroke-width='1.5' {_paint(index, hollow)}"
    if not corners:
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{3.3 * scale:.1f}' {look}/>"
    points = " ".join(f"{x + scale * a:.1f},{y + scale * b:.1f}" for a, b in corners)
    return f"<polygon points='{points}' {look}/>"


def _paint(index: int, hollow: bool) -> str:
    colour = OKABE_ITO[index % len(OKABE_ITO)]
    return f"stroke='{colour}' fill='{'#fff' if hollow else colour}'"


def path(points: Sequence[tuple[float, float]], index: int) -> str:
    """Return a line through points, in the colour and dashes of one category.

    Args:
        points: Places.
        index: Number of the category.
    """
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = _DASHES[(index % len(OKABE_ITO) + index // len(OKABE_ITO)) % len(_DASHES)]
    return (
        f"<polyline points='{through}' class='c{index % len(OKABE_ITO)} line' fill='none' "
        f"stroke='{OKABE_ITO[index % len(OKABE_ITO)]}' stroke-width='2' "
        f"stroke-dasharray='{dashes}'/>"
    )


def band(
    lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], index: int
) -> str:
    """Return the area between two lines.

    Args:
        lower: Places of one.
        upper: Places of the other, in the same order.
        index: Number of the category.
    """
    around_it = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*lower, *reversed(upper)])
    return (
        f"<polygon points='{around_it}' class='c{index % len(OKABE_ITO)} band' stroke='none' "
        f"fill='{OKABE_ITO[index % len(OKABE_ITO)]}' fill-opacity='.18'/>"
    )

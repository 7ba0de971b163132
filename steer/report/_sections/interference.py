"""What each vector, alone at its coefficient, does to each domain."""

from steer.measure import OffTarget
from steer.report._charts.matrix import matrix
from steer.report._html import figure, numbers
from steer.view import interference as cells_of


def interference(result: OffTarget) -> str:
    """Return the matrix of changes of preference accuracy; brackets: the interval holds 0.

    Args:
        result: What `steer.measure.off_target` returned.
    """
    found = cells_of(result, measure="preference accuracy")
    values, lows, highs = found.values.tolist(), found.low.tolist(), found.high.tolist()
    texts = [
        [_text(*cell) for cell in zip(*row, strict=True)]
        for row in zip(values, lows, highs, strict=True)
    ]
    alternative = f"{found.measure}, steered domains down, affected ones across"
    picture = matrix(values, texts, found.steered, found.affected, alternative)
    caption = f"{found.measure}; in brackets where the 95% interval holds 0"
    return figure(picture, caption) + numbers(result.rows)


def _text(value: float, low: float, high: float) -> str:
    shown = f"{value:+.2f}".replace("-", "−")
    return f"({shown})" if low <= 0.0 <= high else shown

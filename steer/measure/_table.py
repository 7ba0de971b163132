"""The columns of a measured number."""

from steer.show import Row


def estimate_row(measure: str, value: float, interval: tuple[float, float], n: int) -> Row:
    """Return the columns that every measured number has."""
    return {"measure": measure, "value": value, "low": interval[0], "high": interval[1], "n": n}

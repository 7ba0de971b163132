"""Pictures, and how each level looks in them."""

from typing import Any

from steer.errors import MissingExtraError

LOOKS = {  # colour, marker, line: told apart without colour and in print
    "avoidance": ("#D55E00", "v", ":"),
    "generic": ("#888888", "o", "--"),
    "expert": ("#0072B2", "^", "-"),
}


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure that belongs to no window.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "a picture needs matplotlib",
            found="it is not installed",
            expected="the extra 'plot'",
            do="pip install 'residual-steer[plot]'",
        ) from error
    return Figure(figsize=(width, height), layout="constrained")

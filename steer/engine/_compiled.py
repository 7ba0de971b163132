"""Code that torch.compile made of the user's model."""

import sys
import warnings
from typing import Any


def forget_compiled_code() -> None:
    """Have compiled code traced again: torch.compile does not notice hooks added later."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is None or not dynamo.convert_frame.FRAME_COUNTER:
        return
    warnings.warn(
        "torch.compile ran before steering began: its code is dropped and traced again, since "
        "compiled code does not notice new hooks. Attach once, then change coefficients with "
        "update().",
        stacklevel=7,
    )
    dynamo.reset()

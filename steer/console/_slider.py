"""A knob as a slider of a notebook."""

import math
from typing import Any

from steer.console._knobs import Knob
from steer.errors import CompositionError


def slider(widgets: Any, knob: Knob) -> Any:
    """Return a slider that refuses what is no finite number; beyond its ends it stands at the end.

    Args:
        widgets: The module ipywidgets.
        knob: What it shows.
    """
    from traitlets import validate

    class Slider(widgets.FloatSlider):  # type: ignore[misc]  # loaded when asked for
        @validate("value")
        def _validate_value(self, proposal: Any) -> float:
            value: float = proposal["value"]
            if not math.isfinite(value):
                raise CompositionError(
                    f"the knob of {knob.domain!r} cannot stand there",
                    found=f"{value:g}",
                    expected=f"a number from {self.min:g} to {self.max:g}",
                    do="set a finite number; the slider stays where it was",
                )
            return float(min(max(value, self.min), self.max))

    decimals = max(2, -math.floor(math.log10(knob.step)))
    return Slider(
        value=knob.value,
        min=knob.low,
        max=knob.high,
        step=knob.step,
        description=knob.domain,
        readout_format=f"+.{decimals}f",
        style={"description_width": "8em"},
        layout=widgets.Layout(width="auto", max_width="640px"),
    )

"""The dose curves of the demo on a real model, with random directions in grey."""

from pathlib import Path

from steer.demo.real.study import DIRECTIONS, Study
from steer.view._drawing import new_figure

_COLOUR = "#0072B2"
_GREY = "#999999"


def draw(study: Study, path: Path) -> None:
    """Draw the judged share over the knob of each behaviour.

    Args:
        study: The results.
        path: Where to write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(8, 3.2)
    axes = figure.subplots(1, len(study.choices), sharey=True)
    for axis, behaviour in zip(axes, study.choices, strict=True):
        base = study.dose[behaviour, 0.0].share
        for k in range(DIRECTIONS):
            shares = [100 * base, 100 * study.random[behaviour][k].share]
            label = "random directions" if k == 0 else None
            axis.plot((0, 1), shares, "--", color=_GREY, linewidth=1, label=label)
        prompted = 100 * study.prompted[behaviour].share
        axis.axhline(prompted, color="#D55E00", linestyle=":", label="prompted")
        shares = [100 * study.dose[behaviour, k].share for k in study.size.knob]
        axis.plot(study.size.knob, shares, "o-", color=_COLOUR, label="steered")
        axis.set(title=behaviour, xlabel="knob (1 = coefficient chosen)", ylim=(-4, 104))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("judged answers (%)")
    handles, names = axes[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    figure.savefig(path, dpi=150)

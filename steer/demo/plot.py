"""The dose-response curves of the demo: as a picture, or as text where matplotlib is missing."""

from pathlib import Path

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.picture import LOOKS
from steer.demo.study import Study
from steer.view._drawing import new_figure

_STEPS = 10  # lines of a text plot between 0% and 100%
_CELL = 7  # characters of one setting


def draw(study: Study, path: Path) -> None:
    """Draw the dose-response curves of all domains.

    Args:
        study: The results.
        path: Where to write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(10, 3.4)
    axes = figure.subplots(1, len(DOMAINS), sharey=True)
    for axis, domain in zip(axes, DOMAINS, strict=True):
        for level in LEVELS:
            colour, marker, line = LOOKS[level]
            shares = [100 * study.dose[domain, k][level] for k in study.knob]
            axis.plot(study.knob, shares, line, color=colour, marker=marker, label=level)
        axis.set(title=domain, xlabel="knob (1 = coefficient chosen)", ylim=(-4, 104))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of answers (%)")
    handles, names = axes[-1].get_legend_handles_labels()
    figure.legend(handles, names, title="judged level", loc="outside right center")
    figure.savefig(path, dpi=150)


def text_plot(study: Study, domain: str) -> str:
    """Return the dose-response curves of one domain as lines of text.

    Each level is marked by its first letter at its share, rounded to a tenth.

    Args:
        study: The results.
        domain: The domain.
    """
    lines = [f"{domain}: share of answers (a avoidance, g generic, e expert)"]
    for step in range(_STEPS, -1, -1):
        cells = [
            "".join(x[0] for x in LEVELS if round(study.dose[domain, k][x] * _STEPS) == step)
            for k in study.knob
        ]
        lines.append(f"{step / _STEPS:>5.0%} │" + "".join(c.center(_CELL) for c in cells).rstrip())
    lines.append("      └" + "─" * (_CELL * len(study.knob)))
    lines.append("       " + "".join(f"{k:+.2f}".center(_CELL) for k in study.knob).rstrip())
    return "\n".join(lines)

"""The demo's tables, side-by-side answers and picture, for people to look at."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from steer.demo.data import DOMAINS, LEVELS
from steer.demo.plot import draw
from steer.demo.study import Study
from steer.errors import FileError, MissingExtraError
from steer.store import folder_made

_BAR = "▏▎▍▌▋▊▉█"
_WIDEST = 16  # characters of a full bar
_BESIDE = 12 + 7 * len(LEVELS)  # characters of a line of bars that are no bar


def show(study: Study, console: Console) -> None:
    """Print everything the demo measured.

    Args:
        study: The results.
        console: Where to print.
    """
    _choices(study, console)
    for domain in DOMAINS:
        _dose(study, domain, console)
    for gated in (False, True):
        _matrix(study, gated, console)
    _samples(study, console)


def _choices(study: Study, console: Console) -> None:
    table = Table(
        title="Chosen on held-out pairs; preference accuracy on pairs never seen before",
        caption="pos: template token read, from the end; KL: nats per token of neutral text; "
        "second row: the knob turned back, on the same pairs swapped",
    )
    for name in ("domain", "pos", "layer", "coef", "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("steered", "base", "random", "prompted"):
        table.add_column(name, justify="right", no_wrap=True)
    for domain, choice in study.choices.items():
        (found,) = choice.held_out.values()
        shares = [found.steered, *(found.baselines[b] for b in ("base", "random", "prompted"))]
        table.add_row(
            domain,
            choice.position.removeprefix("template"),
            str(choice.layer),
            f"{choice.coefficient:g}",
            f"{choice.best.kl:.2f}",
            *(f"{share.value:.0%}" for share in shares),
        )
        if choice.back is not None:
            (back,) = choice.back.values()
            turned = (back.steered, back.base, back.random)
            shown = [f"{share.value:.0%}" for share in turned]
            table.add_row("", "", "", f"{-choice.coefficient:g}", "", *shown, "–")
    console.print(table)
    if study.gate.accuracy is not None:
        console.print(f"Domain gate: {study.gate.accuracy:.1%} of held-out prompts routed rightly.")


def _dose(study: Study, domain: str, console: Console) -> None:
    table = Table(title=f"{domain}: share of answers at each setting of its knob")
    table.add_column("knob", justify="right")
    for level in LEVELS:
        table.add_column(level)
    width = max(1, min(_WIDEST, (console.width - _BESIDE) // len(LEVELS)))
    for k in study.knob:
        shares = study.dose[domain, k]
        table.add_row(f"{k:+.2f}", *(f"{shares[x]:>4.0%} {bar(shares[x], width)}" for x in LEVELS))
    console.print(table)


def _matrix(study: Study, gated: bool, console: Console) -> None:
    how = "with the domain gate" if gated else "without a gate"
    table = Table(
        title=f"Effect of each knob at ±1, {how}",
        caption="largest change of a share, in percentage points",
    )
    table.add_column("steered ↓  asked →")
    for domain in DOMAINS:
        table.add_column(domain, justify="right")
    for steered in DOMAINS:
        table.add_row(steered, *(f"{study.matrix[gated, steered, a]:.0f}" for a in DOMAINS))
    console.print(table)


def _samples(study: Study, console: Console) -> None:
    for domain, (question, answers) in study.samples.items():
        table = Table(title=f"{domain}: {question}", show_lines=True)
        table.add_column("knob", justify="right")
        table.add_column("answer")
        for k, text in answers.items():
            table.add_row(f"{k:+.0f}", text)
        console.print(table)


def bar(share: float, width: int = _WIDEST) -> str:
    """Return a horizontal bar of text.

    Args:
        share: A share in [0, 1].
        width: Characters of a full bar.
    """
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BAR[rest - 1] if rest else "")


def timing(study: Study, console: Console) -> None:
    """Print the time each step took.

    Args:
        study: The results.
        console: Where to print.
    """
    table = Table(title="Time")
    table.add_column("step")
    table.add_column("seconds", justify="right")
    for step, seconds in study.seconds.items():
        table.add_row(step, f"{seconds:.1f}")
    table.add_row("in all", f"{sum(study.seconds.values()):.1f}")
    console.print(table)


def save(study: Study, folder: Path) -> list[Path]:
    """Write the vectors and, if matplotlib is there, the picture of the dose-response curves.

    Args:
        study: The results.
        folder: Where to write; it is made if missing.

    Returns:
        The files written.
    """
    folder_made(folder, FileError)
    written = []
    for domain, vector in study.vectors.items():
        path = folder / f"{domain}.safetensors"
        vector.save(path)
        written.append(path)
    picture = folder / "dose-response.png"
    try:
        draw(study, picture)
    except MissingExtraError:
        return written
    return [*written, picture]

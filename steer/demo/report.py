"""What `steer demo` prints and writes: tables, answers to read, vectors and a picture."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from steer.demo.study import DIRECTIONS, KNOB, Study
from steer.errors import FileError, MissingExtraError
from steer.selection import HeldOutResult
from steer.show import Curves, Series
from steer.store import folder_made
from steer.view._base import figure_of

_SAMPLES = 2  # questions shown with their answers, of each behaviour
_BAR = 5  # characters of a full bar
_HUES = (0, 6, 1)  # of the labels


def show(study: Study, console: Console) -> None:
    """Print everything that the demo measured.

    Args:
        study: The results.
        console: Where to print.
    """
    _choices(study, console)
    for name in study.choices:
        _samples(study, name, console)
        console.print(_shares(study, name))
        console.print(verdict(study, name))
    _rows(study, console)
    _gate(study, console)


def save(study: Study, folder: Path) -> tuple[list[Path], str]:
    """Write the vectors and, if matplotlib is there, the picture of the dose curves.

    Args:
        study: The results.
        folder: Where to write; it is made if missing.

    Returns:
        The files written, and a hint where there is no picture.
    """
    folder_made(folder, FileError)
    written = []
    for name, vector in study.vectors.items():
        written.append(folder / f"{name}.safetensors")
        vector.save(written[-1])
    picture = folder / "dose.png"
    try:
        draw(study, picture)
    except MissingExtraError as error:
        return written, f"No picture was drawn. For one: {error.do}"
    return [*written, picture], ""


def verdict(study: Study, name: str) -> str:
    """Return a sentence on whether a knob moves its behaviour further than random directions do.

    Args:
        study: The results.
        name: The behaviour.
    """
    turned, label = study.turned[name], study.subject.behaviours[name].labels[0]
    before, after = (turned.dose[k][label] for k in (0.0, 1.0))
    chance = max(shares[label] for shares in turned.random)
    found = f"{before:.0%} → {after:.0%} judged {label}; best random direction {chance:.0%}"
    moves = "moves" if after > max(before, chance) else "FAILS to move"
    return f"{name} {moves}: {found}."


def _choices(study: Study, console: Console) -> None:
    """Print each selection, the knob turned back where that was measured, and PaLRS's own rule."""
    limit = next(iter(study.choices.values())).limits.kl
    table = _table(
        f"Chosen at KL ≤ {limit:g}; preference accuracy on unseen pairs",
        ("knob",),
        ("read at", "layer", "stream", "KL", "steered", "base", "random"),
        caption="stream: displacement relative to the stream's norm; KL: nats per token of neutral "
        "text that took no part in choosing",
    )
    for name, choice in study.choices.items():
        where = (choice.position, str(choice.layer), f"{choice.displacement or 0.0:.0%}")
        kl = f"{(choice.best.kl if choice.kl is None else choice.kl) or 0.0:.2f}"
        (found,) = choice.held_out.values()
        table.add_row(name, *where, kl, *_accuracies(found))
        for back in (choice.back or {}).values():
            table.add_row("  back", "", "", "", "", *_accuracies(back))
    console.print(table)
    for name, choice in study.choices.items():
        position, layer = study.palrs[name]
        console.print(
            f"{name}: {choice.evidence[name]}. The rule of PaLRS would take {position} at layer "
            f"{layer}."
        )


def _samples(study: Study, name: str, console: Console) -> None:
    """Print some questions with their answers at both ends of a knob and at 0."""
    for number, question in enumerate(study.subject.behaviours[name].asked[:_SAMPLES]):
        table = _table(f"{name}: {question}", (), ("knob",), ("answer",), show_lines=True)
        for k in (-1.0, 0.0, 1.0):
            table.add_row(f"{k:+.0f}", _line(study.turned[name].texts[k][number]))
        console.print(table)


def _shares(study: Study, name: str) -> Table:
    """Return the shares of a behaviour's answers at every setting, beside prompt and chance."""
    behaviour, turned = study.subject.behaviours[name], study.turned[name]
    own, *others = turned.prompted
    table = _table(
        f"{name}: {len(behaviour.asked)} new questions at each setting",
        ("setting", own),
        others,
        caption=f"prompted: {behaviour.instruction!r}; random: mean, and most, of {DIRECTIONS} "
        "directions of equal norm",
    )
    rows = {f"knob {k:+.1f}": turned.dose[k] for k in KNOB} | {"prompted": turned.prompted}
    for what, of in (("mean", fmean), ("most", max)):
        rows[f"random, {what}"] = {
            x: of(found[x] for found in turned.random) for x in (own, *others)
        }
    for setting, shares in rows.items():
        bar = "█" * round(_BAR * shares[own])
        table.add_row(setting, f"{shares[own]:4.0%} {bar}", *_percent(shares[x] for x in others))
    return table


def _rows(study: Study, console: Console) -> None:
    table = _table(
        "One batch, a setting for each row",
        ("knobs",),
        (),
        ("question and answer",),
        show_lines=True,
    )
    for setting, question, text in study.rows:
        knobs = ", ".join(f"{name} {k:+.0f}" for name, k in setting.items())
        table.add_row(knobs, f"{question}\n{_line(text)}")
    console.print(table)


def _gate(study: Study, console: Console) -> None:
    """Print what knobs do to each kind of question; a column of zeros says nothing and is left."""
    behaviours, settings = study.subject.behaviours, dict.fromkeys(s for s, _, _ in study.gated)
    pairs = [(own.kind, name) for own in behaviours.values() for name in behaviours]
    shown = [p for p in pairs if any(study.gated[s, *p] for s in settings)] or pairs
    opened = ", ".join(f"{b.kind} → {name}" for name, b in behaviours.items())
    table = _table(
        f"All knobs behind a gate: {opened}",
        ("setting",),
        [f"{kind}: {behaviours[name].labels[0]}" for kind, name in shown],
        caption="share of answers to each kind of question; empty columns are left out",
    )
    for setting in settings:
        table.add_row(setting, *_percent(study.gated[setting, *pair] for pair in shown))
    console.print(table)
    console.print(f"The gate routes {study.gate_accuracy:.0%} of held-out questions rightly.")
    for kind, (question, text) in study.routed.items():
        console.print(f"{kind}: {question}\n  {_line(text)}")


def draw(study: Study, path: Path) -> None:
    """Draw the share of each label over the knob of each behaviour, beside prompt and chance.

    Args:
        study: The results.
        path: Where to write the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    charts = [_dose(study, name) for name in study.subject.behaviours]
    figure_of([charts]).savefig(path, dpi=150)


def _dose(study: Study, name: str) -> Curves:
    turned, labels = study.turned[name], study.subject.behaviours[name].labels
    own, start = labels[0], 100 * turned.dose[0.0][labels[0]]
    series = {
        label: Series(tuple((k, 100 * turned.dose[k][label]) for k in KNOB), hue=hue)
        for label, hue in zip(labels, _HUES, strict=False)
    }
    prompted = 100 * turned.prompted[own]
    ends = (min(KNOB), prompted), (max(KNOB), prompted)
    series[f"{own}, prompted"] = Series(ends, hue=2, faint=True)
    lines = [((0.0, start), (1.0, 100 * r[own]), (math.nan, math.nan)) for r in turned.random]
    random = tuple(point for line in lines for point in line)
    series[f"{own}, random directions"] = Series(random, hue=3, faint=True)
    along = "knob (1 = coefficient chosen)"
    return Curves("judged answers (%)", along, series, limits=(-4.0, 104.0), title=name)


def _table(
    title: str,
    names: Sequence[str],
    numbers: Sequence[str],
    texts: Sequence[str] = (),
    **options: Any,
) -> Table:
    """Return a table with columns for names, for numbers, and for texts that wrap."""
    table = Table(title=title, **options)
    for column in names:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for column in texts:
        table.add_column(column)
    return table


def _accuracies(found: HeldOutResult) -> list[str]:
    return _percent(share.value for share in (found.steered, found.base, found.random))


def _percent(shares: Iterable[float]) -> list[str]:
    return [f"{share:.0%}" for share in shares]


def _line(text: str) -> str:
    return " ".join(text.split())

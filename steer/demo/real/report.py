"""What the demo on a real model prints: tables of what was measured, and answers to read."""

from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from steer.demo.real.plot import draw
from steer.demo.real.rules import OPPOSITES
from steer.demo.real.study import DIRECTIONS, INSTRUCTION, KL_BUDGET, Reading, Study
from steer.errors import FileError, MissingExtraError
from steer.store import folder_made

_SAMPLES = 2  # questions shown with their answers, of each behaviour
_ENDS = (-1.0, 0.0, 1.0)


def show(study: Study, console: Console) -> None:
    """Print everything the demo measured.

    Args:
        study: The results.
        console: Where to print.
    """
    _choices(study, console)
    for behaviour in study.choices:
        _samples(study, behaviour, console)
        _shares(study, behaviour, console)
        console.print(verdict(study, behaviour))
    _row_each(study, console)
    _gate(study, console)


def save(study: Study, folder: Path) -> tuple[list[Path], str]:
    """Write the vectors and, if matplotlib is there, the picture of the dose curves.

    Args:
        study: The results.
        folder: Where to write; it is made if missing.

    Returns:
        The files written, and what is to be said where there is no picture.
    """
    folder_made(folder, FileError)
    written = []
    for behaviour, vector in study.vectors.items():
        written.append(folder / f"{behaviour}.safetensors")
        vector.save(written[-1])
    picture = folder / "dose.png"
    try:
        draw(study, picture)
    except MissingExtraError as error:
        return written, f"No picture was drawn. For one: {error.do}"
    return [*written, picture], ""


def verdict(study: Study, behaviour: str) -> str:
    """Return in a sentence whether a knob moves what is judged, beside random directions.

    Args:
        study: The results.
        behaviour: The behaviour.
    """
    before, after = (study.dose[behaviour, k].share for k in (0.0, 1.0))
    chance = max(reading.share for reading in study.random[behaviour])
    found = f"{before:.0%} → {after:.0%} judged {behaviour}; best random direction {chance:.0%}"
    if after <= max(before, chance):
        return f"{behaviour} FAILS to move: {found}."
    return f"{behaviour} moves: {found}."


def _choices(study: Study, console: Console) -> None:
    table = Table(
        title=f"Chosen at KL ≤ {KL_BUDGET:g}; preference accuracy on unseen pairs",
        caption="stream: displacement relative to the stream's norm; KL: nats per token of neutral "
        "text that took no part in choosing",
    )
    for name in ("knob", "read at", "layer", "stream", "KL", "steered", "base", "random"):
        table.add_column(name, justify="right", no_wrap=True)
    for behaviour, choice in study.choices.items():
        (found,) = choice.held_out.values()
        shares = (found.steered, found.base, found.random)
        kl = choice.best.kl if choice.kl is None else choice.kl
        table.add_row(
            behaviour,
            choice.position,
            str(choice.layer),
            f"{choice.displacement or 0.0:.0%}",
            f"{kl or 0.0:.2f}",
            *(f"{share.value:.0%}" for share in shares),
        )
    console.print(table)
    for behaviour, choice in study.choices.items():
        position, layer = study.palrs[behaviour]
        console.print(
            f"{behaviour}: {choice.evidence[behaviour]}. The rule of PaLRS would take "
            f"{position} at layer {layer}."
        )


def _samples(study: Study, behaviour: str, console: Console) -> None:
    for number in range(min(_SAMPLES, len(study.asked))):
        table = Table(title=f"{behaviour}: {study.asked[number]}", show_lines=True)
        table.add_column("knob", justify="right", no_wrap=True)
        table.add_column("answer")
        for k in _ENDS:
            table.add_row(f"{k:+.0f}", _line(study.texts[behaviour, k][number]))
        console.print(table)


def _shares(study: Study, behaviour: str, console: Console) -> None:
    table = Table(
        title=f"{behaviour}: {len(study.asked)} new questions at each setting",
        caption=f"prompted: {INSTRUCTION[behaviour]!r}; random: mean (most) of {DIRECTIONS} "
        "directions of equal norm",
    )
    columns = {behaviour: _share, OPPOSITES[behaviour] or "": _opposite}
    columns |= {"on topic": _on_topic, "repeated": _repeated}
    columns.pop("", None)
    table.add_column("setting", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    one = [(f"knob {k:+.1f}", study.dose[behaviour, k]) for k in study.size.knob]
    for name, reading in (*one, ("prompted", study.prompted[behaviour])):
        table.add_row(name, *(f"{what(reading):.0%}" for what in columns.values()))
    each = [[what(reading) for reading in study.random[behaviour]] for what in columns.values()]
    table.add_row("random", *(f"{fmean(found):.0%} ({max(found):.0%})" for found in each))
    console.print(table)


def _row_each(study: Study, console: Console) -> None:
    table = Table(title="One batch, a setting for each row", show_lines=True)
    table.add_column("knobs", no_wrap=True)
    table.add_column("question and answer")
    for setting, question, text in study.rows:
        knobs = ", ".join(f"{name} {k:+.0f}" for name, k in setting.items())
        table.add_row(knobs, f"{question}\n{_line(text)}")
    console.print(table)


def _gate(study: Study, console: Console) -> None:
    behaviours, kinds = [*study.choices], [*study.routed]
    table = Table(
        title="Both knobs behind a gate: cheerful in the kitchen, formal at the office",
        caption="share of answers to each kind of question; the gate reads the prompt and opens "
        "one knob",
    )
    table.add_column("setting", no_wrap=True)
    for kind in kinds:
        for behaviour in behaviours:
            table.add_column(f"{kind}: {behaviour}", justify="right")
    for setting in dict.fromkeys(name for name, _, _ in study.kinds):
        shares = (study.kinds[setting, kind, b] for kind in kinds for b in behaviours)
        table.add_row(setting, *(f"{share:.0%}" for share in shares))
    console.print(table)
    console.print(f"The gate routes {study.gate_accuracy:.0%} of held-out questions rightly.")
    for kind, (question, text) in study.routed.items():
        console.print(f"{kind}: {question}\n  {_line(text)}")


def _share(reading: Reading) -> float:
    return reading.share


def _opposite(reading: Reading) -> float:
    return reading.opposite


def _on_topic(reading: Reading) -> float:
    return reading.on_topic


def _repeated(reading: Reading) -> float:
    return reading.repeated


def _line(text: str) -> str:
    return " ".join(text.split())

"""Blind reading: pairs of answers without their conditions, and what readers said of them.

`python -m notebooks.study sheet NAME` prints the pairs. A reader notes, for each, which of A and B
shows more of the behaviour and which of them answer the question, as rows of `blind.jsonl`:
`{"behaviour": …, "item": 0, "more": "A" | "B" | "same", "answers": "AB" | "A" | "B" | ""}`.
"""

import random
from dataclasses import dataclass

from notebooks.study.rows import find, rows

STEERED = "mean"


@dataclass(frozen=True)
class Reading:
    """What a reader said of a behaviour's pairs of answers: counts of pairs.

    Args:
        pairs: Pairs read.
        steered: In which the steered answer shows more of the behaviour.
        unsteered: In which the unsteered one does.
        answering: Steered answers that still answer the question.
    """

    pairs: int
    steered: int
    unsteered: int
    answering: int


def sheet(behaviour: str, questions: tuple[str, ...]) -> str:
    """Return the pairs of answers to read, without their conditions."""
    before, after = (_answers(behaviour, method) for method in ("unsteered", STEERED))
    lines = [f"Which answer is more {behaviour}: A, B, or the same? Which answer the question?"]
    items = zip(questions, before, after, _swapped(behaviour, len(before)), strict=True)
    for k, (question, plain, steered, swapped) in enumerate(items):
        a, b = (steered, plain) if swapped else (plain, steered)
        lines.append(f"\n{k}. {question}\n   A: {_line(a)}\n   B: {_line(b)}")
    return "\n".join(lines) + "\n"


def reading(behaviour: str) -> Reading | None:
    """Return what was read of a behaviour, with the conditions put back; None if nothing was."""
    found = [row for row in rows("blind") if row["behaviour"] == behaviour]
    if not found:
        return None
    swapped = _swapped(behaviour, len(_answers(behaviour, STEERED)))
    ours = ["A" if swapped[row["item"]] else "B" for row in found]
    more = [row["more"] for row in found]
    return Reading(
        len(found),
        sum(said == own for said, own in zip(more, ours, strict=True)),
        sum(said not in ("same", own) for said, own in zip(more, ours, strict=True)),
        sum(own in row["answers"] for row, own in zip(found, ours, strict=True)),
    )


def _answers(behaviour: str, method: str) -> list[str]:
    row = find("test", behaviour=behaviour, method=method)
    if row is None:
        raise SystemExit(f"{behaviour} was not tested yet: python -m notebooks.study test")
    return list(row["answers"])


def _swapped(behaviour: str, n: int) -> list[bool]:
    """Return, for each pair, whether the steered answer comes first."""
    generator = random.Random(f"blind {behaviour}")
    return [generator.random() < 0.5 for _ in range(n)]


def _line(text: str) -> str:
    return " ".join(text.split())

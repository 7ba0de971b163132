"""Compare a server's tokens with the hook engine's."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEAR = 1e-4  # nats: below it, the order of sums decides which token is best


def reference(model: Path, vectors: Path, asked: Path) -> list[dict[str, Any]]:
    """Return the hook engine's answers to a file of requests, from a process of its own."""
    out = asked.with_suffix(".reference.json")
    command = [sys.executable, "-m", "tests.engines.reference", model, vectors, asked, out]
    subprocess.run([str(part) for part in command], check=True)
    return list(json.loads(out.read_text()))


def differences(
    found: Sequence[Sequence[int]], expected: Sequence[dict[str, Any]]
) -> tuple[list[int], int]:
    """Return the requests whose tokens differ, and how many differ first at a near tie."""
    wrong, ties = [], 0
    for k, (tokens, answer) in enumerate(zip(found, expected, strict=True)):
        at = next(
            (i for i, (a, b) in enumerate(zip(tokens, answer["tokens"], strict=True)) if a != b),
            None,
        )
        if at is None:
            continue
        if answer["gaps"][at] < NEAR:
            ties += 1
        else:
            wrong.append(k)
    return wrong, ties

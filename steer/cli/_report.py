"""`steer report`."""

from pathlib import Path
from typing import Annotated

import typer

from steer.cli._common import (
    MOST_SEED,
    Device,
    Dtype,
    Gate,
    Length,
    ModelName,
    Progress,
    Vectors,
    load_model,
    say,
    working,
)
from steer.cli._composed import composed
from steer.errors import CompositionError, FileError


def report(
    model: ModelName,
    vector: Vectors = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs to measure on, of which nothing was made.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Pairs that the vectors were made from, for reliability.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page to write.")] = Path(
        "report.html"
    ),
    instruction: Annotated[
        str | None, typer.Option(help="System message of the prompted baseline.")
    ] = None,
    kl: Annotated[
        float | None, typer.Option(help="KL limit to draw, in nats per token.", min=0)
    ] = None,
    examples: Annotated[int, typer.Option(help="Prompts of each domain to answer.", min=0)] = 3,
    max_new_tokens: Length = 64,
    gate: Gate = False,
    seed: Annotated[int, typer.Option(help="Of the random directions.", min=0, max=MOST_SEED)] = 0,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Steering report",
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Measure vectors on held-out pairs, beside baselines, and write one HTML page."""
    from steer.pairs import Pairs
    from steer.report import report as measured
    from steer.store import target_of

    target_of(out, FileError)
    knobs = composed(vector or [], gate)
    if knobs is None or pairs is None:
        raise CompositionError(
            "there is nothing to report on",
            found="no vector" if knobs is None else "no pairs",
            expected="at least one vector, and pairs to measure on",
            do="steer report MODEL -v FILE:COEF --pairs FILE -o report.html",
        )
    data = Pairs.load(pairs)
    made_from = None if train is None else Pairs.load(train)
    with working(progress):
        found = measured(
            load_model(model, dtype, device),
            knobs,
            data,
            train=made_from,
            instruction=instruction,
            kl_budget=kl,
            examples=examples,
            max_new_tokens=max_new_tokens,
            seed=seed,
            title=title,
            progress=progress,
        )
        say(f"written: {found.save(out)}")

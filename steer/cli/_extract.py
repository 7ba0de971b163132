"""`steer extract`."""

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from steer.algebra._provenance import MIN_PAIRS
from steer.cli._chosen import as_json as chosen_as_json
from steer.cli._chosen import show
from steer.cli._common import (
    MOST_SEED,
    TOY,
    AsJson,
    Device,
    Dtype,
    ModelName,
    Progress,
    check_apart,
    check_layers,
    load_model,
    print_json,
    say,
    tell,
    working,
)
from steer.errors import CompositionError, PairsError, VectorFileError
from steer.extract._positions import DEFAULT_AT, readers_of
from steer.extract._registry import get_method, keep_for
from steer.store import folder_made, target_of

if TYPE_CHECKING:
    from steer.algebra import Vector
    from steer.extract import Activations
    from steer.model import Model
    from steer.pairs import Pairs
    from steer.selection import Selection

_DEFAULT = "mean_difference"
_LEAST = 6  # settings that any race can be run with: a heat or two, and three strengths
_LAYERS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_LISTED = 5  # rows that are no pairs
_T = TypeVar("_T")


def extract(
    model: ModelName,
    pairs: Annotated[str, typer.Argument(help="JSONL, JSON, CSV, Parquet, or a data set's id.")],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="File to write; with {domain} in its name, one per domain."
        ),
    ],
    held_out: Annotated[
        str | None,
        typer.Option(
            help="Pairs to choose and to test with (file); without them, and without --method, "
            "40% of PAIRS."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to extract, see `steer methods`; without --held-out nothing is chosen by "
            "measurement then."
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="Where to read the residual stream, with commas between, or several times. "
            f"[default: {','.join(DEFAULT_AT)}]"
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to record and choose from, for instance 4,6-9.")
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(help="Most KL on neutral text, nats per token. [default: 0.5]", min=0),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Most settings to measure: fewer are raced.", min=_LEAST)
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of the pairs.")] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Names of columns, for instance prompt=question,chosen=good."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of PAIRS, a data set with several.")
    ] = None,
    on_bad: Annotated[
        Literal["error", "report"], typer.Option(help="What to do about rows that are not pairs.")
    ] = "error",
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the split and of random directions. [default: 0]", min=0, max=MOST_SEED
        ),
    ] = None,
    as_json: AsJson = False,
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Make a vector for each domain from preference pairs, choose where and how strongly it acts.

    Position, layer and strength are chosen by measuring, on pairs that the vectors were not made
    from. With --method NAME alone, the vector is that of the method, from all pairs.
    """
    options = {"kl": kl, "budget": budget, "seed": seed}
    _check_used(options, chooses=method is None or held_out is not None)
    positions = [label.strip() for part in at or () for label in part.split(",")] or DEFAULT_AT
    readers_of(positions)
    get_method(method or _DEFAULT)
    wanted = _layers(layers)

    read: Any = {"domain": domain, "columns": _columns(columns), "on_bad": on_bad}
    made = _loaded(pairs, split=split, **read)
    names: tuple[str | None, ...] = made.domains or (domain,)
    _check_files(out, names)
    for name in names:
        check_apart(_file(out, name), *(Path(part) for part in (pairs, held_out) if part))
    unseen: Sequence[Pairs] = ()  # to choose and to test with
    if held_out is not None:
        unseen = (_loaded(held_out, **read),)
    elif method is None:
        made, *unseen = _divided(made, seed or 0)
    check_layers(wanted, model)
    with working(progress):
        lm = load_model(model, dtype, device)
        for name in names:
            mine, *others = (p if name is None else p.of_domain(name) for p in (made, *unseen))
            found = _recorded(
                lm,
                mine,
                model,
                at=positions,
                layers=wanted,
                keep=keep_for(method or _DEFAULT),
                progress=progress,
            )
            chosen = None
            if others:
                pool: Any = found
                if method is not None:
                    pool = {p: _vector(method, _at(found, p), wanted) for p in found.positions}
                chosen = _selected(lm, pool, others, options, progress)
                vector = chosen.vector
            else:
                vector = _vector(method or _DEFAULT, found, wanted)
            path = _file(out, name)
            folder_made(path.parent, VectorFileError)
            vector.save(path)
            _report(path, name, vector, chosen, as_json, model)


def _check_used(options: Mapping[str, object], *, chooses: bool) -> None:
    """Refuse options of the choice where nothing is chosen, and a choice without room."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given and not chooses:
        raise typer.BadParameter(
            "with --method alone nothing is chosen; name pairs to choose with: --held-out FILE",
            param_hint=given[0],
        )
    if options["kl"] == 0:
        raise typer.BadParameter(
            "a vector that may change nothing cannot be chosen; write for instance 0.5",
            param_hint="--kl",
        )


def _columns(text: str | None) -> dict[str, str] | None:
    """Return the columns of `prompt=question,chosen=good`, by the names of our fields."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and column.strip() for name, _, column in parts):
        raise typer.BadParameter("expected prompt=NAME,chosen=NAME", param_hint="--columns")
    found = {name.strip(): column.strip() for name, _, column in parts}
    if len(found) < len(parts):
        raise typer.BadParameter("a name stands twice", param_hint="--columns")
    return found


def _loaded(source: str, **options: Any) -> "Pairs":
    """Return pairs; rows that are none are listed on standard error."""
    from steer.pairs import Pairs

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows are not valid pairs")
        found = Pairs.load(source, **options)
    for row in found.rejected_rows[:_LISTED]:
        tell(f"left out: {row}")
    if (more := len(found.rejected_rows) - _LISTED) > 0:
        tell(f"left out: {more} more rows that are no pairs")
    return found


def _check_files(out: str, names: tuple[str | None, ...]) -> None:
    """Refuse files that cannot be written before anything is computed."""
    from steer.algebra._file.folder import check_file_name

    if len(names) > 1 and "{domain}" not in out:
        raise CompositionError(
            "these pairs have several domains, and one file was named",
            found=", ".join(map(str, names)),
            expected="a file name with {domain} in it",
            do="write for instance -o 'vectors/{domain}.safetensors'",
        )
    for name in names:
        if "{domain}" in out:
            check_file_name(str(name))
        target_of(_file(out, name), VectorFileError)


def _file(out: str, domain: str | None) -> Path:
    return Path(out.replace("{domain}", str(domain)))


def _divided(pairs: "Pairs", seed: int) -> "tuple[Pairs, Pairs, Pairs]":
    """Return the pairs to make vectors of, to choose with and to test with; no prompt is in two."""
    try:
        made, choosing, test = pairs.split(seed=seed)
    except PairsError as error:
        raise PairsError(
            "these pairs are too few to choose with",
            found=error.found,
            expected="pairs of several prompts in each domain: 60% make the vector, 20% choose "
            "position, layer and strength, 20% test the choice",
            do="add pairs, name pairs to choose with (--held-out FILE), or choose nothing: "
            "--method palrs",
        ) from error
    return made, choosing, test


def _recorded(lm: "Model", pairs: "Pairs", model: str, **options: Any) -> "Activations":
    """Return the recording of one domain; refuse answers that the model cannot tell apart."""
    from steer.extract import record

    found = record(lm, pairs, **options)
    if not any(bool(moments.difference.any()) for moments in found.moments.values()):
        raise PairsError(
            "the model reads the chosen and the rejected answers as the same text",
            found=f"{pairs[0].chosen[:40]!r} and {pairs[0].rejected[:40]!r} leave the same "
            "activations, as those of all pairs",
            expected="answers made of words that the model knows",
            do=f"use another model: {TOY!r} is a toy of some hundred words, which knows no letters "
            "such as (A)"
            if model == TOY
            else "write the answers out as sentences",
        )
    return found


def _at(recording: "Activations", position: str) -> "Activations":
    """Return what was recorded at one position."""

    def of(found: "Mapping[tuple[str | None, str], _T]") -> "dict[tuple[str | None, str], _T]":
        return {key: value for key, value in found.items() if key[1] == position}

    kept = None if recording.kept is None else of(recording.kept)
    return replace(recording, moments=of(recording.moments), kept=kept)


def _vector(method: str, recording: "Activations", layers: list[int] | None) -> "Vector":
    """Return a method's vector; a method that chooses among layers is given them."""
    function: Any = get_method(method)
    chooses = layers is not None and "layers" in inspect.signature(function).parameters
    vector: Vector = function(recording, layers=layers) if chooses else function(recording)
    return vector


def _selected(
    lm: "Model",
    pool: "Activations | dict[str, Vector]",
    parts: "Sequence[Pairs]",
    options: Mapping[str, Any],
    progress: bool,
) -> "Selection":
    from steer.selection import Limits, select

    given = {name: value for name, value in options.items() if value is not None}
    limits = Limits(kl=given.pop("kl", 0.5))
    test = parts[1] if len(parts) > 1 else None
    return select(lm, pool, parts[0], test=test, limits=limits, progress=progress, **given)


def _report(
    path: Path,
    domain: str | None,
    vector: "Vector",
    chosen: "Selection | None",
    as_json: bool,
    model: str,
) -> None:
    """Print what was made, and what was chosen."""
    made = vector.provenance
    if chosen is None and made.pairs < MIN_PAIRS:
        tell(
            f"Warning: {made.pairs} pair{'s' * (made.pairs != 1)} cannot show what the answers "
            f"have in common, and nothing was measured. Take at least {MIN_PAIRS}, better 60."
        )
    if as_json:
        found = {"file": str(path), "domain": domain, "method": made.method, "pairs": made.pairs}
        position = {"position": made.arguments.get("position"), "layers": list(vector.layers)}
        print_json(found | (position if chosen is None else chosen_as_json(chosen)))
        return
    if chosen is None:
        say(vector)
    else:
        show(chosen)
    say(f"saved {path}")
    if vector.tuning is not None:
        c = f"{vector.tuning.coefficient:.3g}"
        say(f"Steer with: steer generate {model} -v {path}:{c} 'a prompt'")


def _layers(text: str | None) -> list[int] | None:
    """Return the layers of `4,6-9`: 4, 6, 7, 8, 9."""
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        match = _LAYERS.fullmatch(part.strip())
        if match is None:
            raise typer.BadParameter("expected layers like 4,6-9", param_hint="--layers")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found:
        raise typer.BadParameter("the range is empty; write 6-9, not 9-6", param_hint="--layers")
    return found

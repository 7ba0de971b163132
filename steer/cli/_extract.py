"""`steer extract`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from steer.cli._chosen import as_json as chosen_as_json
from steer.cli._chosen import show
from steer.cli._common import (
    AsJson,
    Device,
    Dtype,
    ModelName,
    Progress,
    load_model,
    plain_console,
    print_json,
    working,
)
from steer.errors import CompositionError, PairsError, VectorFileError
from steer.extract._positions import DEFAULT_AT
from steer.extract._registry import keep_for
from steer.store import folder_made, target_of

if TYPE_CHECKING:
    from steer.algebra import Vector
    from steer.extract import Activations
    from steer.model import Model
    from steer.pairs import Pairs
    from steer.selection import Selection

_DEFAULT = "mean_difference"
_DOMAIN, _POSITION = 0, 1  # in the key of a recording
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
    position: Annotated[
        str | None,
        typer.Option(help="The only one to use of the positions read, for instance template[-1]."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to record and choose from, for instance 4,6-9.")
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(help="Most KL on neutral text, nats per token. [default: 0.5]", min=0),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Most settings to measure: fewer are raced.", min=1)
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of the pairs.")] = None,
    on_bad: Annotated[
        Literal["error", "report"], typer.Option(help="What to do about rows that are not pairs.")
    ] = "error",
    seed: Annotated[
        int | None, typer.Option(help="Of the split and of random directions. [default: 0]")
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
    from steer.pairs import Pairs

    options = {"kl": kl, "budget": budget, "seed": seed}
    _check_used(options, chooses=method is None or held_out is not None)
    made = Pairs.load(pairs, domain=domain, on_bad=on_bad)
    names: tuple[str | None, ...] = made.domains or (domain,)
    _check_files(out, names)
    wanted = _layers(layers)
    use = _method(method or _DEFAULT, wanted)
    unseen: Sequence[Pairs] = ()  # to choose and to test with
    if held_out is not None:
        unseen = (Pairs.load(held_out, domain=domain, on_bad=on_bad),)
    elif method is None:
        made, *unseen = _divided(made, seed or 0)
    parts = {n: [part if n is None else part.of_domain(n) for part in unseen] for n in names}
    with working(progress):
        lm = load_model(model, dtype, device)
        found = _recorded(
            lm, made, at, layers=wanted, keep=keep_for(method or _DEFAULT), progress=progress
        )
        if position is not None:
            found = _only(found, _POSITION, found.position(position))
        for name in names:
            mine = _only(found, _DOMAIN, name)
            chosen = None
            if parts[name]:
                by_method = (
                    {p: use(_only(mine, _POSITION, p)) for p in mine.positions} if method else {}
                )
                chosen = _selected(lm, by_method or mine, parts[name], options, progress)
            vector = use(mine) if chosen is None else chosen.vector
            path = _file(out, name)
            folder_made(path.parent, VectorFileError)
            vector.save(path)
            _report(path, name, vector, chosen, as_json, model)


def _check_used(options: Mapping[str, object], *, chooses: bool) -> None:
    """Refuse options of the choice where nothing is chosen."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given and not chooses:
        raise typer.BadParameter(
            "with --method alone nothing is chosen; name pairs to choose with: --held-out FILE",
            param_hint=given[0],
        )


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


def _recorded(
    lm: "Model", pairs: "Pairs", at: Sequence[str] | None, **options: Any
) -> "Activations":
    from steer.extract import record

    named = [label.strip() for part in at or () for label in part.split(",")]
    return record(lm, pairs, at=named or DEFAULT_AT, **options)


def _only(activations: "Activations", part: int, name: str | None) -> "Activations":
    """Return the recordings whose key has this name as its domain or its position."""

    def of(found: "Mapping[tuple[str | None, str], _T]") -> "dict[tuple[str | None, str], _T]":
        return {key: value for key, value in found.items() if key[part] == name}

    moments = of(activations.moments)
    kept = None if activations.kept is None else of(activations.kept)
    texts = {d: found for d, found in activations.responses.items() if d in {d for d, _ in moments}}
    return replace(activations, moments=moments, kept=kept, responses=texts)


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
    if as_json:
        made = vector.provenance
        found = {"file": str(path), "domain": domain, "method": made.method, "pairs": made.pairs}
        position = {"position": made.arguments.get("position"), "layers": list(vector.layers)}
        print_json(found | (position if chosen is None else chosen_as_json(chosen)))
        return
    console = plain_console()
    if chosen is None:
        console.print(vector)
    else:
        show(chosen, console)
    console.print(f"saved {path}", soft_wrap=True)
    if vector.tuning is not None:
        c = f"{vector.tuning.coefficient:.3g}"
        console.print(
            f"Steer with: steer generate {model} -v {path}:{c} 'a prompt'", soft_wrap=True
        )


def _layers(text: str | None) -> list[int] | None:
    """Return the layers of `4,6-9`: 4, 6, 7, 8, 9."""
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise typer.BadParameter("expected layers like 4,6-9", param_hint="--layers")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise typer.BadParameter("the range is empty; write 6-9, not 9-6", param_hint="--layers")
    return found


def _method(name: str, layers: list[int] | None) -> "Callable[[Activations], Vector]":
    """Return an extraction method that is given the layers, if it takes any."""
    from steer.extract import get_method

    method: Any = get_method(name)
    chooses = layers is not None and "layers" in inspect.signature(method).parameters
    options = {"layers": layers} if chooses else {}

    def extract(activations: "Activations") -> "Vector":
        vector: Vector = method(activations, **options)
        return vector

    return extract

"""`steer extract`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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

if TYPE_CHECKING:
    from steer.algebra import Vector
    from steer.extract import Activations
    from steer.model import Model
    from steer.pairs import Pairs
    from steer.selection import Selection


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
        float,
        typer.Option("--kl", "--kl-budget", help="Most KL on neutral text, nats per token.", min=0),
    ] = 0.5,
    budget: Annotated[
        int | None, typer.Option(help="Most settings to measure: fewer are raced.", min=1)
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of the pairs.")] = None,
    on_bad: Annotated[str, typer.Option(help="Rows that are no pairs: error or report.")] = "error",
    seed: Annotated[int, typer.Option(help="Of the split and of random directions.")] = 0,
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

    loaded = Pairs.load(pairs, domain=domain, on_bad=_on_bad(on_bad))
    names: tuple[str | None, ...] = loaded.domains or (domain,)
    _check_files(out, names)
    wanted = _layers(layers)
    use = _method(method or "mean_difference", wanted)
    made: Pairs = loaded
    unseen: Sequence[Pairs] = ()  # to choose and to test with
    if held_out is not None:
        unseen = (Pairs.load(held_out, domain=domain, on_bad=_on_bad(on_bad)),)
    elif method is None:
        made, *unseen = _divided(loaded, seed)
    parts = {name: [_pairs_of(part, name) for part in unseen] for name in names}
    options = {"kl": kl, "budget": budget, "seed": seed, "progress": progress}
    with working(progress):
        lm = load_model(model, dtype, device)
        keep = keep_for(method or "mean_difference")
        activations = _recorded(lm, made, at, position, wanted, keep, progress)
        for name in names:
            mine = _of_domain(activations, name)
            chosen = None
            if parts[name]:
                pool = mine if method is None else {p: use(_at(mine, p)) for p in mine.positions}
                chosen = _selected(lm, pool, parts[name], options)
            vector = use(mine) if chosen is None else chosen.vector
            path = _file(out, name)
            _save(vector, path)
            _report(path, name, vector, chosen, as_json)


def _check_files(out: str, names: tuple[str | None, ...]) -> None:
    """Refuse files that cannot be written before anything is computed."""
    from steer.algebra._file.names import check_file_name
    from steer.store import target_of

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


def _save(vector: "Vector", path: Path) -> None:
    from steer.store import folder_made

    folder_made(path.parent, VectorFileError)
    vector.save(path)


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
    lm: "Model",
    pairs: "Pairs",
    at: Sequence[str] | None,
    position: str | None,
    layers: list[int] | None,
    keep: Literal["means", "pairs"],
    progress: bool,
) -> "Activations":
    """Return a recording at the positions that were named, of which one may be used alone."""
    from steer.extract import record

    named = [label.strip() for part in at or () for label in part.split(",")]
    found = record(lm, pairs, at=named or DEFAULT_AT, layers=layers, keep=keep, progress=progress)
    return found if position is None else _at(found, found.position(position))


def _at(activations: "Activations", position: str) -> "Activations":
    own = {key: found for key, found in activations.moments.items() if key[1] == position}
    return replace(activations, moments=own)


def _of_domain(activations: "Activations", domain: str | None) -> "Activations":
    own = {key: found for key, found in activations.moments.items() if key[0] == domain}
    texts = {key: found for key, found in activations.responses.items() if key == domain}
    return replace(activations, moments=own, responses=texts)


def _pairs_of(pairs: "Pairs", domain: str | None) -> "Pairs":
    return pairs if domain is None else pairs.of_domain(domain)


def _selected(
    lm: "Model",
    pool: "Activations | dict[str, Vector]",
    parts: "Sequence[Pairs]",
    options: Mapping[str, Any],
) -> "Selection":
    from steer.selection import Limits, select

    limits = Limits(kl=options["kl"])
    rest = {name: value for name, value in options.items() if name != "kl"}
    test = parts[1] if len(parts) > 1 else None
    return select(lm, pool, parts[0], test=test, limits=limits, **rest)


def _report(
    path: Path,
    domain: str | None,
    vector: "Vector",
    chosen: "Selection | None",
    as_json: bool,
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
        console.print(f"Steer with: steer generate MODEL -v {path}:{c} 'a prompt'", soft_wrap=True)


def _on_bad(value: str) -> Literal["error", "report"]:
    if value == "error":
        return "error"
    if value == "report":
        return "report"
    raise typer.BadParameter("expected 'error' or 'report'", param_hint="--on-bad")


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
        raise typer.BadParameter("these are no layers; write 6-9, not 9-6", param_hint="--layers")
    return found


def _method(name: str, layers: list[int] | None) -> "Callable[[Activations], Vector]":
    """Return an extraction method, which uses the layers named where it has a choice."""
    from steer.extract import get_method

    method: Any = get_method(name)
    chooses = layers is not None and "layers" in inspect.signature(method).parameters
    options = {"layers": layers} if chooses else {}

    def extract(activations: "Activations") -> "Vector":
        vector: Vector = method(activations, **options)
        return vector

    return extract

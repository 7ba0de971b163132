"""`steer extract`."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer.cli.common import Device, Dtype, ModelName, load_model, plain_console
from steer.errors import CompositionError, VectorFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from steer.activations import Activations
    from steer.model import Model
    from steer.pairs import Pairs
    from steer.vector import Vector


def extract(
    model: ModelName,
    pairs: Annotated[str, typer.Argument(help="JSONL, JSON, CSV, Parquet, or a data set's id.")],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="File to write; with {domain} in its name, one per domain."
        ),
    ],
    method: Annotated[str, typer.Option(help="How to extract; see `steer methods`.")] = "palrs",
    at: Annotated[str, typer.Option(help="Where to read the residual stream.")] = "template",
    position: Annotated[
        str | None,
        typer.Option(help="The only one to use of the positions read, for instance template[-1]."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to record and choose from, for instance 4,6-9.")
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of the pairs.")] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Pairs to choose layer and strength on (file).")
    ] = None,
    kl_budget: Annotated[float, typer.Option(help="Limit for that, nats per token.")] = 0.5,
    on_bad: Annotated[str, typer.Option(help="Rows that are no pairs: error or report.")] = "error",
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Compute a vector for each domain from preference pairs and write it to a file."""
    from steer.files import folder_made, target_of
    from steer.pairs import Pairs
    from steer.recording import record
    from steer.store.names import check_file_name

    console = plain_console()
    loaded = Pairs.load(pairs, domain=domain, on_bad=_on_bad(on_bad))
    names = loaded.domains or (domain,)
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
    use = _method(method, position, _layers(layers))
    lm = load_model(model, dtype, device)
    choosing = None if held_out is None else Pairs.load(held_out, domain=domain)
    activations = record(lm, loaded, at=at, layers=_layers(layers))
    for name, vector in _extracted(lm, activations, names, use, choosing, kl_budget, console):
        path = _file(out, name)
        folder_made(path.parent, VectorFileError)
        vector.save(path)
        console.print(vector)
        console.print(f"saved {path}", soft_wrap=True)


def _file(out: str, domain: str | None) -> Path:
    return Path(out.replace("{domain}", str(domain)))


def _on_bad(value: str) -> Any:
    if value in ("error", "report"):
        return value
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


def _method(
    name: str, position: str | None, layers: list[int] | None
) -> "Callable[[Activations, str | None], Vector]":
    """Return an extraction method that uses one position, and layers where it has a choice."""
    from steer.extract import get_method

    method: Any = get_method(name)
    chooses = layers is not None and "layers" in inspect.signature(method).parameters
    options = {"layers": layers} if chooses else {}

    def extract(activations: "Activations", domain: str | None) -> "Vector":
        if position is not None:
            label = activations.position(position)
            own = {key: found for key, found in activations.moments.items() if key[1] == label}
            activations = replace(activations, moments=own)
        vector: Vector = method(activations, domain=domain, **options)
        return vector

    return extract


def _extracted(
    lm: "Model",
    activations: "Activations",
    names: tuple[str | None, ...],
    method: "Callable[[Activations, str | None], Vector]",
    choosing: "Pairs | None",
    kl_budget: float,
    console: "Console",
) -> "list[tuple[str | None, Vector]]":
    from steer.selection import Limits, select

    found = []
    for name in names:
        vector = method(activations, name)
        if choosing is not None:
            held_out = choosing if name is None else choosing.of_domain(name)
            choice = select(lm, vector, held_out, limits=Limits(kl=kl_budget))
            console.print(choice)
            vector = choice.vector
        found.append((name, vector))
    return found

"""`steer extract`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from steer.cli.common import Device, Dtype, ModelName, load_model
from steer.errors import CompositionError

if TYPE_CHECKING:
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
    from steer.pairs import Pairs

    console = Console()
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
        if "{domain}" in out and Path(str(name)).name != str(name):
            raise CompositionError(
                "this domain's name cannot be a part of a file name",
                found=repr(name),
                expected="a name without / and not ..",
                do="rename the domain in the pairs, or extract it alone with --domain",
            )
    lm = load_model(model, dtype, device)
    choosing = None if held_out is None else Pairs.load(held_out, domain=domain)
    for name, vector in _extracted(lm, loaded, names, method, at, choosing, kl_budget, console):
        path = Path(out.replace("{domain}", str(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        vector.save(path)
        console.print(vector, markup=False, highlight=False)
        console.print(f"saved {path}", soft_wrap=True, highlight=False)


def _on_bad(value: str) -> Any:
    if value in ("error", "report"):
        return value
    raise typer.BadParameter("expected 'error' or 'report'", param_hint="--on-bad")


def _extracted(
    lm: "Model",
    pairs: "Pairs",
    names: tuple[str | None, ...],
    method: str,
    at: str,
    choosing: "Pairs | None",
    kl_budget: float,
    console: Console,
) -> "list[tuple[str | None, Vector]]":
    from steer.activations import record
    from steer.extract import get_method
    from steer.select import select

    activations = record(lm, pairs, at=at)
    found = []
    for name in names:
        vector = get_method(method)(activations, domain=name)
        if choosing is not None:
            held_out = choosing if name is None else choosing.of_domain(name)
            choice = select(lm, vector, held_out, kl_budget=kl_budget)
            console.print(choice, markup=False, highlight=False)
            vector = choice.vector
        found.append((name, vector))
    return found

"""`steer generate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from steer.cli.common import Device, Dtype, ModelName, load_model
from steer.errors import CompositionError, TextError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steer.composition import Composition
    from steer.gate import DomainGate
    from steer.vector import Vector


def generate(
    model: ModelName,
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; none: stdin lines.")] = None,
    vector: Annotated[
        list[str] | None,
        typer.Option("--vector", "-v", help="FILE:COEF; may be given several times."),
    ] = None,
    gate: Annotated[bool, typer.Option(help="Use the domain gate stored in the files.")] = False,
    scope: Annotated[str | None, typer.Option(help="all, prompt, response or last_prompt.")] = None,
    operator: Annotated[str | None, typer.Option(help="add or ablate.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer.", min=1)] = 64,
    compare: Annotated[bool, typer.Option(help="Print the unsteered answer as well.")] = False,
    strict: Annotated[bool, typer.Option(help="Refuse vectors of another model family.")] = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Generate answers with vectors injected."""
    knobs = _composed(vector or [], gate)
    parts = [] if knobs is None else list(knobs.parts.values())
    if not gate and any(part.vector.gate is not None for part in parts):
        note = "These files hold a domain gate, which is not used; --gate uses it."
        Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
    asked = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise TextError(
            "there is no prompt",
            found="no argument and nothing on standard input",
            expected="at least one prompt",
            do="steer generate MODEL -v FILE:COEF 'a prompt'",
        )
    lm = load_model(model, dtype, device)
    plain = lm.generate(asked, max_new_tokens=max_new_tokens) if compare or knobs is None else None
    steered = None
    if knobs is not None:
        with lm.steered(knobs, scope=scope, operator=operator, strict=strict):
            steered = lm.generate(asked, max_new_tokens=max_new_tokens)
    _print_answers(asked, plain, steered)


def _composed(vectors: list[str], gate: bool) -> "Composition | None":
    """Read FILE:COEF arguments; without a coefficient the file's own recommendation is used."""
    from steer.composition import compose
    from steer.vector import Vector

    loaded: dict[str, Vector] = {}
    coefficients: dict[str, float] = {}
    for argument in vectors:
        path, coefficient = _file_and_coefficient(argument)
        vector = Vector.load(path)
        tuned = 1.0 if vector.tuning is None else vector.tuning.coefficient
        name = vector.provenance.domain or path.stem
        name = name if name not in loaded else f"{name} ({path})"
        loaded[name] = vector
        coefficients[name] = tuned if coefficient is None else coefficient
    if not loaded:
        return None
    return compose(loaded, gate=_gate(loaded, vectors) if gate else None)(coefficients)


def _gate(vectors: "Mapping[str, Vector]", arguments: list[str]) -> "DomainGate":
    """Return the gate that all vectors with one were stored with."""
    gates = {name: vector.gate for name, vector in vectors.items() if vector.gate is not None}
    if not gates:
        raise CompositionError(
            "no gate is stored in these files",
            found=", ".join(arguments),
            expected="a vector that was saved with a domain gate",
            do="leave out --gate",
        )
    (name, first), *others = gates.items()
    for other_name, other in others:
        if not _equal(first, other):
            raise CompositionError(
                "different gates are stored in these files",
                found=f"{name}: {first}; {other_name}: {other}",
                expected="one gate, fitted on the prompts of all domains",
                do="fit one with steer.domain_gate and save it with every vector",
            )
    return first


def _equal(left: "DomainGate", right: "DomainGate") -> bool:
    ours, theirs = left.centroids, right.centroids
    same = (left.domains, left.layer, left.margin) == (right.domains, right.layer, right.margin)
    return same and ours.shape == theirs.shape and bool((ours == theirs).all())


def _file_and_coefficient(argument: str) -> tuple[Path, float | None]:
    path, colon, number = argument.rpartition(":")
    if not colon:
        return Path(argument), None
    try:
        return Path(path), float(number)
    except ValueError:
        return Path(argument), None


def _print_answers(asked: list[str], plain: list[str] | None, steered: list[str] | None) -> None:
    console = Console()
    if plain is not None and steered is not None:
        table = Table("prompt", "unsteered", "steered", show_lines=True)
        for row in zip(asked, plain, steered, strict=True):
            table.add_row(*row)
        console.print(table, markup=False)
        return
    for text in steered or plain or []:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

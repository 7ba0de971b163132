"""The command line: `steer demo`, `extract`, `generate`, `inspect`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from steer.errors import CompositionError, SteerError, TextError

if TYPE_CHECKING:
    from steer.composition import Composition
    from steer.model import Model
    from steer.pairs import Pairs
    from steer.vector import Vector

app = typer.Typer(
    help="A language model's behaviour as a set of knobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ModelName = Annotated[
    str, typer.Argument(help="Hugging Face id or directory, or 'demo' for the model that ships.")
]
Dtype = Annotated[str, typer.Option(help="Precision to load the model in: auto, float32, …")]
Device = Annotated[str | None, typer.Option(help="Where to load it: cpu, cuda, auto, …")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for vectors and picture.")] = (
        Path("steer-demo")
    ),
    pairs: Annotated[int, typer.Option(help="Preference pairs per domain.", min=2)] = 100,
    questions: Annotated[int, typer.Option(help="Test questions per domain.", min=4)] = 30,
    seed: Annotated[int, typer.Option(help="Seed of pairs, questions and splits.")] = 0,
) -> None:
    """Extract, choose, steer and judge on the small model that ships with the library."""
    console = Console()
    with console.status("load the demo model") as status:
        from steer.demo import load_model
        from steer.demo.report import save, show, timing
        from steer.demo.study import study

        found = study(
            load_model(), n_pairs=pairs, n_questions=questions, seed=seed, say=status.update
        )
        written = save(found, out)
    show(found, console)
    timing(found, console)
    if not any(path.suffix == ".png" for path in written):
        hint = "No picture was drawn. For one: pip install 'residual-steer[plot]'"
        console.print(hint, markup=False, highlight=False, soft_wrap=True)
    for path in written:
        console.print(f"saved {path}", soft_wrap=True, highlight=False)
    console.print("This model is a toy: it shows the mechanics, its figures are not to be quoted.")


@app.command()
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
    lm = _load(model, dtype, device)
    choosing = None if held_out is None else Pairs.load(held_out, domain=domain)
    for name, vector in _extracted(lm, loaded, names, method, at, choosing, kl_budget, console):
        path = Path(out.replace("{domain}", str(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        vector.save(path)
        console.print(vector, markup=False, highlight=False)
        console.print(f"saved {path}", soft_wrap=True, highlight=False)


@app.command()
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
    asked = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise TextError(
            "there is no prompt",
            found="no argument and nothing on standard input",
            expected="at least one prompt",
            do="steer generate MODEL -v FILE:COEF 'a prompt'",
        )
    lm = _load(model, dtype, device)
    plain = lm.generate(asked, max_new_tokens=max_new_tokens) if compare or knobs is None else None
    steered = None
    if knobs is not None:
        with lm.steered(knobs, scope=scope, operator=operator, strict=strict):
            steered = lm.generate(asked, max_new_tokens=max_new_tokens)
    _print_answers(asked, plain, steered)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A vector file.")],
) -> None:
    """Print what a vector file holds; the file is validated, nothing is executed."""
    from steer.vector import Vector

    Console().print(Vector.load(file), markup=False, highlight=False)


@app.command()
def methods() -> None:
    """List the extraction methods, reading positions and operators."""
    from steer.activations import POSITIONS
    from steer.extract import methods as known
    from steer.operator import operators

    table = Table("what", "names", "default")
    table.add_row("method", ", ".join(known()), "palrs")
    table.add_row("at", ", ".join(POSITIONS), "template")
    table.add_row("operator", ", ".join(operators()), "add")
    Console().print(table)


def main() -> None:
    """Run the command line; errors of this library end it with their message and status 1."""
    try:
        app()
    except (SteerError, OSError) as error:
        Console(stderr=True).print(
            f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False
        )
        raise SystemExit(1) from None


def _load(name: str, dtype: str, device: str | None) -> "Model":
    from steer.model import Model

    if name == "demo":
        from steer.demo import load_model

        return load_model()
    options: dict[str, Any] = {"dtype": dtype}
    if device is not None:
        options["device_map"] = device
    return Model.from_pretrained(name, **options)


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
    gates = [vector.gate for vector in loaded.values() if vector.gate is not None]
    if gate and not gates:
        raise CompositionError(
            "no gate is stored in these files",
            found=", ".join(vectors),
            expected="a vector that was saved with a domain gate",
            do="leave out --gate",
        )
    return compose(loaded, gate=gates[0] if gate else None)(coefficients)


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

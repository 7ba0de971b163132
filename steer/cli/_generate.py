"""`steer generate`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from steer._progress import progress_bar
from steer.cli._common import (
    MOST_SEED,
    AsJson,
    Device,
    Dtype,
    Gate,
    Length,
    ModelName,
    Progress,
    Strict,
    load_model,
    print_json,
    say,
    working,
)
from steer.cli._composed import Setting, at_strengths
from steer.errors import TextError
from steer.show._markup import terminal_text

if TYPE_CHECKING:
    from steer.model import Model
    from steer.network import PromptLike

_LEAST = 1e-6  # of a temperature: logits of any model stay far below 1e32


@dataclass(frozen=True, slots=True)
class _Column:
    """The answers to all prompts at one setting; the unsteered ones have no coefficient."""

    coefficients: Setting
    answers: list[str]


def generate(
    model: ModelName,
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts; none: stdin lines.")] = None,
    vector: Annotated[
        list[str] | None,
        typer.Option(
            "--vector",
            "-v",
            help="FILE:COEF, or FILE:-1,0,1 for an answer at each; may be given several times.",
        ),
    ] = None,
    gate: Gate = False,
    scope: Annotated[
        str | None,
        typer.Option(help="all, prompt, response, last_prompt, after:MARKER or before:MARKER."),
    ] = None,
    operator: Annotated[str | None, typer.Option(help="add or ablate.")] = None,
    system: Annotated[str | None, typer.Option(help="System message of every prompt.")] = None,
    max_new_tokens: Length = 64,
    temperature: Annotated[
        float | None, typer.Option(help="Sample at this temperature; 0 is greedy.", min=0)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample among the likeliest, this share.", min=0, max=1)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Sample among this many tokens; 0: all.", min=0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.", min=0, max=MOST_SEED)] = 0,
    batch_size: Annotated[
        int | None, typer.Option(help="Answers written at once; by default all.", min=1)
    ] = None,
    compare: Annotated[bool, typer.Option(help="Print the unsteered answer as well.")] = False,
    strict: Strict = True,
    as_json: AsJson = False,
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Generate answers with vectors injected; greedily unless a sampling option is given."""
    knobs, settings = at_strengths(vector or [], gate)
    asked = prompts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise TextError(
            "there is no prompt",
            found="no argument and nothing on standard input",
            expected="at least one prompt",
            do="steer generate MODEL -v FILE:COEF 'a prompt'",
        )
    options = _sampling(temperature, top_p, top_k)
    options |= {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    with working(progress):
        lm = load_model(model, dtype, device)
        texts = _conversations(asked, system)
        columns = []
        if compare or knobs is None:
            columns.append(_Column({}, _written(lm, texts, options, seed, progress)))
        if knobs is not None:
            rows = [s for s in settings for _ in asked] if len(settings) > 1 else None
            with lm.steered(knobs, rows, scope=scope, operator=operator, strict=strict):
                found = _written(lm, texts * len(settings), options, seed, progress)
            n = len(asked)
            columns += [_Column(s, found[n * k : n * k + n]) for k, s in enumerate(settings)]
        if as_json:
            _print_json(asked, columns, system)
        else:
            _print_answers(asked, columns)


def _sampling(temperature: float | None, top_p: float | None, top_k: int | None) -> dict[str, Any]:
    """Return options of `lm.generate`: greedy without any and at temperature 0."""
    given = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    named = {name: value for name, value in given.items() if value is not None}
    if not named:
        return {}
    if temperature == 0:
        if len(named) > 1:
            raise typer.BadParameter(
                "0 is greedy, with nothing to sample", param_hint="--temperature"
            )
        return {}
    if temperature is not None and temperature < _LEAST:
        raise typer.BadParameter(
            f"logits divided by less than {_LEAST:g} overflow; write 0, which is greedy",
            param_hint="--temperature",
        )
    return {"do_sample": True, "temperature": 1.0, **named}


def _conversations(asked: list[str], system: str | None) -> "list[PromptLike]":
    if system is None:
        return list(asked)
    first = {"role": "system", "content": system}
    return [[first, {"role": "user", "content": text}] for text in asked]


def _written(
    lm: "Model",
    texts: "Sequence[PromptLike]",
    options: Mapping[str, Any],
    seed: int,
    progress: bool,
) -> list[str]:
    """Return answers from a fresh seed, while a bar counts tokens."""
    import torch
    from transformers import StoppingCriteriaList

    from steer.model._random_state import random_state_put_back

    batches = -(-len(texts) // (options.get("batch_size") or len(texts)))
    longest = batches * options["max_new_tokens"]
    with (
        progress_bar(
            progress=progress, total=longest, desc="answers", unit="token", leave=False
        ) as bar,
        random_state_put_back(),
    ):

        def count(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            bar.update()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        torch.manual_seed(seed)
        return lm.generate(texts, stopping_criteria=StoppingCriteriaList([count]), **options)


def _print_json(asked: list[str], columns: list[_Column], system: str | None) -> None:
    """Print one object for each prompt and setting."""
    about = {} if system is None else {"system": system}
    for k, prompt in enumerate(asked):
        for column in columns:
            found = {"coefficients": column.coefficients, "answer": str(column.answers[k])}
            print_json({"prompt": prompt, **about, **found})


def _print_answers(asked: list[str], columns: list[_Column]) -> None:
    """Print one column per setting, or the plain answers where there is one."""
    if len(columns) == 1:
        for text in columns[0].answers:
            say(text)
        return
    several = sum(bool(column.coefficients) for column in columns) > 1
    heads = [_head(column.coefficients, several) for column in columns]
    table = Table("prompt", *(Column(Text(head)) for head in heads), show_lines=True)
    for prompt, *answers in zip(asked, *(column.answers for column in columns), strict=True):
        table.add_row(*(Text(terminal_text(text)) for text in (prompt, *answers)))
    say(table)


def _head(coefficients: Setting, several: bool) -> str:
    """Return the head of a column: its coefficient, by name where there are several vectors."""
    if not coefficients:
        return "unsteered"
    if not several:
        return "steered"
    if len(coefficients) == 1:
        return "".join(f"{c:+g}" for c in coefficients.values())
    return " ".join(f"{terminal_text(name)}={c:+g}" for name, c in coefficients.items())

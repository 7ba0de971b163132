"""`steer eval`."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from steer.cli._common import (
    MOST_SEED,
    AsJson,
    Device,
    Dtype,
    Gate,
    ModelName,
    Progress,
    Strict,
    Vectors,
    load_model,
    print_json,
    say,
    working,
)
from steer.cli._composed import composed
from steer.errors import ArgumentError, HarnessError

if TYPE_CHECKING:
    from steer.algebra import Composition
    from steer.model import Model
    from steer.serving import VLLM


def evaluate(
    model: ModelName,
    tasks: Annotated[
        str, typer.Option(help="Names, with commas between; 'list' prints what there is.")
    ],
    vector: Vectors = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for results and every item.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Documents of each task.", min=1)] = None,
    num_fewshot: Annotated[int | None, typer.Option(help="Worked examples.", min=0)] = None,
    samples: Annotated[int, typer.Option(help="Completions per document, for pass@k.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.", min=0)] = 0.0,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest completion.", min=1)] = None,
    chat: Annotated[bool, typer.Option(help="Prompts go through the chat template.")] = False,
    baseline: Annotated[bool, typer.Option(help="Score the unsteered model as well.")] = True,
    gate: Gate = False,
    batch_size: Annotated[int, typer.Option(help="Texts generated at once.", min=1)] = 8,
    builtin: Annotated[
        bool, typer.Option("--builtin", help="Look up lm-eval's own tasks too; they download.")
    ] = False,
    allow_code_execution: Annotated[
        bool,
        typer.Option("--allow-code-execution", help="Run the model's programs in containers."),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Of worked examples and sampling.", min=0, max=MOST_SEED)
    ] = 0,
    strict: Strict = True,
    as_json: AsJson = False,
    progress: Progress = True,
    dtype: Dtype = "auto",
    device: Device = None,
    engine: Annotated[
        Literal["transformers", "vllm"],
        typer.Option(help="What runs the model; vllm runs all requests of a task in one batch."),
    ] = "transformers",
) -> None:
    """Score a steered model on lm-eval's tasks, beside the unsteered one."""
    from steer.harness import available_tasks, run_harness
    from steer.store import folder_of

    if tasks == "list":
        for name in available_tasks(data):
            say(name)
        return
    if out is not None:
        folder_of(out, HarnessError)
    knobs = composed(vector or [], gate)
    with working(progress), _running(model, engine, knobs, dtype, device) as runs:
        result = run_harness(
            runs,
            knobs,
            [name.strip() for name in tasks.split(",") if name.strip()],
            data=data,
            limit=limit,
            num_fewshot=num_fewshot,
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            apply_chat_template=chat,
            baseline=baseline,
            batch_size=batch_size,
            builtin=builtin,
            allow_code_execution=allow_code_execution,
            seed=seed,
            strict=strict,
            progress=progress,
        )
        written = None if out is None else result.save(out)
        if as_json:
            for row in result.rows:
                print_json(row)
            return
        say(repr(result))
        if written is not None:
            say(f"written: {written}")


def _running(
    model: str, engine: str, knobs: "Composition | None", dtype: str, device: str | None
) -> "AbstractContextManager[Model | VLLM]":
    """Return the model in the engine that was named, which stops at the end of the context."""
    if engine == "transformers":
        return nullcontext(load_model(model, dtype, device))
    if device is not None or knobs is None:
        raise ArgumentError(
            "this cannot be run with --engine vllm",
            found="no vector" if knobs is None else f"--device {device}",
            expected="at least one vector, on the device that vLLM was built for",
            do="pass -v FILE:COEF" if knobs is None else "leave --device out",
        )
    from steer.serving import VLLM

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # results go to stdout
    return VLLM(model, knobs, dtype=dtype)

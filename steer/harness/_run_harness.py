"""Running lm-eval on a steered model, with the unsteered one beside it."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steer import _check
from steer.algebra import Composition, Part, Vector, as_composition
from steer.engine import unsteered
from steer.engine._base import check_evaluating, in_place
from steer.errors import ArgumentError, CapabilityError, HarnessError
from steer.harness._language_model import language_model
from steer.harness._load import load_tasks, runs_programs
from steer.harness._result import Condition, HarnessResult
from steer.model import Model, check_model
from steer.model._random_state import random_state_put_back
from steer.serving import VLLM
from steer.show import Row
from steer.show._json import plain

_BOOTSTRAP = 1000  # resamples, for metrics without a closed form of their standard error


def run_harness(
    model: Model | VLLM,
    what: Vector | Part | Composition | Mapping[str, Vector | Part] | None,
    tasks: str | Sequence[str],
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int | None = None,
    apply_chat_template: bool = False,
    system: str | None = None,
    baseline: bool = True,
    batch_size: int = 8,
    builtin: bool = False,
    allow_code_execution: bool = False,
    seed: int = 0,
    strict: bool = True,
    progress: bool = True,
) -> HarnessResult:
    """Score a steered model on tasks of lm-eval, beside the same model unsteered.

    Both see the same documents, worked examples and seed. Nothing is downloaded for the tasks that
    ship: they read the data sets from a folder.

    Args:
        model: The model, in evaluation mode and not steered; or a `steer.serving.VLLM` with the
            vectors of `what`.
        what: What to steer with, as `model.steered` takes it; None scores the unsteered model.
        tasks: One or several: names as `available_tasks` gives them, paths of task files, or with
            `builtin` names of lm-eval's own tasks.
        data: Folder of the data sets.
        limit: Documents of each task, all by default.
        num_fewshot: Worked examples before each document; None is what the task says, and a task
            that says 0 keeps it.
        samples: Completions drawn for each document; more than one for pass@k.
        temperature: Temperature they are drawn at; 0 is greedy.
        max_new_tokens: Longest completion, tokens; None is what the task says.
        apply_chat_template: Whether prompts go through the chat template.
        system: System message, or text before everything.
        baseline: Whether the unsteered model is scored as well.
        batch_size: Texts generated at once; vLLM decides itself.
        builtin: Whether lm-eval's own tasks are looked up as well; most of them download.
        allow_code_execution: Whether programs that the model writes may be run, which they are in
            containers only.
        seed: Seed of worked examples and sampling; global random state is put back.
        strict: Whether vectors of another model family are refused; vLLM checks their width alone.
        progress: Whether to show progress bars.

    Returns:
        Scores with standard errors, and every item.

    Raises:
        MissingExtraError: lm-eval is not installed, or Inspect for tasks that run programs.
        ArgumentError: A number is out of range.
        HarnessError: An unknown task, missing data, programs that were not allowed, or a model in
            training mode.
        SteeringError: The model is being steered.
        CapabilityError: Coefficient rows, since a harness reorders what it runs; or a task runs
            programs and no container engine answers.
    """
    from transformers import set_seed

    composition = None if what is None else as_composition(what)
    _check_model(model, composition)
    _check.integer("batch_size", batch_size, least=1)
    options = {
        "limit": limit,
        "num_fewshot": num_fewshot,
        "samples": samples,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "apply_chat_template": apply_chat_template,
        "system": system,
        "seed": seed,
    }
    generation = _generation(options)
    conditions: dict[Condition, Composition | None] = {}
    if baseline or composition is None:
        conditions["unsteered"] = None
    if composition is not None:
        conditions["steered"] = composition
    scores: dict[Condition, Mapping[str, Mapping[str, Any]]] = {}
    items: dict[Condition, Mapping[str, Sequence[Row]]] = {}
    with random_state_put_back(), _quiet():
        loaded = load_tasks(
            [tasks] if isinstance(tasks, str) else tasks,
            data=data,
            builtin=builtin,
            allow_code_execution=allow_code_execution,
            num_fewshot=num_fewshot,
            samples=samples,
            generation=generation,
        )
        for condition, steered in conditions.items():
            lm = language_model(
                model.at(model.composition(0.0) if steered is None else steered)
                if isinstance(model, VLLM)
                else model,
                batch_size=batch_size,
                chat=apply_chat_template,
                rolling=_everywhere(steered),
                label=condition,
                progress=progress,
                seed=seed,
            )
            set_seed(seed)
            hooked = None if isinstance(model, VLLM) else model
            with (
                nullcontext()
                if steered is None or hooked is None
                else hooked.steered(steered, strict=strict)
            ):
                found = _evaluate(lm, loaded, options)
            scores[condition] = found["results"]
            items[condition] = {name: plain(entries) for name, entries in found["samples"].items()}
    settings = {
        "model": model.model_id if isinstance(model, VLLM) else model.info.model_id,
        "engine": "vllm" if isinstance(model, VLLM) else model.engine.name,
        "composition": _described(composition),
        **options,
        "tasks": list(loaded),
        "num_fewshot": {name: task.get_config("num_fewshot") for name, task in loaded.items()},
        "sandbox": "docker" if any(map(runs_programs, loaded.values())) else None,
        "lm_eval": version("lm_eval"),
    }
    return HarnessResult(scores, items, settings)


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return lm-eval's options of generating, after a check of all numbers."""
    _check.integer("samples", options["samples"], least=1)
    temperature = _check.number("temperature", options["temperature"], least=0)
    for name, least in (("limit", 1), ("num_fewshot", 0), ("max_new_tokens", 1)):
        if options[name] is not None:
            _check.integer(name, options[name], least=least)
    if options["samples"] > 1 and temperature == 0:
        raise ArgumentError(
            "several samples of a greedy model are all the same",
            found=f"samples={options['samples']}, temperature={temperature:g}",
            expected="one sample, or a temperature above 0",
            do="pass for instance samples=20, temperature=0.8",
        )
    longest = options["max_new_tokens"]
    found = {} if longest is None else {"max_gen_toks": longest}
    return found | ({"do_sample": True, "temperature": temperature} if temperature > 0 else {})


def _check_model(model: Model | VLLM, composition: Composition | None) -> None:
    _check.need("an evaluation harness", "lm_eval", extra="eval")
    if not isinstance(model, VLLM):
        check_model(model)
        in_place(model.engine, "a harness")
    if composition is not None and composition.per_row:
        raise CapabilityError(
            "coefficient rows cannot be used in a harness",
            found=f"{len(composition.coefficients)} rows",
            expected="one setting: a harness sorts and groups its requests",
            do="run the harness once for each setting",
        )
    if isinstance(model, VLLM):
        model.at(model.composition if composition is None else composition)
        return
    unsteered(model.engine, "a harness")
    check_evaluating(model.architecture, HarnessError)


def _everywhere(composition: Composition | None) -> bool:
    """Return whether no part of a composition depends on where a prompt ends."""
    if composition is None:
        return True
    scopes = [part.scope for part in composition.parts.values()]
    return composition.gate is None and not any(scope.needs_prompt_lengths for scope in scopes)


def _evaluate(lm: Any, tasks: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate

    for task in tasks.values():
        task.set_fewshot_seed(seed=options["seed"])
    found: dict[str, Any] = evaluate(
        lm=lm,
        task_dict={"tasks": dict(tasks)},
        limit=options["limit"],
        bootstrap_iters=_BOOTSTRAP,
        system_instruction=options["system"],
        apply_chat_template=options["apply_chat_template"],
        fewshot_as_multiturn=options["apply_chat_template"],
    )
    return found


def _described(composition: Composition | None) -> str:
    if composition is None:
        return "nothing"
    named = zip(composition.parts.items(), composition.coefficients[0].tolist(), strict=True)
    parts = [f"{name} × {c:g} ({part.operator}, {part.scope})" for (name, part), c in named]
    return " + ".join(parts) + ("" if composition.gate is None else ", gated")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notices of lm-eval and its bars for reading files and building prompts."""
    import lm_eval.api.task as tasks
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger, bar = logging.getLogger("lm_eval"), tasks.tqdm
    level, hidden = logger.level, are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    tasks.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        tasks.tqdm = bar
        logger.setLevel(level)
        if not hidden:
            enable_progress_bars()

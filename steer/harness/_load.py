"""From names of tasks to lm-eval's tasks, ready to be run."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer.errors import HarnessError
from steer.harness._files import locate
from steer.store import path_of

TASK_FILES = Path(__file__).parent / "tasks"
_PERSONA = "persona"


@dataclass(frozen=True, slots=True)
class Shape:
    """How every task is run, where that differs from its file.

    Args:
        limit: Documents of each task, None for all.
        num_fewshot: Worked examples before each document; None is what the task says, and a task
            that says 0 keeps it.
        samples: Completions drawn for each document.
        temperature: Temperature they are drawn at; 0 is greedy.
        max_new_tokens: Longest completion; None is what the task says.
        apply_chat_template: Whether prompts go through the chat template.
        system: System message, or text before everything.
        seed: Seed of worked examples and sampling.

    Raises:
        HarnessError: No document, no sample, several samples at temperature 0, or a number that
            is negative.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int | None = None
    apply_chat_template: bool = False
    system: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise HarnessError(
                "there is nothing to score",
                found=f"limit={self.limit}",
                expected="at least one document, or None for all",
                do="leave limit out, or make it larger",
            )
        shots, tokens = self.num_fewshot, self.max_new_tokens
        if (
            self.samples < 1
            or not (math.isfinite(self.temperature) and self.temperature >= 0)
            or (shots is not None and shots < 0)
            or (tokens is not None and tokens < 1)
        ):
            raise HarnessError(
                "tasks cannot be run like this",
                found=f"samples={self.samples}, temperature={self.temperature:g}, "
                f"num_fewshot={shots}, max_new_tokens={tokens}",
                expected="at least one sample and one token, and nothing below 0",
                do="leave the defaults, or make them larger",
            )
        if self.samples > 1 and self.temperature == 0:
            raise HarnessError(
                "several samples of a greedy model are all the same",
                found=f"samples={self.samples}, temperature={self.temperature:g}",
                expected="one sample, or a temperature above 0",
                do="pass for instance samples=20, temperature=0.8",
            )


def available_tasks(data: str | Path | None = None) -> tuple[str, ...]:
    """Return the names of the tasks that ship.

    Args:
        data: Folder of the data sets; with it, the personas found there are named one by one.
    """
    names = sorted(path.stem for path in TASK_FILES.glob("*.yaml"))
    names.remove(_PERSONA)
    if data is None:
        return (*names, f"{_PERSONA}:NAME")
    folder = Path(os.path.expanduser(path_of(data, HarnessError))) / "anthropic_evals"
    found = {p.name.split(".")[0] for place in (folder, folder / "raw") for p in _lines(place)}
    return (*names, *(f"{_PERSONA}:{name}" for name in sorted(found)))


def load_tasks(
    names: Sequence[str], *, data: str | Path | None, builtin: bool, shape: Shape
) -> dict[str, Any]:
    """Return lm-eval's tasks by name.

    Args:
        names: Names of tasks that ship, `persona:NAME`, paths of task files (.yaml), or with
            `builtin` the names of lm-eval's own tasks and groups.
        data: Folder of the data sets.
        builtin: Whether lm-eval's own tasks are looked up as well; most of them download.
        shape: How they are run.

    Returns:
        The tasks, in the order asked for.

    Raises:
        HarnessError: No name, an unknown one, or a file that is missing or unreadable.
    """
    from lm_eval.tasks import TaskManager

    folder = None if data is None else str(path_of(data, HarnessError))
    manager = TaskManager(
        include_path=str(TASK_FILES), include_defaults=builtin, metadata={"data": folder}
    )
    known = set(manager.all_tasks)
    tasks: dict[str, Any] = {}
    for name in names:
        if name.startswith(f"{_PERSONA}:"):
            tasks[name] = _persona(name, folder)
            continue
        is_file = name.endswith((".yaml", ".yml")) and os.path.isfile(name)
        if not is_file and name not in known:
            raise _unknown(name, data)
        tasks |= manager.load([name])["tasks"]
    if not tasks:
        raise _unknown("no name", data)
    for task in tasks.values():
        _shaped(task, shape)
    return tasks


def _persona(name: str, folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager

    persona = name.partition(":")[2]
    if folder is not None and persona and f"{_PERSONA}:{persona}" not in available_tasks(folder):
        locate(folder, f"anthropic_evals/{persona}.jsonl")  # says what is missing where
    manager = TaskManager(
        include_path=str(TASK_FILES),
        include_defaults=False,
        metadata={"data": folder, _PERSONA: persona},
    )
    (task,) = manager.load([_PERSONA])["tasks"].values()
    task.set_config("task", name)
    return task


def _shaped(task: Any, shape: Shape) -> None:
    own = task.get_config("num_fewshot")
    shots = own or 0 if shape.num_fewshot is None or own == 0 else shape.num_fewshot
    task.set_config("num_fewshot", shots)
    there = len(task.fewshot_docs() or ()) if shots else 0
    if shots > there:
        raise HarnessError(
            f"{task.task_name} has too few worked examples",
            found=f"{there} for num_fewshot={shots}",
            expected="at least as many as are shown",
            do="pass a smaller num_fewshot",
        )
    if task.OUTPUT_TYPE == "generate_until":
        options: Mapping[str, Any] = {}
        if shape.max_new_tokens is not None:
            options = {"max_gen_toks": shape.max_new_tokens}
        if shape.temperature > 0:
            options = {**options, "do_sample": True, "temperature": shape.temperature}
        task.set_config("generation_kwargs", options, update=True)
        task.set_config("repeats", shape.samples)


def _unknown(name: str, data: str | Path | None) -> HarnessError:
    return HarnessError(
        "there is no such task",
        found=name,
        expected=" | ".join(available_tasks(data)),
        do="name one of these, the path of a task file (.yaml), or with builtin=True (--builtin) "
        "a task of lm-eval itself",
    )


def _lines(folder: Path) -> list[Path]:
    return [*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]

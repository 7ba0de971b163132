"""From names of tasks to lm-eval's tasks, ready to be run."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from steer.errors import CapabilityError, HarnessError
from steer.harness._programs import check_sandbox
from steer.store import path_of

TASK_FILES = Path(__file__).parent / "tasks"
_PERSONA = "persona"


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
    files = [path for place in (folder, folder / "raw") for path in place.glob("*.jsonl*")]
    personas = sorted({path.name.split(".")[0] for path in files})
    return (*names, *(f"{_PERSONA}:{name}" for name in personas))


def load_tasks(
    names: Sequence[str],
    *,
    data: str | Path | None,
    builtin: bool,
    allow_code_execution: bool,
    num_fewshot: int | None,
    samples: int,
    generation: Mapping[str, Any],
) -> dict[str, Any]:
    """Return lm-eval's tasks by name, in the order asked for, with options of this run.

    Raises:
        HarnessError: No name, an unknown one, a file that is missing or unreadable, or programs
            that may not be run.
        CapabilityError: Programs that cannot be run in a container.
    """
    tasks = {task.config.task: task for name in names for task in tasks_of(name, data, builtin)}
    if not tasks:
        raise _unknown("no name", data)
    _check_programs(tasks, allow_code_execution)
    for task in tasks.values():
        _set_options(task, num_fewshot, samples, generation)
    return tasks


def tasks_of(name: str, data: str | Path | None, builtin: bool = False) -> list[Any]:
    """Return the tasks that a name, a path or `persona:NAME` stands for; several for a group."""
    base, persona = (_PERSONA, name[8:]) if name.startswith("persona:") else (name, None)
    folder = None if data is None else str(path_of(data, HarnessError))
    manager = _manager(folder, persona, builtin and persona is None)
    is_file = base.endswith((".yaml", ".yml")) and os.path.isfile(base)
    if persona == "" or (not is_file and base not in manager.all_tasks):
        raise _unknown(name, data)
    found = list(manager.load([base])["tasks"].values())
    if persona:
        found[0].set_config("task", name)
    return found


@lru_cache(maxsize=2)  # to index lm-eval's own tasks takes seconds
def _manager(folder: str | None, persona: str | None, builtin: bool) -> Any:
    from lm_eval.tasks import TaskManager

    metadata = {"data": folder, "persona": persona}
    return TaskManager(include_path=str(TASK_FILES), include_defaults=builtin, metadata=metadata)


def runs_programs(task: Any) -> bool:
    """Return whether a task runs what the model writes, in the container sandbox."""
    return bool((task.config.metadata or {}).get("programs"))


def _check_programs(tasks: Mapping[str, Any], allowed: bool) -> None:
    """Refuse programs that were not allowed, and tasks that would run them without a sandbox."""
    unsafe = [name for name, task in tasks.items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe:
        raise CapabilityError(
            "these tasks run programs that the model writes on this machine, without a sandbox",
            found=", ".join(unsafe),
            expected="tasks that run programs in a container",
            do="take humaneval, humaneval_chat or mbpp of steer.harness, or leave these tasks out",
        )
    programs = [name for name, task in tasks.items() if runs_programs(task)]
    if programs and not allowed:
        raise HarnessError(
            "these tasks run programs that the model writes",
            found=", ".join(programs),
            expected="an explicit permission",
            do="pass allow_code_execution=True, or leave these tasks out",
        )
    if programs:
        check_sandbox(programs)


def _set_options(
    task: Any, num_fewshot: int | None, samples: int, generation: Mapping[str, Any]
) -> None:
    """Set what differs from a task's file; a task that shows no worked examples keeps to that."""
    own = task.get_config("num_fewshot")
    shots = own or 0 if num_fewshot is None or own == 0 else num_fewshot
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
        task.set_config("generation_kwargs", dict(generation), update=True)
        task.set_config("repeats", samples)


def _unknown(name: str, data: str | Path | None) -> HarnessError:
    return HarnessError(
        "there is no such task",
        found=name,
        expected=" | ".join(available_tasks(data)),
        do="name one of these, the path of a task file (.yaml), or with builtin=True a task of "
        "lm-eval itself",
    )

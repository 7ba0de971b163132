"""lm-eval on a steered model, with tasks that read local files and run programs in containers."""

from steer.errors import HarnessError
from steer.harness._load import TASK_FILES, available_tasks
from steer.harness._programs import pass_at_k
from steer.harness._result import HarnessResult
from steer.harness._run import run_harness

__all__ = [
    "TASK_FILES",
    "HarnessError",
    "HarnessResult",
    "available_tasks",
    "pass_at_k",
    "run_harness",
]

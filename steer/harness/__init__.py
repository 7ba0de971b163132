"""Evaluation harnesses on a steered model: lm-eval, and a provider for Inspect."""

from steer.errors import HarnessError
from steer.harness._load import TASK_FILES, available_tasks
from steer.harness._programs import pass_at_k
from steer.harness._result import HarnessResult
from steer.harness._run_harness import run_harness

__all__ = [
    "TASK_FILES",
    "HarnessError",
    "HarnessResult",
    "available_tasks",
    "pass_at_k",
    "run_harness",
]

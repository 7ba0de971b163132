"""lm-eval on a steered model, with task files that read local data and a local sandbox."""

from steer.errors import HarnessError
from steer.harness._estimate import pass_at_k
from steer.harness._load import TASK_FILES, available_tasks
from steer.harness._result import HarnessResult, Score
from steer.harness._run import run_harness
from steer.harness._sandbox import SandboxLimits, Verdict, code_execution, isolation, run_programs

__all__ = [
    "TASK_FILES",
    "HarnessError",
    "HarnessResult",
    "SandboxLimits",
    "Score",
    "Verdict",
    "available_tasks",
    "code_execution",
    "isolation",
    "pass_at_k",
    "run_harness",
    "run_programs",
]

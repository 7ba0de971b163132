"""Search by Optuna, in a storage of its own that resumes and that several processes share."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steer.errors import MissingExtraError, SelectionError
from steer.files import folder_made, target_of
from steer.selection.field import Field
from steer.selection.setting import SettingResult
from steer.selection.space import Index
from steer.selection.task import Task

if TYPE_CHECKING:
    import optuna

_REQUEST, _TRIED = "request", "tried"


@dataclass(frozen=True, slots=True)
class Optuna:
    """Optuna's tree-structured Parzen estimator, asked for some settings at a time.

    A study is told the objective and, for each limit, by how much it is exceeded. Everything
    measured is kept in it, so that a repeated call goes on from there, and processes that share
    a storage share what they find: the budget is that of the study. A study of another request
    is refused.

    Args:
        storage: A file that is appended to, also on a network drive; or a URL such as
            `sqlite:///study.db` or `postgresql://…`; None keeps the study in memory.
        study: Name of the study in the storage.
        worker: Number of this process among those that share the study; each draws differently.
        together: Settings asked for and measured at a time.
        budget: The most settings tried, over all processes, where the call says nothing.
    """

    storage: str | Path | None = None
    study: str = "select"
    worker: int = 0
    together: int = 16
    budget: int = 256

    def search(self, tasks: Sequence[Task], field: Field | None = None) -> None:
        """Measure settings until the study holds as many as the budget, or all there are.

        Args:
            tasks: The one candidate's.
            field: Not needed.

        Raises:
            MissingExtraError: Optuna is not installed.
            SelectionError: There are several candidates, the storage cannot be used, the study
                belongs to another request, or a storage is named and the objective has no name of
                its own (a lambda, a partial).
        """
        if len(tasks) != 1:
            raise SelectionError(
                "a study holds the settings of one candidate",
                found=f"{len(tasks)} candidates",
                expected="one composition, or one vector at one layer",
                do="strategy='race' tries alternatives",
            )
        (task,) = tasks
        if self.storage is not None and not task.fingerprint:
            raise SelectionError(
                "this study cannot be stored: its objective's name does not tell it from others",
                found="a lambda, a partial, or a function inside a function",
                expected="a function that is defined at the top of a module",
                do="give it a name, def my_objective(measured): …, or leave storage out",
            )
        most = min(self.budget if task.budget is None else task.budget, len(task.space))
        with _quiet(_optuna()) as optuna:
            study = self._study(optuna, task)
            self._known(study, task)
            while len(task.tried) < most:
                self._round(study, task, min(self.together, most - len(task.tried)))
                self._known(study, task)

    def _study(self, package: Any, task: Task) -> "optuna.Study":
        study, known, before = self._opened(package)
        if known is None and not before:
            study.set_user_attr(_REQUEST, task.fingerprint)
        elif known != task.fingerprint:
            raise SelectionError(
                f"the study {self.study!r} belongs to another request",
                found=f"fingerprint {known}",
                expected=f"{task.fingerprint}: this model, composition, pairs, grid, limits and "
                "objective, with its code and the values it uses",
                do="name another study or storage, or repeat the request it was begun with",
            )
        # a resumed study goes on drawing, it does not draw again
        seed = f"{task.seed} {self.worker} {before}"
        drawn = random.Random(seed).randrange(2**32)
        study.sampler = package.samplers.TPESampler(seed=drawn)
        return cast("optuna.Study", study)

    def _opened(self, package: Any) -> tuple[Any, Any, int]:
        """Return the study, the request it was begun with, and the number of its trials."""
        try:
            storage = self.storage
            if isinstance(storage, Path) or (isinstance(storage, str) and "://" not in storage):
                path = target_of(storage, SelectionError)
                folder_made(path.parent, SelectionError)
                backend = package.storages.journal.JournalFileBackend(str(path))
                storage = package.storages.JournalStorage(backend)
            study = package.create_study(
                storage=storage, study_name=self.study, load_if_exists=True, direction="maximize"
            )
            return study, study.user_attrs.get(_REQUEST), len(study.get_trials(deepcopy=False))
        except SelectionError:
            raise
        except Exception as error:  # of Optuna, of a database or its driver, or of a damaged file
            before, url, _ = str(self.storage).partition("://")  # after it, perhaps a password
            raise SelectionError(
                f"the storage {before}{url} cannot be used",
                found=f"{type(error).__name__}: {error}"[:300],
                expected="a file that Optuna wrote, or none yet; or the URL of a database",
                do="name another storage, or move the file away; the search then starts anew",
            ) from error

    def _known(self, study: "optuna.Study", task: Task) -> None:
        """Take over what the study holds."""
        for trial in study.get_trials(deepcopy=False):
            if _TRIED in trial.user_attrs:
                index = tuple(trial.params[domain] for domain in task.space.domains)
                task.take(index, _tried(trial.user_attrs[_TRIED]))

    def _round(self, study: "optuna.Study", task: Task, count: int) -> None:
        """Ask for settings, try those that are new, and tell the study of all."""
        asked = [self._asked(study, task) for _ in range(count)]
        if all(index in task.tried for _, index in asked):
            drawn = self._unknown(task)
            study.enqueue_trial(dict(zip(task.space.domains, drawn, strict=True)))
            asked.append(self._asked(study, task))
        task.evaluate(index for _, index in asked)
        for trial, index in asked:
            found = task.tried[index]
            trial.set_user_attr(_TRIED, _kept(found))
            if not found.finite:
                study.tell(trial, state=_optuna().trial.TrialState.FAIL)
                continue
            for name, by in task.limits.excess(found).items():
                trial.set_constraint(name, by)
            study.tell(trial, found.objective)

    def _unknown(self, task: Task) -> Index:
        """Draw a setting that has not been tried; there is one. The space is never listed."""
        generator = random.Random(f"{task.seed} {self.worker} {len(task.tried)}")
        while True:
            drawn = tuple(generator.randrange(n) for n in task.space.shape)
            if drawn not in task.tried:
                return drawn

    def _asked(self, study: "optuna.Study", task: Task) -> tuple["optuna.Trial", Index]:
        trial = study.ask()
        named = zip(task.space.domains, task.space.shape, strict=True)
        return trial, tuple(trial.suggest_int(domain, 0, n - 1) for domain, n in named)


def _kept(tried: SettingResult) -> dict[str, Any]:
    return {
        "coefficients": list(tried.coefficients),
        "objective": tried.objective,
        "measured": {name: dict(numbers) for name, numbers in tried.measured.items()},
        "mean": tried.mean,
        "off_target": tried.off_target,
        "kl": tried.kl,
        "perplexity": tried.perplexity,
    }


def _tried(kept: dict[str, Any]) -> SettingResult:
    return SettingResult(**{**kept, "coefficients": tuple(kept["coefficients"])})


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "this search needs Optuna",
            found="it is not installed",
            expected="the extra 'search'",
            do="pip install 'residual-steer[search]', or how='coarse_to_fine'",
        ) from error
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[Any]:
    """Let Optuna say nothing of each trial, and put its verbosity back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)

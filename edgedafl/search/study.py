"""What is to be tried, what was, and who is trying: kept by Optuna in a journal on disk.

Several workers, also on several machines with a common folder, share one sweep. A worker holds a
lock of its own for as long as it lives, so that others can tell a trial that is being run from one
whose worker was killed.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from edgedafl.errors import EnvironmentMissingError
from edgedafl.files import digest_of

__all__ = ["Space", "Study", "has_study"]

_STUDY = "edgedafl"
_JOURNAL = "trials.journal"


@dataclass(frozen=True)
class Space:
    """What is tried: every combination, or as many as asked for.

    Attributes:
        students: Student names.
        targets: Target names or aliases.
        seeds: Seeds of everything random.
    """

    students: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]

    def parameter(self, name: str) -> str:
        """Optuna's name: a parameter may not change its choices, so another space has other names."""
        return f"{name} {digest_of(asdict(self))[:8]}"

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """By what a point is made of."""
        return {"student": self.students, "target": self.targets, "seed": self.seeds}

    def points(self) -> list[dict[str, Any]]:
        """All combinations."""
        return [dict(zip(self.choices, point, strict=True)) for point in itertools.product(*self.choices.values())]


def has_study(folder: Path) -> bool:
    """Whether a sweep was begun there.

    Examples:
        >>> import tempfile
        >>> has_study(Path(tempfile.mkdtemp()))
        False
    """
    return (folder / _JOURNAL).is_file()


class Study:
    """The trials of one folder.

    Args:
        folder: Of the sweep.
        seed: Of Optuna's own choices.

    Raises:
        EnvironmentMissingError: If Optuna is not installed.

    Examples:
        >>> import tempfile
        >>> Study(Path(tempfile.mkdtemp()), seed=0).results()
        []
    """

    def __init__(self, folder: Path, seed: int | None = None) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError as error:
            raise EnvironmentMissingError(
                "Sweeps need Optuna.", "Install it: pip install 'edgedafl[search]'."
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._folder, self._states = folder, optuna.trial.TrialState
        self._study = optuna.create_study(
            study_name=_STUDY,
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / _JOURNAL))),
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True),
            directions=["maximize", "minimize", "minimize"],
            load_if_exists=True,
        )

    def enqueue(self, space: Space, limit: int | None = None) -> None:
        """Put combinations on the list that are neither done nor waiting nor being run.

        None where Optuna chooses, which it does if there are more of them than `limit`.
        """
        with self._alone():
            for trial in self._study.trials:
                if trial.state == self._states.RUNNING and self._is_gone(trial.user_attrs.get("worker")):
                    # Its worker was killed; the run directory goes on from its checkpoint.
                    self._study.tell(trial.number, state=self._states.FAIL)
            if limit is not None and limit < len(space.points()):
                return
            open_ = (self._states.WAITING, self._states.RUNNING)
            known = [t.user_attrs["point"] for t in self._study.trials if "trial" in t.user_attrs or t.state in open_]
            for point in space.points():
                if point not in known:
                    self._study.enqueue_trial({}, user_attrs={"point": point})

    @contextlib.contextmanager
    def worker(self) -> Iterator[str]:
        """A name under which trials are taken; known to be alive while it is held."""
        name = uuid.uuid4().hex
        with filelock.FileLock(self._lock_of(name)) as lock:
            yield name
            Path(lock.lock_file).unlink()

    def take(self, worker: str, space: Space, limit: int) -> Any | None:
        """The next trial for a worker, its combination in `user_attrs["point"]`; None when all are taken.

        Args:
            worker: Its name.
            space: What there is to choose from.
            limit: How many trials at most; combinations beyond those waiting are Optuna's choice.
        """
        with self._alone():
            states = [t.state for t in self._study.get_trials(deepcopy=False)]
            begun = sum(state not in (self._states.WAITING, self._states.FAIL) for state in states)
            chooses = limit < len(space.points()) and begun < limit
            if self._states.WAITING not in states and not chooses:
                return None
            trial = self._study.ask()
            trial.set_user_attr("worker", worker)
            if "point" not in trial.user_attrs:
                point = {n: trial.suggest_categorical(space.parameter(n), own) for n, own in space.choices.items()}
                trial.set_user_attr("point", point)
            return trial

    def finish(self, trial: Any, found: dict[str, Any], values: tuple[float, float, float]) -> None:
        """Keep a trial's result, and what it is judged by: agreement, size, latency."""
        trial.set_user_attr("trial", found)
        self._study.tell(trial, values)

    def fail(self, trial: Any, text: str) -> None:
        """Keep why a trial failed."""
        trial.set_user_attr("failed", text)
        self._study.tell(trial, state=self._states.FAIL)

    def results(self) -> list[dict[str, Any]]:
        """What was kept of finished trials."""
        return [t.user_attrs["trial"] for t in self._study.trials if "trial" in t.user_attrs]

    def failures(self) -> list[tuple[dict[str, Any], str]]:
        """Combinations that failed, and why."""
        attributes = (t.user_attrs for t in self._study.trials)
        return [(a["point"], str(a["failed"])) for a in attributes if "failed" in a]

    def _alone(self) -> filelock.BaseFileLock:
        """To look and take without another worker in between."""
        return filelock.FileLock(self._folder / ".lock")

    def _lock_of(self, worker: str) -> Path:
        folder = self._folder / "workers"
        folder.mkdir(exist_ok=True)
        return folder / f"{worker}.lock"

    def _is_gone(self, worker: str | None) -> bool:
        if worker is None:
            return True
        path = self._lock_of(worker)
        try:
            with filelock.FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
                return True
        except filelock.Timeout:
            return False

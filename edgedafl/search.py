"""Sweeps over students, targets and seeds, and the front of those worth having.

Every trial is a run directory of its own, made by the same pipeline as a single run. Which trials
are done is kept by Optuna in a journal on disk, so that several workers, also on several machines
with a common folder, share one sweep and an interrupted one goes on.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgedafl.config import CompressConfig
from edgedafl.errors import DistillationError, EdgeDaflError, EnvironmentMissingError, UsageError
from edgedafl.rundir import RunDirectory, digest_of, write_atomic
from edgedafl.targets import find_target

__all__ = ["Space", "Sweep", "Trial", "front_rows", "pareto_front", "read_sweep", "search"]

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

    def points(self) -> list[dict[str, Any]]:
        """All combinations."""
        every = itertools.product(self.students, self.targets, self.seeds)
        return [{"student": student, "target": target, "seed": seed} for student, target, seed in every]


@dataclass(frozen=True)
class Trial:
    """One finished run of a sweep.

    Attributes:
        student: Its student.
        target: The target's name.
        seed: Its seed.
        agreement: Synthetic agreement of the artifact, in [0, 1].
        size: Bytes of the artifact.
        latency: Seconds per image, estimated for the target.
        directory: The run directory.
        front: Whether no other trial for its target is at least as good in all three.
    """

    student: str
    target: str
    seed: int
    agreement: float
    size: int
    latency: float
    directory: str
    front: bool = False


@dataclass(frozen=True)
class Sweep:
    """All of a sweep.

    Attributes:
        trials: Finished ones, best agreement first.
        failed: Sentences of those that failed, by combination.
    """

    trials: tuple[Trial, ...]
    failed: dict[str, str]


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials with `front` set where none for the same target beats them.

    One trial beats another when it is nowhere worse and somewhere better in agreement, size and
    latency.
    """
    found = list(trials)
    return [replace(t, front=not any(_beats(o, t) for o in found)) for t in found]


def _beats(other: Trial, trial: Trial) -> bool:
    if other.target != trial.target:
        return False
    pairs = (
        (other.agreement, trial.agreement),
        (-other.size, -trial.size),
        (-other.latency, -trial.latency),
    )
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def search(
    source: str,
    config: CompressConfig,
    space: Space,
    *,
    workers: int = 1,
    trials: int | None = None,
    notice: Callable[[str], None] = lambda text: None,
) -> Sweep:
    """Run a sweep, or go on with one.

    Args:
        source: The teacher as the user named it.
        config: What all trials share; `output` is the sweep's folder.
        space: What differs between them.
        workers: Processes that run trials at the same time, `config.threads` threads each.
        trials: How many at most; Optuna then chooses which combinations are worth it.
        notice: Called with a sentence per trial.

    Raises:
        UsageError: If the folder holds another sweep, or a target is unknown.
        EnvironmentMissingError: If Optuna is not installed.
    """
    for target in space.targets:
        find_target(target)
    _claim(source, config)
    study = _study(config.output, seed=config.seed)
    _enqueue(study, space, trials)
    limit = len(space.points()) if trials is None else trials
    arguments = (source, config, space, limit)
    if workers == 1:
        _work(*arguments, notice)
    else:
        context = multiprocessing.get_context("spawn")
        crew = [context.Process(target=_work, args=arguments) for _ in range(workers)]
        for worker in crew:
            worker.start()
        for worker in crew:
            worker.join()
        if any(worker.exitcode for worker in crew):
            raise DistillationError(
                f"{sum(bool(w.exitcode) for w in crew)} of {workers} workers ended early; finished trials are kept.",
                "See their messages above; the same command goes on with the sweep.",
            )
    return read_sweep(config.output)


def read_sweep(folder: Path) -> Sweep:
    """What a sweep has found so far; also writes `search.json`.

    Raises:
        UsageError: If the folder holds no sweep.
    """
    if not (folder / _JOURNAL).is_file():
        raise UsageError(f"{str(folder)!r} holds no sweep.", "Give the folder that `edgedafl search -o` wrote.")
    study = _study(folder)
    done = [Trial(**t.user_attrs["trial"]) for t in study.trials if "trial" in t.user_attrs]
    latest = {(t.student, t.target, t.seed): t for t in done}
    failed = {
        _name_of(t.user_attrs["point"]): str(t.user_attrs["failed"])
        for t in study.trials
        if "failed" in t.user_attrs and tuple(t.user_attrs["point"].values()) not in latest
    }
    trials = tuple(sorted(pareto_front(latest.values()), key=lambda t: -t.agreement))
    sweep = Sweep(trials, failed)
    write_atomic(folder / "search.json", json.dumps(asdict(sweep), indent=2) + "\n")
    return sweep


def _study(folder: Path, seed: int | None = None) -> Any:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise EnvironmentMissingError("Sweeps need Optuna.", "Install it: pip install 'edgedafl[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = JournalFileBackend(str(folder / _JOURNAL))
    return optuna.create_study(
        study_name=_STUDY,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, warn_independent_sampling=False),
        directions=["maximize", "minimize", "minimize"],
        load_if_exists=True,
    )


def _claim(source: str, config: CompressConfig) -> None:
    """Take the folder, or find the same sweep in it."""
    folder = config.output
    shared = config.model_dump(mode="json", exclude={"student", "target", "seed", "output", "threads", "accelerator"})
    own = json.dumps({"teacher": source, "config": shared}, indent=2, default=str)
    file = folder / "sweep.json"
    if file.is_file():
        if file.read_text("utf-8") != own:
            raise UsageError(
                f"{str(folder)!r} holds a sweep with another teacher or configuration.",
                "Choose another folder with --output.",
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{str(folder)!r} is not empty and is no sweep.", "Choose another folder with --output.")
    write_atomic(file, own)


def _enqueue(study: Any, space: Space, trials: int | None) -> None:
    """Put combinations that are neither done nor waiting on the list; none where Optuna chooses."""
    import optuna

    stale = [t for t in study.trials if t.state == optuna.trial.TrialState.RUNNING]
    for trial in stale:  # of a worker that was killed; its run directory goes on from its checkpoint
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if trials is not None and trials < len(space.points()):
        return
    waiting = optuna.trial.TrialState.WAITING
    known = [t.user_attrs["point"] for t in study.trials if "trial" in t.user_attrs or t.state == waiting]
    for point in space.points():
        if point not in known:
            fixed = {space.parameter(name): value for name, value in point.items()}
            study.enqueue_trial(fixed, user_attrs={"point": point})


def _work(
    source: str,
    config: CompressConfig,
    space: Space,
    limit: int,
    notice: Callable[[str], None] = lambda text: None,
) -> None:
    """Take trials until none is left."""
    import optuna

    study = _study(config.output, seed=config.seed)
    waiting = optuna.trial.TrialState.WAITING
    chosen = limit < len(space.points())
    while True:
        states = [t.state for t in study.get_trials(deepcopy=False)]
        begun = sum(state not in (waiting, optuna.trial.TrialState.FAIL) for state in states)
        if waiting not in states and not (chosen and begun < limit):
            return
        trial = study.ask()
        choices = {"student": space.students, "target": space.targets, "seed": space.seeds}
        point = {name: trial.suggest_categorical(space.parameter(name), own) for name, own in choices.items()}
        trial.set_user_attr("point", point)
        notice(_name_of(point))
        try:
            found = _run(source, config, point)
        except EdgeDaflError as error:
            trial.set_user_attr("failed", error.message)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_user_attr("trial", asdict(found))
        study.tell(trial, [found.agreement, found.size, found.latency])


def _run(source: str, config: CompressConfig, point: dict[str, Any]) -> Trial:
    """One combination through the whole pipeline, or what is left of it to do."""
    from edgedafl import pipeline

    directory = config.output / "trials" / _name_of(point).replace(":", "-").replace("/", "-")
    own = config.model_copy(update={**point, "output": directory, "device": "none"})
    run = RunDirectory(directory)
    plan = pipeline.prepare(source, own)
    pipeline.compress(plan, resume=run.checkpoint_path.exists())
    measured = pipeline.measured_of(run)
    return Trial(
        **point,
        agreement=measured.agreement or 0.0,
        size=measured.size or 0,
        latency=pipeline.estimated_latency(run),
        directory=str(directory.relative_to(config.output)),
    )


def _name_of(point: dict[str, Any]) -> str:
    return f"{point['student']}-{point['target']}-s{point['seed']}"


def front_rows(trials: Sequence[Trial]) -> list[list[str]]:
    """A table: student, target, seed, agreement, size, latency, on the front or not."""
    from edgedafl.units import format_bytes, format_duration

    return [
        [
            t.student,
            t.target,
            str(t.seed),
            f"{100 * t.agreement:.2f} %",
            format_bytes(t.size),
            format_duration(t.latency),
            "front" if t.front else "",
        ]
        for t in trials
    ]

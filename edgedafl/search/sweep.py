"""A sweep: every trial is a run directory of its own, made by the same pipeline as a single run.

Which trials are done is kept on disk: an interrupted sweep goes on.
"""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgedafl.callbacks import OnMessage, silent
from edgedafl.config import CompressConfig
from edgedafl.errors import DistillationError, EdgeDaflError, UsageError
from edgedafl.files import write_atomic
from edgedafl.runs import RunDirectory
from edgedafl.search.front import Trial, pareto_front
from edgedafl.search.study import Space, Study, has_study
from edgedafl.targets import find_target

__all__ = ["Sweep", "read_sweep", "search"]


@dataclass(frozen=True)
class Sweep:
    """All of a sweep.

    Attributes:
        trials: Finished ones, best agreement first.
        failed: Sentences of those that failed, by combination.
    """

    trials: tuple[Trial, ...]
    failed: dict[str, str]


def search(
    source: str,
    config: CompressConfig,
    space: Space,
    *,
    workers: int = 1,
    trials: int | None = None,
    on_message: OnMessage = silent,
) -> Sweep:
    """Run a sweep, or go on with one.

    Args:
        source: The teacher as the user named it.
        config: What all trials share; `output` is the sweep's folder.
        space: What differs between them.
        workers: Processes that run trials at the same time, `config.threads` threads each.
        trials: How many at most; Optuna then chooses which combinations are worth it.
        on_message: Called with a sentence per trial.

    Raises:
        UsageError: If the folder holds another sweep, or a target is unknown.
        EnvironmentMissingError: If Optuna is not installed.

    Examples:
        >>> space = Space(students=("kept:0.5", "kept:0.25"), targets=("rpi4",), seeds=(0,))
        >>> search("model.onnx", CompressConfig(output=Path("sweep")), space).trials[0].student  # doctest: +SKIP
        'kept:0.5'
    """
    for target in space.targets:
        find_target(target)
    _claim(source, config)
    Study(config.output).enqueue(space, trials)
    limit = len(space.points()) if trials is None else trials
    arguments = (source, config, space, limit)
    if workers == 1:
        _work(*arguments, on_message)
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

    Examples:
        >>> read_sweep(Path("sweep")).failed  # doctest: +SKIP
        {}
    """
    if not has_study(folder):
        raise UsageError(f"{str(folder)!r} holds no sweep.", "Give the folder that `edgedafl search -o` wrote.")
    study = Study(folder)
    done = [Trial(**result) for result in study.results()]
    latest = {(t.student, t.target, t.seed): t for t in done}
    failed = {_name_of(point): why for point, why in study.failures() if tuple(point.values()) not in latest}
    trials = tuple(sorted(pareto_front(latest.values()), key=lambda t: -t.agreement))
    sweep = Sweep(trials, failed)
    write_atomic(folder / "search.json", json.dumps(asdict(sweep), indent=2) + "\n")
    return sweep


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
        raise UsageError(f"{str(folder)!r} is not empty and is not a sweep.", "Choose another folder with --output.")
    write_atomic(file, own)


def _work(
    source: str,
    config: CompressConfig,
    space: Space,
    limit: int,
    on_message: OnMessage = silent,
) -> None:
    """Take trials until none is left."""
    study = Study(config.output, config.seed)
    with study.worker() as worker:
        while (trial := study.take(worker, space, limit)) is not None:
            point = trial.user_attrs["point"]
            on_message(_name_of(point))
            try:
                found = _run(source, config, point)
            except EdgeDaflError as error:
                study.fail(trial, error.message)
            else:
                study.finish(trial, asdict(found), (found.agreement, found.size, found.latency))


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

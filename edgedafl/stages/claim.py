"""Claims a run directory for a plan, and records what will be done there."""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w

from edgedafl import __version__
from edgedafl.errors import UsageError
from edgedafl.files import write_atomic
from edgedafl.runs import PictureRecord, RunDirectory
from edgedafl.stages.prepare import Plan
from edgedafl.targets import target_file

__all__ = ["record"]

_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def record(plan: Plan, run: RunDirectory, *, force: bool, resume: bool) -> None:
    """Claim the run directory: refuse to overwrite other work, then write plan and configuration.

    Raises:
        UsageError: If the directory holds another run, or an unfinished one and neither `resume`
            nor `force` is given.

    Examples:
        >>> from edgedafl.config import CompressConfig
        >>> from edgedafl.stages.prepare import prepare
        >>> plan = prepare("model.onnx", CompressConfig())  # doctest: +SKIP
        >>> record(plan, RunDirectory("runs/mine"), force=False, resume=False)  # doctest: +SKIP
    """
    if run.manifest_path.exists():
        known = run.record()
        same = known.identity == plan.identity
        unfinished = run.checkpoint_path.exists() and known.distilled is None
        if not same and not force:
            raise UsageError(
                f"{str(run.path)!r} holds a run with another configuration.",
                "Choose another folder with --output, or replace it with --force.",
            )
        if same and unfinished and not (resume or force):
            raise UsageError(
                f"{str(run.path)!r} holds an unfinished run.",
                "Go on with --resume, or start again with --force.",
            )
        if not same or (force and not resume):
            _clear(run)
    elif run.path.is_dir() and any(p.name != ".lock" for p in run.path.iterdir()):
        raise UsageError(
            f"{str(run.path)!r} is not empty and was not written by edgedafl.",
            "Choose another folder with --output.",
        )
    elif resume:
        raise UsageError(f"There is nothing to resume in {str(run.path)!r}.", "Start without --resume.")
    data = plan.config.model_dump(mode="json", exclude_none=True)
    run.update(
        command=_command(),
        identity=plan.identity,
        config=data,
        target={"name": plan.target.name, "title": plan.target.title},
        precision=plan.precision,
        teacher={**plan.teacher.spec.to_dict(), "name": Path(plan.source).name},
        student=plan.student.spec.to_dict(),
        preflight=asdict(plan.preflight),
        ladder=None if plan.ladder is None else [asdict(c) for c in plan.ladder.candidates],
        pictures=_pictures(plan),
        versions=_versions(),
        machine={"system": platform.platform(), "python": platform.python_version()},
    )
    write_atomic(run.path / "config.toml", tomli_w.dumps({"compress": data}))
    if plan.config.target.endswith(".toml"):
        write_atomic(run.target, target_file(plan.config.target).read_bytes())
    if plan.classes:
        write_atomic(run.classes, "".join(f"{name}\n" for name in plan.classes))
    else:
        run.classes.unlink(missing_ok=True)


def _pictures(plan: Plan) -> dict[str, Any] | None:
    pictures = None if plan.study is None else plan.study.pictures
    if pictures is None:
        return None
    unreadable, examples = len(pictures.unreadable), tuple(pictures.unreadable[:3])
    return asdict(PictureRecord(pictures.source, pictures.found, len(pictures.images), unreadable, examples))


def _clear(run: RunDirectory) -> None:
    for name in ("checkpoint", "samples", "models", "bundles", "profile"):
        shutil.rmtree(run.path / name, ignore_errors=True)
    for file in [run.manifest_path, run.metrics_path, run.target, run.classes, *run.path.glob("report.*")]:
        file.unlink(missing_ok=True)


def _command() -> str:
    name = Path(sys.argv[0]).name
    return shlex.join(["edgedafl" if name in ("__main__.py", "edgedafl") else name, *sys.argv[1:]])


def _versions() -> dict[str, str]:
    found: dict[str, Any] = {"edgedafl": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found

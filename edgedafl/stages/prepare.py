"""Before anything is trained: teacher, target, student, and a first look at all three."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w

from edgedafl import __version__
from edgedafl.config import CompressConfig
from edgedafl.distill import as_asked, settings_of
from edgedafl.distill.preflight import Preflight, check_teacher
from edgedafl.errors import UsageError
from edgedafl.rundir import RunDirectory, digest_of, write_atomic
from edgedafl.stages.students import choose_student
from edgedafl.students import Student
from edgedafl.targets import Target, find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher

__all__ = ["Plan", "options_of", "prepare", "record"]

_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        source: The teacher as the user named it.
        config: The resolved configuration.
        target: The deployment target.
        precision: Precision of the artifact.
        teacher: The loaded teacher.
        student: The untrained student.
        preflight: What the teacher answers to procedural images.
        identity: Digest of everything the trained student depends on.
    """

    source: str
    config: CompressConfig
    target: Target
    precision: str
    teacher: Teacher
    student: Student
    preflight: Preflight
    identity: str


def options_of(config: CompressConfig) -> TeacherOptions:
    """What the configuration declares about the teacher."""
    return TeacherOptions(
        input_name=config.input_name,
        output_name=config.output_name,
        input_shape=config.input_shape,
        layout=config.layout,
        input_range=config.input_range,
        mean=config.input_mean,
        std=config.input_std,
        weights=config.weights,
        access=None if config.access == "auto" else config.access,
        task=config.task,
        classes=config.classes,
        max_queries=config.max_queries,
        trust=config.trust,
        threads=config.threads or 1,
        timeout=config.timeout,
        token_variable=config.token_env,
    )


def prepare(source: str, config: CompressConfig) -> Plan:
    """Load the teacher, choose the student, ask the teacher a few questions.

    Raises:
        EdgeDaflError: One of its children; nothing has been written yet.
    """
    import torch

    target = find_target(config.target)
    precision = target.precision if config.precision == "auto" else config.precision
    teacher = load_teacher(source, options_of(config))
    settings_of(config.method, as_asked(config.method, teacher))  # refused before anything is written
    torch.manual_seed(config.seed)
    preflight = check_teacher(teacher)
    student = choose_student(config, teacher, target, precision)
    identity = digest_of(
        {
            "teacher": teacher.spec.to_dict() | {"source": ""},
            "student": student.spec.to_dict(),
            "method": config.method,
            "max_queries": config.max_queries,
            "seconds": config.seconds,
            "steps": config.steps,
            "seed": config.seed,
            "version": __version__,
        }
    )
    return Plan(source, config, target, precision, teacher, student, preflight, identity)


def record(plan: Plan, run: RunDirectory, *, force: bool, resume: bool) -> None:
    """Claim the run directory: refuse to overwrite other work, then write plan and configuration.

    Raises:
        UsageError: If the directory holds another run, or an unfinished one and neither `resume`
            nor `force` is given.
    """
    if run.manifest_path.exists():
        manifest = run.read_manifest()
        same = manifest.get("identity") == plan.identity
        unfinished = run.checkpoint_path.exists() and "distill" not in manifest.get("stages", {})
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
            f"{str(run.path)!r} is not empty and is no run of ours.",
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
        preflight=vars(plan.preflight),
        versions=_versions(),
        machine={"system": platform.platform(), "python": platform.python_version()},
    )
    write_atomic(run.path / "config.toml", tomli_w.dumps({"compress": data}))


def _clear(run: RunDirectory) -> None:
    import shutil

    for name in ("checkpoint", "samples", "models", "bundles", "profile"):
        shutil.rmtree(run.path / name, ignore_errors=True)
    for file in [run.manifest_path, run.metrics_path, *run.path.glob("report.*")]:
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

"""A run directory: where its files lie, atomic writes, lock, stage cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import filelock

from edgedafl.errors import EnvironmentMissingError, UsageError, reason_of
from edgedafl.files import write_atomic
from edgedafl.runs.json_form import read_result, result_to_dict
from edgedafl.runs.record import (
    SCHEMA,
    Progress,
    RunRecord,
    StageRecord,
    read_record,
    refuse_schema,
)
from edgedafl.runs.results import StageResult

__all__ = ["RunDirectory"]

_Result = TypeVar("_Result")


class RunDirectory:
    """One run on disk.

    Args:
        path: The directory; created when first written to.

    Examples:
        >>> RunDirectory("runs/mine").student.as_posix()
        'runs/mine/student.onnx'
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def manifest_path(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def checkpoint_path(self) -> Path:
        """The distillation's state."""
        return self.path / "checkpoint" / "state.pt"

    def remove_checkpoint(self) -> None:
        """Free what only an unfinished distillation needs: gigabytes for large images."""
        shutil.rmtree(self.checkpoint_path.parent, ignore_errors=True)

    @property
    def metrics_path(self) -> Path:
        """One JSON line per progress report."""
        return self.path / "metrics.jsonl"

    @property
    def student(self) -> Path:
        """The float student."""
        return self.path / "student.onnx"

    @property
    def calibration(self) -> Path:
        """Images that int8 is calibrated and judged on."""
        return self.path / "calibration.npz"

    @property
    def target(self) -> Path:
        """The target's definition, where it came from a file of the user's."""
        return self.path / "target.toml"

    @property
    def classes(self) -> Path:
        """Names of the classes, one per line, where the user gave them."""
        return self.path / "classes.txt"

    @property
    def samples(self) -> Path:
        """A sheet of generated images by class."""
        return self.path / "samples" / "classes.png"

    def models(self, target: str) -> Path:
        """Folder of a target's precisions."""
        return self.path / "models" / target

    def bundle(self, target: str) -> Path:
        """Folder of a target's bundle."""
        return self.path / "bundles" / target

    def profile(self, device: str) -> Path:
        """Samples of a device; its name is free of separators."""
        return self.path / "profile" / f"{device}.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process.

        Raises:
            UsageError: If another process holds it.
            EnvironmentMissingError: If it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise UsageError(
                f"The run directory {str(self.path)!r} is in use by another process.",
                "Wait for it, or choose another with --output.",
            ) from error
        except OSError as error:
            raise EnvironmentMissingError(
                f"The run directory {str(self.path)!r} cannot be used: {error.strerror or error}.",
                "Choose a writable folder with --output.",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def record(self) -> RunRecord:
        """All that the run knows of itself, validated.

        Raises:
            UsageError: If this is not a run directory, its manifest is damaged or of another version.
        """
        manifest = self.manifest()
        try:
            return read_record(manifest)
        except (TypeError, ValueError) as error:
            raise self._damaged(reason_of(error)) from error

    def update(self, **entries: Any) -> None:
        """Set top-level entries of the manifest, given in their JSON form."""
        manifest = self.manifest() if self.manifest_path.exists() else {"stages": {}}
        text = json.dumps({"schema": SCHEMA, **manifest, **entries}, indent=2, default=str)
        write_atomic(self.manifest_path, text + "\n")

    def stage_name(self, stage: str, target: str) -> str:
        """Stages of the run's own target keep their plain name; others carry the target's."""
        own = self.manifest().get("target")
        return stage if isinstance(own, dict) and own.get("name") == target else f"{stage}:{target}"

    def stage(self, name: str) -> StageRecord | None:
        """What a finished stage left, or None."""
        if not self.manifest_path.exists():
            return None
        entry = self.manifest()["stages"].get(name)
        if entry is None:
            return None
        try:
            return read_result(entry, StageRecord)
        except (TypeError, ValueError) as error:
            raise self._damaged(reason_of(error)) from error

    def result(self, name: str, form: type[_Result]) -> _Result | None:
        """What a finished stage found, or None.

        Raises:
            UsageError: If the manifest is damaged.
        """
        found = self.stage(name)
        if found is None:
            return None
        try:
            return read_result(found.result, form)
        except (TypeError, ValueError) as error:
            raise self._damaged(reason_of(error)) from error

    def current(self, name: str, inputs: str, form: type[_Result]) -> _Result | None:
        """What a stage found with these very inputs; None where it has to run again or its files changed."""
        found = self.stage(name)
        if found is None or found.inputs != inputs:
            return None
        if any(_sha256(self.path / file) != digest for file, digest in found.outputs.items()):
            return None
        return self.result(name, form)

    def finish(self, name: str, inputs: str, files: Iterable[Path], result: StageResult) -> None:
        """Record a finished stage with the digests of its files."""
        outputs = {str(f.relative_to(self.path)): _sha256(f) for f in sorted(files) if f.is_file()}
        stages = dict(self.manifest()["stages"]) if self.manifest_path.exists() else {}
        stages[name] = {"inputs": inputs, "outputs": outputs, "result": result_to_dict(result)}
        self.update(stages=stages)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl`.

        Raises:
            EnvironmentMissingError: If the disk is full.
        """
        try:
            with self.metrics_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise EnvironmentMissingError(
                f"{str(self.metrics_path)!r} cannot be written: {error.strerror or error}.",
                "Free space, then go on with the same command and --resume.",
            ) from error

    def read_metrics(self) -> list[Progress]:
        """All complete lines of `metrics.jsonl`."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text("utf-8").splitlines():
            with contextlib.suppress(TypeError, ValueError):  # a line cut short by a kill
                rows.append(read_result(json.loads(line), Progress))
        return rows

    def manifest(self) -> dict[str, Any]:
        """`run.json` as it is, for printing; `record` is what code reads.

        Raises:
            UsageError: If this is not a run directory, its manifest is damaged or of another version.
        """
        try:
            manifest: dict[str, Any] = json.loads(self.manifest_path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise UsageError(
                f"{str(self.path)!r} is not a run directory: it has no run.json.",
                "Give the folder that `edgedafl compress -o` wrote.",
            ) from error
        except (OSError, ValueError) as error:
            raise self._damaged(reason_of(error)) from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("stages", {}), dict):
            raise self._damaged("it holds no stages by name")
        refuse_schema(manifest.get("schema"), repr(str(self.manifest_path)))
        return {"stages": {}, **manifest}

    def _damaged(self, why: str) -> UsageError:
        return UsageError(f"{str(self.manifest_path)!r} is damaged: {why}.", "Run again.")


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""A run directory: manifest, atomic writes, lock, stage cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from edgedafl.errors import EnvironmentMissingError, UsageError, reason_of

__all__ = ["RunDirectory", "StageRecord", "digest_of", "write_atomic"]

SCHEMA = 1


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write by temporary file, fsync and rename: readers see the old file or the new one.

    Raises:
        EnvironmentMissingError: If the disk is full or the folder is not writable.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise EnvironmentMissingError(
            f"{str(path)!r} cannot be written: {error.strerror or error}.",
            "Free space or choose another folder with --output; nothing half-written was left.",
        ) from error


def digest_of(value: Any) -> str:
    """sha256 of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class StageRecord:
    """What a finished stage left behind.

    Attributes:
        inputs: Digest of everything the stage depends on.
        outputs: sha256 of each file it wrote, by path inside the run directory.
        result: Its JSON result.
    """

    inputs: str
    outputs: dict[str, str]
    result: dict[str, Any]


class RunDirectory:
    """One run on disk.

    Args:
        path: The directory; created when first written to.
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

    @property
    def metrics_path(self) -> Path:
        """One JSON line per progress report."""
        return self.path / "metrics.jsonl"

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

    def read_manifest(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            UsageError: If this is no run directory, or its manifest is damaged.
        """
        try:
            manifest: dict[str, Any] = json.loads(self.manifest_path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise UsageError(
                f"{str(self.path)!r} is not a run directory: it has no run.json.",
                "Give the folder that `edgedafl compress -o` wrote.",
            ) from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(self.manifest_path)!r} is damaged: {error}.", "Run again.") from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("stages", {}), dict):
            raise UsageError(f"{str(self.manifest_path)!r} is damaged: it holds no stages by name.", "Run again.")
        if manifest.get("schema") != SCHEMA:
            raise UsageError(
                f"{str(self.manifest_path)!r} has schema {manifest.get('schema')}; this version reads {SCHEMA}."
            )
        return manifest

    @contextlib.contextmanager
    def reading(self) -> Iterator[dict[str, Any]]:
        """The manifest, for code that looks deep into it.

        Raises:
            UsageError: If this is no run directory, or its manifest lacks what the code looks for.
        """
        manifest = self.read_manifest()
        try:
            yield manifest
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
            raise UsageError(f"{str(self.manifest_path)!r} is damaged: {what}.", "Run again.") from error

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest atomically."""
        text = json.dumps({"schema": SCHEMA, **manifest}, indent=2, default=str)
        write_atomic(self.manifest_path, text + "\n")

    def update(self, **entries: Any) -> None:
        """Set top-level entries of the manifest."""
        manifest = self.read_manifest() if self.manifest_path.exists() else {"stages": {}}
        self.write_manifest({**manifest, **entries})

    def stage(self, name: str) -> StageRecord | None:
        """What a finished stage left, or None."""
        if not self.manifest_path.exists():
            return None
        with self.reading() as manifest:
            entry = manifest.get("stages", {}).get(name)
            if entry is None:
                return None
            record = StageRecord(**entry)
            if not (isinstance(record.outputs, dict) and isinstance(record.result, dict)):
                raise ValueError(f"its stage {name!r} has another form")
            return record

    def is_current(self, name: str, inputs: str) -> bool:
        """Whether a stage was finished with these inputs and its files are unchanged."""
        record = self.stage(name)
        if record is None or record.inputs != inputs:
            return False
        return all(_sha256(self.path / file) == digest for file, digest in record.outputs.items())

    def finish(self, name: str, inputs: str, files: list[Path], result: dict[str, Any]) -> None:
        """Record a finished stage with the digests of its files."""
        outputs = {str(f.relative_to(self.path)): _sha256(f) for f in sorted(files) if f.is_file()}
        stages = dict(self.read_manifest().get("stages", {})) if self.manifest_path.exists() else {}
        stages[name] = {"inputs": inputs, "outputs": outputs, "result": result}
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

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines of `metrics.jsonl`."""
        if not self.metrics_path.exists():
            return []
        rows = []
        for line in self.metrics_path.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a line cut short by a kill
                rows.append(json.loads(line))
        return rows


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()

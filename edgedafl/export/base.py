"""The exporter contract and the bundle it makes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from edgedafl.files import write_atomic
from edgedafl.targets import Target

__all__ = ["SCHEMA", "Artifacts", "Bundle", "Exporter", "write_bundle"]

SCHEMA = 1


@dataclass(frozen=True)
class Artifacts:
    """What there is to ship.

    Attributes:
        models: Graphs at batch 1 by precision (`fp32`, `fp16`, `int8`).
        primary: The precision to run by default.
        name: Student name.
        preprocess: JSON form of the pixel map.
        inputs: Example images, float32 (N,C,H,W) in model space.
        provenance: Teacher digest, versions, seed.
        calibration: More images like `inputs`, for runtimes that quantize by themselves.
        agreements: Synthetic agreement by precision.
        card: What the model card says of its making, by name.
        labels: Names of the classes, in order; none where they are not known.
    """

    models: dict[str, onnx.ModelProto]
    primary: str
    name: str
    preprocess: dict[str, Any]
    inputs: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: np.ndarray = field(default_factory=lambda: np.zeros((0,), np.float32))
    agreements: dict[str, float] = field(default_factory=dict)
    card: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """A self-contained directory for one target.

    Attributes:
        directory: Where it is.
        manifest: The parsed `manifest.json`.
    """

    directory: Path
    manifest: dict[str, Any]

    @property
    def primary(self) -> Path:
        """The model file that runs by default."""
        return self.directory / str(self.manifest["primary"])

    @property
    def archive(self) -> Path:
        """The reproducible tar.gz beside the directory."""
        return self.directory.with_name(self.directory.name + ".tar.gz")


class Exporter(Protocol):
    """Turns a student into a bundle. All that knows a runtime lives in its exporter."""

    name: str

    def export(self, artifacts: Artifacts, target: Target, directory: Path) -> Bundle:
        """Write the bundle into an empty directory."""

    def executables(self) -> dict[str, bytes]:
        """The files of its bundles that are run, by name: a bundle with others is not run unasked."""

    def try_build(self, file: Path) -> dict[str, Any]:
        """What making the device's own form of a model file here tells; empty where that cannot be done.

        Raises:
            CheckFailedError: If the runtime refuses the model.
        """

    def predict(self, file: Path, images: np.ndarray) -> np.ndarray:
        """Scores (N,K) of one of its model files for float32 images (N,C,H,W) in model space.

        Raises:
            EnvironmentMissingError: If its runtime is not installed here.
        """


def write_bundle(
    directory: Path, files: dict[str, bytes], entries: dict[str, Any], *, executable: tuple[str, ...]
) -> Bundle:
    """Write files and their manifest, then the archive; replaces an older bundle.

    Args:
        directory: Where to.
        files: Contents by name.
        entries: Manifest entries beside schema and digests.
        executable: Names that get the x bit.

    Raises:
        EnvironmentMissingError: If the disk is full or not writable.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "bundle"
        >>> bundle = write_bundle(folder, {"model.onnx": b"..."}, {"target": "rpi4"}, executable=())
        >>> sorted(path.name for path in folder.iterdir())
        ['manifest.json', 'model.onnx']
    """
    staging = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for name, content in sorted(files.items()):
            write_atomic(staging / name, content)
            (staging / name).chmod(0o755 if name in executable else 0o644)
        digests = {n: hashlib.sha256(c).hexdigest() for n, c in sorted(files.items())}
        manifest = {"schema": SCHEMA, **entries, "files": digests}
        write_atomic(staging / "manifest.json", json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(directory, ignore_errors=True)
        staging.replace(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    bundle = Bundle(directory, manifest)
    write_atomic(bundle.archive, _archive(directory))
    return bundle


def _archive(directory: Path) -> bytes:
    """A tar.gz whose bytes depend on the contents alone."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(directory.iterdir()):
            info = tarfile.TarInfo(f"{directory.name}/{file.name}")
            info.size = file.stat().st_size
            info.mode = 0o755 if file.stat().st_mode & 0o100 else 0o644
            with file.open("rb") as stream:
                tar.addfile(info, stream)
    return gzip.compress(plain.getvalue(), mtime=0)

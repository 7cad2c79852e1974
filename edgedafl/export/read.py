"""Bundles read back: from a folder or from an archive, and only when they are whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedafl.errors import UsageError
from edgedafl.export.base import SCHEMA, Bundle

__all__ = ["opened_bundle", "read_bundle"]

# No student comes near it; an archive that unpacks to more is not one of ours.
_LARGEST = 4 << 30
_NEEDED = ("files", "variants", "exporter", "student", "target", "runtime", "precision", "primary", "input")


def read_bundle(directory: Path) -> Bundle:
    """Open a bundle's folder and check every file against its digest.

    Raises:
        UsageError: If it is not a bundle, or a file is missing, changed or not listed.

    Examples:
        >>> sorted(read_bundle(Path("runs/teacher-rpi4/bundles/rpi4")).manifest)[:3]
        ['edgedafl', 'exporter', 'files']
    """
    return _read(directory, str(directory))


def _read(directory: Path, name: str) -> Bundle:
    """`name` is what the user called it."""
    manifest = _manifest(directory, name)
    where = f"the bundle {name!r}"
    for listed, digest in manifest["files"].items():
        file = directory / listed
        if not file.is_file() or file.is_symlink():
            raise UsageError(f"{listed} is missing in {where}.", "Export it again.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise UsageError(f"{listed} of {where} was changed.", "Export it again.")
    return Bundle(directory, manifest)


@contextlib.contextmanager
def opened_bundle(path: Path) -> Iterator[Bundle]:
    """A checked bundle from a folder, or from an archive that is unpacked meanwhile.

    An archive must hold exactly what its manifest lists; a folder may hold results beside.

    Raises:
        UsageError: As `read_bundle`; or if the archive is damaged or leads outside itself.

    Examples:
        >>> with opened_bundle(Path("runs/teacher-rpi4/bundles/rpi4.tar.gz")) as bundle:
        ...     print(bundle.directory.name)
        rpi4
    """
    if path.is_dir() or not path.exists():
        yield read_bundle(path)
        return
    with tempfile.TemporaryDirectory(prefix="edgedafl-bundle-") as folder:
        inner = _unpack(path, Path(folder))
        bundle = _read(inner, str(path))
        extra = {p.name for p in inner.iterdir()} - {*bundle.manifest["files"], "manifest.json"}
        if extra:
            raise UsageError(f"{str(path)!r} holds {sorted(extra)[0]!r}, which its manifest does not list.")
        yield bundle


def _manifest(directory: Path, where: str) -> dict[str, Any]:
    remedy = "Give a folder below bundles/, or its .tar.gz."
    try:
        manifest: dict[str, Any] = json.loads((directory / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{where!r} is not a bundle: {error}.", remedy) from error
    lacking = [key for key in _NEEDED if not isinstance(manifest, dict) or key not in manifest]
    if lacking or not isinstance(manifest["files"], dict):
        raise UsageError(f"{where!r} is not a bundle: its manifest lacks {', '.join(lacking) or 'files'}.", remedy)
    if manifest.get("schema") != SCHEMA:
        raise UsageError(
            f"The bundle {where!r} is of schema {manifest.get('schema')!r}; this version reads {SCHEMA}.",
            "Export it again, or install the version that wrote it.",
        )
    variants = manifest["variants"]
    if not isinstance(variants, list) or not all(map(_is_variant, variants)):
        raise UsageError(f"{where!r} is not a bundle: its manifest describes no models.", remedy)
    names = [*manifest["files"], *(v["file"] for v in variants), manifest["primary"]]
    for name in names:
        if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith("."):
            raise UsageError(f"The bundle {where!r} names the file {name!r}, which leads outside itself.")
    unlisted = set(names) - set(manifest["files"])
    if unlisted:
        raise UsageError(f"The manifest of {where!r} has no digest of {sorted(unlisted)[0]!r}.")
    return manifest


def _is_variant(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    named = all(isinstance(entry.get(key), str) for key in ("file", "precision"))
    return named and isinstance(entry.get("tolerance"), int | float)


def _unpack(archive: Path, folder: Path) -> Path:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            size = 0
            for member in tar:
                size += member.size
                if not (member.isfile() or member.isdir()) or size > _LARGEST:
                    raise UsageError(f"{str(archive)!r} holds {member.name!r}, which no bundle has.")
                tar.extract(member, folder, filter="data")
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise UsageError(f"{str(archive)!r} is not a bundle's archive: {error}.", "Export it again.") from error
    inner = [place for place in folder.iterdir() if place.is_dir()]
    if len(inner) != 1:
        raise UsageError(f"{str(archive)!r} is not a bundle's archive: it holds {len(inner)} folders, not one.")
    return inner[0]

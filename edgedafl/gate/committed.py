"""Files as a commit has them: a model, its external data, and what Git LFS keeps elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePosixPath

from edgedafl.errors import EnvironmentMissingError, UnsupportedModelError, UsageError, reason_of
from edgedafl.graph.weigh import external_locations, weigh_alone

__all__ = ["committed_file", "committed_size", "head_of", "require_commit"]

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)*?size (\d+)\n")
_LARGEST_POINTER = 1024  # bytes, by the specification of Git LFS


def head_of(folder: Path) -> str:
    """The commit that a folder is at; empty outside of a repository, or without git.

    Examples:
        >>> len(head_of(Path("examples").resolve())) in (0, 40)  # nothing where it is not a repository
        True
    """
    found = _git(folder, "rev-parse", "HEAD") if shutil.which("git") else None
    return "" if found is None else found.decode().strip()


def require_commit(ref: str, folder: Path) -> None:
    """See that a commit is there.

    Raises:
        UsageError: If the name is none, or the repository does not have it.
        EnvironmentMissingError: If git cannot be run.

    Examples:
        >>> require_commit("main", Path("."))  # doctest: +SKIP
    """
    if not ref or ref.startswith("-"):
        raise UsageError(f"git:{ref} names no commit.", "Write it like git:main.")
    if _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}") is None:
        raise UsageError(
            f"There is no commit {ref!r} in the repository of {str(folder)!r}.", "Fetch it first, e.g. git fetch."
        )


def committed_file(ref: str, folder: Path, name: str) -> bytes | None:
    """A file's content; None where the commit does not have it.

    Args:
        ref: The commit.
        folder: In the repository.
        name: Relative to the folder.

    Examples:
        >>> committed_file("HEAD", Path("."), "no-such-file.onnx")
    """
    return _git(folder, "show", f"{ref}:./{name}")


def committed_size(ref: str, model: Path) -> int | None:
    """Bytes of a model with its external data; None where the commit does not have it.

    Of what Git LFS keeps elsewhere the pointer tells the size. A pointer does not tell of external data: a model
    that is kept so is one file.

    Args:
        ref: The commit.
        model: The file as it is called now.

    Raises:
        UnsupportedModelError: If it was no ONNX model there, or external data is missing or outside of its folder.

    Examples:
        >>> committed_size("main", Path("model.onnx"))  # doctest: +SKIP
    """
    folder, name = model.resolve().parent, model.resolve().name
    content = committed_file(ref, folder, name)
    if content is None:
        return None
    pointed = _pointed_at(content)
    if pointed is not None:
        return pointed
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / name
        copy.write_bytes(content)
        own, locations = weigh_alone(copy), external_locations(copy)
    return own + sum(_size_beside(ref, folder, name, location) for location in locations)


def _size_beside(ref: str, folder: Path, name: str, location: str) -> int:
    parts = PurePosixPath(location)
    if parts.is_absolute() or ".." in parts.parts:
        raise UnsupportedModelError(
            f"{name!r} at {ref} has external data outside of its folder: {location!r}.", "Export the model again."
        )
    found = _git(folder, "cat-file", "-s", f"{ref}:./{parts}")
    if found is None:
        raise UnsupportedModelError(
            f"{name!r} at {ref} needs the external data file {location!r}, which that commit does not have.",
            "Commit the external data beside the model.",
        )
    size = int(found)
    content = committed_file(ref, folder, str(parts)) if size <= _LARGEST_POINTER else None
    pointed = None if content is None else _pointed_at(content)
    return size if pointed is None else pointed


def _pointed_at(content: bytes) -> int | None:
    """The size in a pointer of Git LFS; None where it is something else."""
    found = _POINTER.match(content) if len(content) <= _LARGEST_POINTER else None
    return int(found[1]) if found else None


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except OSError as error:
        raise EnvironmentMissingError(f"git cannot be run: {reason_of(error)}.", "Install git.") from error
    return done.stdout if done.returncode == 0 else None

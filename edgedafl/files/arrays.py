"""Arrays that somebody else saved."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from edgedafl.errors import reason_of

__all__ = ["read_arrays"]

_DAMAGES = (
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; nothing in it is run.

    Raises:
        ValueError: If it cannot be read, whatever is wrong with it.

    Examples:
        >>> sorted(read_arrays(Path("examples/mnist/sample.npz")))
        ['images', 'labels']
    """
    try:
        data = np.load(path, allow_pickle=False)
        if isinstance(data, np.ndarray):
            raise ValueError("it holds one array without a name")
        with data:
            return {name: np.asarray(data[name]) for name in data.files}
    except _DAMAGES as error:
        raise ValueError(reason_of(error)) from error

"""TensorBoard: curves of training over seconds, the final figures, the generated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgedafl.errors import EnvironmentMissingError
from edgedafl.tracking.figures import RunFigures, progress_values

__all__ = ["write_tensorboard"]


def write_tensorboard(figures: RunFigures, folder: Path) -> None:
    """Write event files.

    Args:
        figures: Of the run.
        folder: That `tensorboard --logdir` is pointed at; the run gets a folder of its own in it.

    Raises:
        EnvironmentMissingError: If TensorBoard is not installed, or the folder cannot be written.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.tracking import figures_of
        >>> figures = figures_of(RunDirectory("runs/teacher-rpi4"))
        >>> write_tensorboard(figures, Path("tensorboard"))  # doctest: +SKIP
    """
    try:
        with _writer(folder / figures.name) as writer:
            for progress in figures.progress:
                for name, value in progress_values(progress).items():
                    writer.add_scalar(name, value, round(1000 * progress.seconds))
            for name, value in figures.values.items():
                writer.add_scalar(f"artifact/{name}", value, 0)
            for name, text in {**figures.settings, **figures.kinds}.items():
                writer.add_text(f"settings/{name}", text, 0)
            for picture in (file for file in figures.files if file.suffix == ".png"):
                writer.add_image("generated images", _pixels(picture), 0, dataformats="HWC")
    except OSError as error:
        raise EnvironmentMissingError(
            f"{str(folder)!r} cannot be written: {error}.", "Choose another folder with --output."
        ) from error


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EnvironmentMissingError(
            "TensorBoard is not installed.", "Install it: pip install edgedafl[tensorboard]."
        ) from error
    writer: Any = SummaryWriter
    return writer(str(folder))


def _pixels(picture: Path) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"))

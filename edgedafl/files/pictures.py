"""Pictures of the user's own, without labels: of the teacher's domain, or of anything."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedafl.errors import UsageError, reason_of
from edgedafl.files.arrays import read_arrays

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Pictures", "read_all", "read_pictures"]

_MOST = 2_000
"""Pictures that are used; of more, evenly spread ones are."""
_MEMORY = 512 << 20
_MOST_FILES = 200_000
_ROOM = 1.25
"""Pictures are kept larger than the input, so that crops of them need no enlarging."""
_LEAST_CROP = 0.35
_HELD_BACK = 5  # every fifth picture measures
_MOST_MEASURING = 400
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow does it


@dataclass(frozen=True)
class Pictures:
    """Square pictures, somewhat larger than the teacher's input.

    Attributes:
        images: uint8 (N,C,S,S).
        side: Of the teacher's input, height and width.
        source: Where they came from.
        found: How many there were.
        unreadable: Names of files that are not pictures.
    """

    images: np.ndarray
    side: tuple[int, int]
    source: str
    found: int
    unreadable: tuple[str, ...] = ()

    @property
    def held_back(self) -> Tensor:
        """Pictures to measure on, float (M,C,H,W) in [0, 1]; never trained on."""
        import torch

        chosen = self.images[::_HELD_BACK][:_MOST_MEASURING]
        return torch.cat([_resized(torch.from_numpy(part), self.side) for part in np.array_split(chosen, 16)])

    def draw(self, count: int, input_shape: tuple[int, int, int], generator: Generator) -> Tensor:
        """Random crops of the others, (count, C, H, W) in [0, 1]; colour pictures are mirrored now and then.

        Args:
            count: How many.
            input_shape: Of the teacher.
            generator: A `torch.Generator`.
        """
        import torch

        mine = np.setdiff1d(np.arange(len(self.images)), np.arange(len(self.images))[::_HELD_BACK])
        mine = mine if len(mine) else np.arange(len(self.images))
        rows = torch.randint(len(mine), (count,), generator=generator)
        found = [self._crop(self.images[mine[int(row)]], generator) for row in rows]
        return torch.cat(found) if found else torch.zeros(0, *input_shape)

    def _crop(self, image: np.ndarray, generator: Generator) -> Tensor:
        import torch

        share, top, left, turned = torch.rand(4, generator=generator).tolist()
        whole = image.shape[1]
        side = max(4, round(whole * (_LEAST_CROP + (1 - _LEAST_CROP) * share) ** 0.5))
        y, x = round(top * (whole - side)), round(left * (whole - side))
        crop = _resized(torch.from_numpy(image[None, :, y : y + side, x : x + side].copy()), self.side)
        return crop.flip(3) if turned < 0.5 and len(image) == 3 else crop


def read_pictures(path: Path, input_shape: tuple[int, int, int]) -> Pictures:
    """Read a folder of pictures, or an .npz with `images` (uint8, any size).

    Folders are searched through; pictures are turned as their EXIF says, made grey or coloured as the
    teacher wants them, and cropped to the middle square. Files that are not pictures are counted.

    Args:
        path: The folder or file.
        input_shape: (C, H, W) of the teacher.

    Raises:
        UsageError: If there is no picture, or the teacher takes neither 1 nor 3 channels.

    Examples:
        >>> len(read_pictures(Path("examples/mnist/sample.npz"), (1, 28, 28)).held_back) > 0
        True
    """
    channels, *sides = input_shape
    if channels not in (1, 3):
        raise UsageError(
            f"--images: the teacher takes {channels} channels; pictures have 1 or 3.", "Leave --images out."
        )
    side = max(8, round(_ROOM * max(sides)))
    most = max(2, min(_MOST, _MEMORY // (channels * side * side)))
    if not path.exists():
        raise UsageError(f"--images {str(path)!r} does not exist.", "Name a folder of pictures, or an .npz file.")
    if path.is_dir():
        files = sorted(_files(path))
        if not files:
            raise UsageError(f"--images {str(path)!r} is an empty folder.", "Name a folder of pictures.")
        found = len(files)
        images, bad = read_all(files[:: max(1, -(-len(files) // most))], channels, (side, side))
        if not images:
            raise UsageError(
                f"--images {str(path)!r} holds {found} files and no picture among them, e.g. {bad[0]}.",
                "Give PNG, JPEG, WebP or other pictures that Pillow reads.",
            )
        return Pictures(np.stack([*images.values()]), (sides[0], sides[1]), str(path), found, tuple(bad))
    return _from_arrays(path, channels, (sides[0], sides[1]), side, most)


def read_all(files: Sequence[Path], channels: int, sides: tuple[int, int]) -> tuple[dict[int, np.ndarray], list[str]]:
    """Pictures (C,H,W) by their place among some files, and the names of files that are not pictures, with the reason.

    Args:
        files: The files.
        channels: 1 or 3.
        sides: Height and width, see `_read_picture`.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (64, 48)).save(folder / "a.png")
        >>> _ = (folder / "b.png").write_text("not a picture")
        >>> pictures, damaged = read_all([folder / "a.png", folder / "b.png"], 3, (32, 32))
        >>> pictures[0].shape, len(damaged)
        ((3, 32, 32), 1)
    """
    images, bad = {}, []
    for place, file in enumerate(files):
        try:
            images[place] = _read_picture(file, channels, sides)
        except Exception as error:  # Pillow raises whatever its plug-ins raise
            bad.append(f"{file.name} ({reason_of(error, 60)})")
    return images, bad


def _files(folder: Path) -> Iterator[Path]:
    """All files below; links to folders are not followed, so none leads in circles."""
    for count, (place, _, names) in enumerate(os.walk(folder, followlinks=False)):
        for name in names:
            if not name.startswith("."):
                yield Path(place) / name
        if count > _MOST_FILES:
            return


def _read_picture(file: Path, channels: int, sides: tuple[int, int]) -> np.ndarray:
    """A picture, turned as its EXIF says, cropped to the middle in the proportions asked for, and resized.

    Args:
        file: Anything that Pillow reads.
        channels: 1 for grey, 3 for colour.
        sides: Height and width.

    Returns:
        uint8 (C,H,W).

    Raises:
        Exception: Whatever Pillow's plug-ins raise of files that are not pictures.
    """
    from PIL import Image, ImageOps

    if not file.is_file():
        raise OSError("it is not a file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as opened:
            opened.draft("RGB", (sides[1], sides[0]))
            turned = ImageOps.exif_transpose(opened) or opened
            picture = turned.convert("L" if channels == 1 else "RGB")
    picture = ImageOps.fit(picture, (sides[1], sides[0]), Image.Resampling.LANCZOS)
    array = np.asarray(picture, np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _from_arrays(path: Path, channels: int, sides: tuple[int, int], side: int, most: int) -> Pictures:
    import torch

    try:
        images = read_arrays(path)["images"]
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"--images {str(path)!r} cannot be read: {reason_of(error)}.",
            "Give a folder of pictures, or an .npz with the array `images` (uint8).",
        ) from error
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images) or images.shape[1] not in (1, 3):
        raise UsageError(
            f"--images {str(path)!r}: `images` is {images.dtype} {images.shape}.",
            "Give uint8 pictures (N,H,W,3) or (N,H,W), at least one.",
        )
    chosen = images[:: max(1, -(-len(images) // most))]
    if images.shape[1] == 3 and channels == 1:
        chosen = np.einsum("nchw,c->nhw", chosen.astype(np.float32), _GREY).round().astype(np.uint8)[:, None]
    elif images.shape[1] == 1 and channels == 3:
        chosen = np.repeat(chosen, 3, 1)
    height, width = chosen.shape[2:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    middle = torch.from_numpy(np.ascontiguousarray(chosen[:, :, top : top + edge, left : left + edge]))
    square = torch.cat([_resized(part, (side, side)) for part in middle.split(64)])
    return Pictures((square * 255).round().byte().numpy(), sides, str(path), len(images))


def _resized(pixels: Tensor, sides: tuple[int, int]) -> Tensor:
    """uint8 (N,C,h,w) to float (N,C,H,W) in [0, 1], averaging where it shrinks."""
    from torch.nn import functional as F

    return F.interpolate(pixels.float() / 255, sides, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)

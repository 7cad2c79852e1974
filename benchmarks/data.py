"""Readers of labelled data: for training teachers, for ceilings and for the final evaluation only."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgedafl.files.labelled_arrays import LabelledData

__all__ = ["DATASETS", "Reader", "read_idx", "read_mosaics", "resized"]

Reader = Callable[[Path, str, tuple[int, int, int]], LabelledData]
"""Folder, `train` or `test`, and the teacher's (C, H, W)."""


def read_idx(path: Path) -> np.ndarray:
    """One of the gzip-compressed idx files of MNIST and similar shapes, as uint8."""
    blob = gzip.decompress(path.read_bytes())
    rank = blob[3]
    shape = struct.unpack(f">{rank}I", blob[4 : 4 + 4 * rank])
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * rank).reshape(shape)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(N,28,28) uint8 to (N,1,side,side), bilinear, as the example teacher was trained."""
    import torch

    x = torch.from_numpy(images.copy()).unsqueeze(1).float()
    if side != images.shape[-1]:
        x = torch.nn.functional.interpolate(x, size=side, mode="bilinear", align_corners=False)
    return x.round().to(torch.uint8).numpy()


def read_mosaics(path: Path, *, grey: bool) -> LabelledData:
    """Images (N,1 or 3,H,W) and classes of a pack of mosaics."""
    from PIL import Image

    pack = np.load(path)
    blob, offsets = pack["blob"].tobytes(), pack["offsets"]
    columns, (height, width) = int(pack["cols"]), (int(t) for t in pack["tile"])
    pieces = []
    for start, end in pairwise(offsets):
        mosaic = np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("L" if grey else "RGB"))
        tiles = mosaic.reshape(mosaic.shape[0] // height, height, columns, width, -1)
        pieces.append(tiles.transpose(0, 2, 4, 1, 3).reshape(-1, tiles.shape[-1], height, width))
    labels = np.asarray(pack["labels"]).astype(np.int64)
    # The last mosaic is padded.
    return LabelledData(np.concatenate(pieces)[: len(labels)].copy(), labels)


def _idx(name: str) -> Reader:
    def read(folder: Path, split: str, shape: tuple[int, int, int]) -> LabelledData:
        stem = {"train": "train", "test": "t10k"}[split]
        images = resized(read_idx(folder / name / f"{stem}-images-idx3-ubyte.gz"), shape[1])
        return LabelledData(images, read_idx(folder / name / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64))

    return read


def _cifar(name: str) -> Reader:
    def read(folder: Path, split: str, shape: tuple[int, int, int]) -> LabelledData:
        kind = {"train": "jpegq95", "test": "webp_lossless"}[split]
        return read_mosaics(folder / f"{name}_{split}_{kind}.npz", grey=False)

    return read


def _smiles(folder: Path, split: str, shape: tuple[int, int, int]) -> LabelledData:
    data = read_mosaics(folder / f"smiles64_{split}.npz", grey=True)
    return LabelledData(data.images, data.labels.reshape(-1, 1))


DATASETS: dict[str, Reader] = {
    "mnist": _idx("mnist"),
    "fashion-mnist": _idx("fashion-mnist"),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "smiles": _smiles,
}

"""Weights of trained teachers in pieces that travel: half precision, at most 15 MB each.

    python -m benchmarks.pieces save resnet34_cifar10 FOLDER
    python -m benchmarks.pieces load resnet34_cifar10 FOLDER

`load` writes what `benchmarks.train_teachers` would have written. Only weights of two and more axes
are halved: biases and BatchNorm statistics keep all their digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.suites import TRAINED

__all__ = ["load_pieces", "save_pieces"]

_MOST = 15_000_000


def save_pieces(name: str, folder: Path) -> list[Path]:
    """Write the weights of a trained teacher as `NAME.0.safetensors`, `NAME.1.safetensors`, ..."""
    weights = load_file(TRAINED / f"{name}.safetensors")
    pieces: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for key, value in weights.items():
        small = value.half() if value.ndim > 1 else value
        size = small.numel() * small.element_size()
        if filled and filled + size > _MOST:
            pieces.append({})
            filled = 0
        pieces[-1][key] = small
        filled += size
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{number}.safetensors" for number in range(len(pieces))]
    for piece, path in zip(pieces, paths, strict=True):
        save_file(piece, path)
    return paths


def load_pieces(name: str, folder: Path) -> Path:
    """Put the pieces together again, in single precision."""
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob(f"{name}.[0-9]*.safetensors")):
        weights |= load_file(path)
    if not weights:
        raise SystemExit(f"{folder} holds no pieces of {name}.")
    TRAINED.mkdir(exist_ok=True)
    target = TRAINED / f"{name}.safetensors"
    save_file({key: value.float() if value.is_floating_point() else value for key, value in weights.items()}, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("save", "load"))
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print((save_pieces if args.action == "save" else load_pieces)(args.name, args.folder))


if __name__ == "__main__":
    main()

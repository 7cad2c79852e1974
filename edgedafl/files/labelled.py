"""Labelled pictures as people have them: class folders, a table of files and labels, or arrays."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedafl.errors import UsageError, reason_of
from edgedafl.files.class_names import read_class_names
from edgedafl.files.labelled_arrays import LabelledData, read_labelled
from edgedafl.files.pictures import read_all
from edgedafl.tasks import SINGLE_LABEL, Task

__all__ = ["LabelledSource"]

_MEMORY = 1 << 30
"""Bytes of pictures that are read; of more, evenly spread ones are."""
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(frozen=True)
class LabelledSource:
    """Where labelled pictures are.

    Attributes:
        path: A folder with one folder per class, a `.csv` of file and label, or an `.npz`.
        classes: Text file with the teacher's classes, one name per line, the first class first. Without it
            folders are numbered in the order of their names, as torchvision and Keras do it.

    Examples:
        >>> LabelledSource(Path("examples/mnist/sample.npz")).read((1, 32, 32), 10).labels.shape
        (1000,)
    """

    path: Path
    classes: Path | None = None

    def read(self, input_shape: tuple[int, int, int], num_classes: int, *, task: Task = SINGLE_LABEL) -> LabelledData:
        """Pictures at the model's size, cropped to the middle in its proportions, and their classes.

        Args:
            input_shape: (C, H, W) of the model.
            num_classes: Of the model.
            task: See `tasks`; of several labels only arrays tell.

        Raises:
            UsageError: If nothing can be read, or labels and classes do not fit each other.
        """
        if not self.path.is_dir() and self.path.suffix.lower() != ".csv":
            return read_labelled(self.path, input_shape, num_classes, task=task)
        if task != SINGLE_LABEL:
            raise UsageError(
                f"--eval {str(self.path)!r} gives one class per picture; the teacher's task is {task}.",
                "Give an .npz with `images` and `labels` of 0 and 1.",
            )
        rows = self._folders(num_classes) if self.path.is_dir() else self._table(num_classes)
        most = max(1, _MEMORY // int(np.prod(input_shape)))
        rows = rows[:: -(-len(rows) // most)]
        images, bad = read_all([file for file, _ in rows], input_shape[0], input_shape[1:])
        if not images:
            raise UsageError(
                f"--eval {str(self.path)!r}: none of {len(rows)} pictures can be read, e.g. {bad[0]}.",
                "Give PNG, JPEG, WebP or other pictures that Pillow reads.",
            )
        labels = [rows[place][1] for place in images]
        return LabelledData(np.stack([*images.values()]), np.array(labels, np.int64))

    def names(self, num_classes: int) -> list[str]:
        """What the classes are called; their numbers where nothing says more."""
        if self.classes is not None:
            return [*read_class_names(self.classes, num_classes)]
        if self.path.is_dir():
            folders = sorted(place.name for place in self.path.iterdir() if place.is_dir() and place.name[0] != ".")
            if len(folders) == num_classes and not all(name.isdecimal() for name in folders):
                return folders
        return [str(number) for number in range(num_classes)]

    def _folders(self, num_classes: int) -> list[tuple[Path, int]]:
        folders = sorted(place for place in self.path.iterdir() if place.is_dir() and not place.name.startswith("."))
        if not folders:
            raise UsageError(
                f"--eval {str(self.path)!r} has no folders in it.",
                "Make one folder per class; pictures without labels are for --images.",
            )
        numbers = self._numbers([folder.name for folder in folders], num_classes, "class folders")
        found = [
            (file, numbers[folder.name])
            for folder in folders
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in _PICTURES and file.is_file()
        ]
        if not found:
            raise UsageError(
                f"--eval {str(self.path)!r}: no picture lies in its {len(folders)} class folders.",
                "Give PNG, JPEG, WebP or other pictures that Pillow reads.",
            )
        return found

    def _table(self, num_classes: int) -> list[tuple[Path, int]]:
        try:
            text = self.path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--eval {str(self.path)!r} cannot be read: {reason_of(error)}.", "Give a CSV of file and label."
            ) from error
        rows = [row for row in csv.reader(text.splitlines()) if len(row) >= 2]
        pairs = [(self.path.parent / row[0].strip(), row[1].strip()) for row in rows]
        if pairs and not pairs[0][0].is_file():  # a line of headings
            pairs = pairs[1:]
        if not pairs:
            raise UsageError(
                f"--eval {str(self.path)!r} holds no line of file and label.", "Write lines such as cats/1.jpg,0."
            )
        numbers = self._numbers(sorted({label for _, label in pairs}), num_classes, "labels")
        return [(file, numbers[label]) for file, label in pairs]

    def _numbers(self, names: list[str], num_classes: int, what: str) -> dict[str, int]:
        """Class of every name: by the list of classes, by number, or by order."""
        if self.classes is not None:
            listed = read_class_names(self.classes, num_classes)
            known = {name: place for place, name in enumerate(listed)}
            strange = [name for name in names if name not in known]
            if strange:
                raise UsageError(
                    f"{str(self.classes)!r} does not list {strange[0]!r} ({len(strange)} of {len(names)} {what}).",
                    "Write the names as the teacher's classes are called, one per line, the first class first.",
                )
            return {name: known[name] for name in names}
        if all(name.isdecimal() and int(name) < num_classes for name in names):
            return {name: int(name) for name in names}
        if len(names) == num_classes:
            return {name: place for place, name in enumerate(names)}
        raise UsageError(
            f"--eval {str(self.path)!r} has {len(names)} {what}; the teacher has {num_classes} classes.",
            "Say which class is which: --classes-file NAMES.txt, one name per line, the first class first.",
        )

"""Labelled pictures as people have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedafl.errors import UsageError
from edgedafl.files.labelled import LabelledSource
from edgedafl.stages.class_errors import confusions, lost_classes
from tests.conftest import EXAMPLE, edgedafl

SHAPE = (3, 8, 8)


def folders(place: Path, names: list[str]) -> Path:
    """Two pictures per class, as bright as ten times the place of its name."""
    for level, name in enumerate(names):
        (place / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (12, 10), (10 * level,) * 3).save(place / name / f"{number}.png")
    return place


def levels(images: np.ndarray) -> list[int]:
    return (images[:, 0, 4, 4] // 10).tolist()


def test_class_folders_are_numbered_by_name(tmp_path: Path) -> None:
    data = LabelledSource(folders(tmp_path / "d", ["ant", "bee", "cat"])).read(SHAPE, 3)
    assert data.images.shape == (6, 3, 8, 8) and data.images.dtype == np.uint8
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2] == levels(data.images)


def test_a_list_of_classes_numbers_them_otherwise_and_may_hold_more(tmp_path: Path) -> None:
    place = folders(tmp_path / "d", ["ant", "bee"])
    (tmp_path / "names.txt").write_text("dog\nbee\n\nant\n", "utf-8-sig")
    data = LabelledSource(place, tmp_path / "names.txt").read(SHAPE, 3)
    assert data.labels.tolist() == [2, 2, 1, 1]


def test_folders_named_by_numbers_are_the_classes(tmp_path: Path) -> None:
    data = LabelledSource(folders(tmp_path / "d", ["2", "10"])).read(SHAPE, 11)
    assert sorted(zip(data.labels.tolist(), levels(data.images), strict=True)) == [(2, 0), (2, 0), (10, 1), (10, 1)]


@pytest.mark.parametrize("heading", ["", "file,label\n"])
@pytest.mark.parametrize("labels", [("bee", "ant"), ("1", "0")])
def test_a_table_of_files_and_labels(tmp_path: Path, heading: str, labels: tuple[str, str]) -> None:
    place = folders(tmp_path, ["ant", "bee"])
    (place / "t.csv").write_text(f"{heading}bee/0.png,{labels[0]}\nant/1.png, {labels[1]}\nant/gone.png,{labels[1]}\n")
    data = LabelledSource(place / "t.csv").read((1, 8, 8), 2)
    assert (data.labels.tolist(), levels(data.images)) == ([1, 0], [1, 0])


def test_wide_pictures_keep_their_middle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "a" / "wide.png")
    data = LabelledSource(tmp_path).read(SHAPE, 1)
    assert data.images.min() == 200


@pytest.mark.parametrize(
    ("names", "listed", "classes", "words"),
    [
        ([], None, 2, "has no folders"),
        (["ant", "bee"], None, 3, "has 2 class folders; the teacher has 3 classes"),
        (["ant", "bee"], "ant\ncat\n", 2, "does not list 'bee'"),
        (["ant", "bee"], "ant\n", 2, "lists 1 classes; the teacher has 2"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, names: list[str], listed: str | None, classes: int, words: str
) -> None:
    (tmp_path / "d").mkdir()
    place = folders(tmp_path / "d", names)
    if listed is not None:
        (tmp_path / "names.txt").write_text(listed)
    with pytest.raises(UsageError, match=words):
        LabelledSource(place, None if listed is None else tmp_path / "names.txt").read(SHAPE, classes)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    place = folders(tmp_path / "d", ["ant", "bee"])
    (place / "ant" / "broken.png").write_bytes(b"no picture")
    (place / "ant" / "notes.txt").write_text("none")
    assert len(LabelledSource(place).read(SHAPE, 2).labels) == 4
    for file in place.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of 5 pictures can be read"):
        LabelledSource(place).read(SHAPE, 2)


def test_classes_that_lose_are_listed_by_pictures_lost() -> None:
    labels = np.array([0] * 4 + [1] * 10 + [2] * 5)
    teacher = labels.copy()
    teacher[4:6] = 0  # two of class 1
    mine = labels.copy()
    mine[0] = 2
    mine[4:9] = 2
    names = ["ant", "bee", "cat"]
    found = lost_classes(labels, teacher, mine, names)
    assert [(row.name, row.images, row.teacher, row.artifact, row.taken_for) for row in found] == [
        ("bee", 10, 0.8, 0.5, "cat"),
        ("ant", 4, 1.0, 0.75, "cat"),
    ]
    confused = confusions(labels, teacher, mine, names)
    assert [(row.name, row.answered, row.teacher, row.artifact) for row in confused] == [
        ("bee", "cat", 0, 5),
        ("ant", "cat", 0, 1),
    ]


def test_the_command_measures_on_a_folder(tmp_path: Path) -> None:
    sample = np.load(EXAMPLE / "sample.npz")
    for place, (image, label) in enumerate(zip(sample["images"][:60], sample["labels"][:60], strict=True)):
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(folder / f"{place}.png")
    done = edgedafl(
        "compress", EXAMPLE / "teacher.onnx", "--input-mean=0.1307", "--input-std=0.3081", "--eval", tmp_path / "digits",
        "--student=kept:1", "--steps=1", "--device=none", "-o", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 0, done.err
    report = (tmp_path / "run" / "report.md").read_text()
    lost = json.loads((tmp_path / "run" / "run.json").read_text())["stages"]["verify"]["result"]["lost"]["int8"]
    assert ("Classes that lost most" in report) == bool(lost)
    accuracy = next(line for line in done.out.splitlines() if line.strip().startswith("accuracy"))
    assert "100.00 %" in accuracy or "98." in accuracy, accuracy

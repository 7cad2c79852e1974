"""Pictures of the user's own, as people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgedafl.errors import UsageError
from edgedafl.files.pictures import read_pictures

SHAPE = (3, 32, 32)


def picture(path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object) -> Path:
    random = np.random.default_rng(len(path.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    image.save(path, **options)
    return path


def test_a_folder_of_all_kinds_is_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "deep" / f"{number}.jpg")
    picture(tmp_path / "grey.png", mode="L")
    picture(tmp_path / "transparent.png", mode="RGBA")
    picture(tmp_path / "palette.gif", mode="P")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "deep" / "1.jpg").read_bytes()[:200])
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    found = read_pictures(tmp_path, SHAPE)
    assert found.images.shape == (13, 3, 40, 40) and found.images.dtype == np.uint8
    assert len(found.unreadable) == 3
    assert any("notes.txt" in text for text in found.unreadable)


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :20] = 255  # the left third
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (image,) = read_pictures(tmp_path, SHAPE).images
    assert image[:, :5].mean() > 200 > 50 > image[:, -10:].mean()


def test_a_part_is_held_back_and_never_drawn(tmp_path: Path) -> None:
    images = np.repeat(np.arange(50, dtype=np.uint8).reshape(-1, 1, 1, 1), 32 * 32 * 3, 1).reshape(50, 32, 32, 3)
    np.savez(tmp_path / "p.npz", images=images)
    found = read_pictures(tmp_path / "p.npz", SHAPE)
    held = (found.held_back.mean((1, 2, 3)) * 255).round().int().tolist()
    assert held == list(range(0, 50, 5))
    drawn = found.draw(300, SHAPE, torch.Generator().manual_seed(0))
    assert drawn.shape == (300, *SHAPE) and float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    seen = set((drawn.mean((1, 2, 3)) * 255).round().int().tolist())
    assert not seen & set(held) and len(seen) > 30


@pytest.mark.parametrize(("given", "channels"), [("L", 3), ("RGB", 1)])
def test_grey_and_colour_are_brought_to_what_the_teacher_takes(given: str, channels: int, tmp_path: Path) -> None:
    picture(tmp_path / "one.png", mode=given)
    assert read_pictures(tmp_path, (channels, 28, 28)).images.shape == (1, channels, 35, 35)
    array = np.asarray(Image.open(tmp_path / "one.png"))[None]
    np.savez(tmp_path / "one.npz", images=array)
    assert read_pictures(tmp_path / "one.npz", (channels, 28, 28)).images.shape == (1, channels, 35, 35)


def test_of_very_many_files_evenly_spread_ones_are_used(tmp_path: Path) -> None:
    first = picture(tmp_path / "00000.png", size=(8, 8))
    for number in range(1, 2500):
        (tmp_path / f"{number:05}.png").hardlink_to(first)
    found = read_pictures(tmp_path, (3, 8, 8))
    assert found.found == 2500 and len(found.images) == 1250


def test_what_is_no_folder_of_pictures_is_one_sentence(tmp_path: Path) -> None:
    empty, texts = tmp_path / "empty", tmp_path / "texts"
    empty.mkdir()
    texts.mkdir()
    (texts / "a.txt").write_text("a")
    np.savez(tmp_path / "floats.npz", images=np.zeros((2, 8, 8, 3), np.float32))
    np.savez(tmp_path / "nothing.npz", pictures=np.zeros((2, 8, 8, 3), np.uint8))
    cases = {
        tmp_path / "missing": "does not exist",
        empty: "empty folder",
        texts: "no picture among them",
        tmp_path / "floats.npz": "float32",
        tmp_path / "nothing.npz": "cannot be read",
    }
    for path, text in cases.items():
        with pytest.raises(UsageError, match=text):
            read_pictures(path, SHAPE)
    picture(tmp_path / "fine" / "one.png")
    with pytest.raises(UsageError, match="takes 12 channels"):
        read_pictures(tmp_path / "fine", (12, 32, 32))

"""Targets from files of the user's and from other packages."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedafl.errors import EnvironmentMissingError, UsageError
from edgedafl.latency import estimate_latency
from edgedafl.students import build_student, module_layers
from edgedafl.targets import find_target, list_targets, registry
from tests.conftest import assert_clean_failure, edgedafl


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """A file that begins as `edgedafl targets rpi5 --toml` and differs in some lines."""

    def write(*changes: tuple[str, str], name: str = "my-board.toml") -> Path:
        text = edgedafl("targets", "rpi5", "--toml").out
        for before, after in (('name = "rpi5"', 'name = "my-board"'), *changes):
            assert before in text
            text = text.replace(before, after)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_every_installed_target_is_valid_by_the_same_rules() -> None:
    assert {t.name for t in list_targets()} >= {"rpi4", "rpi5", "android-arm64", "jetson-orin-nano", "x86-64-vnni"}


def test_a_file_is_a_target_and_its_chip_may_be_specified(board: Callable[..., Path]) -> None:
    own = board(('chip = "BCM2712"', 'family = "A76+"\nlanes = 8\nclock_ghz = 1.2\nbandwidth_gb_s = 8.5'))
    slow, fast = find_target(str(own)), find_target("rpi5")
    assert (slow.name, slow.runtime, slow.scheme) == ("my-board", fast.runtime, fast.scheme)
    layers = module_layers(build_student("resnet20", (3, 32, 32), 10).module, (3, 32, 32))
    assert estimate_latency(layers, slow, "int8").median > 1.5 * estimate_latency(layers, fast, "int8").median


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('runtime = "onnxruntime"', 'runtme = "onnxruntime"'), "unknown key 'runtme'"),
        (('runtime = "onnxruntime"\n', ""), "lacks 'runtime'"),
        (('runtime = "onnxruntime"', 'runtime = "tvm"'), "runtime = 'tvm'"),
        (("opset = 18", 'opset = "18"'), "opset = '18'"),
        (("opset = 18", "opset = 99"), "opset = 99"),
        (("channel_multiple = 8", "channel_multiple = 0"), "channel_multiple"),
        (('name = "my-board"', 'name = "My board/.."'), "is not a name"),
        (("quantize_bias = true", 'quantize_bias = "yes"'), "scheme.quantize_bias = 'yes'"),
        (("quantize_bias = true", "quantise_bias = true"), "unknown key 'scheme.quantise_bias'"),
        (('chip = "BCM2712"', "lanes = 8"), "[device] says neither"),
        (("opset = 18", "opset = = 18"), "not valid TOML"),
    ],
)
def test_mistakes_are_one_sentence_each(board: Callable[..., Path], change: tuple[str, str], words: str) -> None:
    path = board(change)
    with pytest.raises(UsageError) as caught:
        find_target(str(path))
    assert words in caught.value.message and "my-board.toml" in caught.value.message


def test_a_missing_file_and_a_chip_that_nothing_is_known_of(board: Callable[..., Path], tmp_path: Path) -> None:
    assert_clean_failure(edgedafl("targets", tmp_path / "none.toml"), 2, "cannot be read")
    target = find_target(str(board(('chip = "BCM2712"', 'chip = "Z80"'))))
    layers = module_layers(build_student("resnet8", (3, 32, 32), 10).module, (3, 32, 32))
    with pytest.raises(UsageError, match="nothing is known of the chip 'Z80'"):
        estimate_latency(layers, target, "int8")


def test_other_packages_bring_targets(board: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = board()

    class Point:
        name, value = "their-board", "their_package:TARGET"

        def load(self) -> str:
            return str(path)

    class Broken(Point):
        name = "broken"

        def load(self) -> str:
            raise ImportError("no such thing")

    def install(*points: Point) -> None:
        registry._files.cache_clear()
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == registry.GROUP else ())

    try:
        install(Point())
        assert find_target("their-board").name == "my-board"
        install(Broken())
        with pytest.raises(EnvironmentMissingError, match=r"'broken'.*cannot be loaded: no such thing"):
            find_target("rpi5")
    finally:
        registry._files.cache_clear()


def test_a_run_keeps_the_target_it_was_made_for(board: Callable[..., Path], tmp_path: Path, tiny_onnx: Path) -> None:
    path = board(("opset = 18", "opset = 17"))
    run = tmp_path / "run"
    flags = ("--student", "kept:1", "--device", "none", "--input-range", "0,1", "--min-fidelity", "0")
    done = edgedafl("compress", tiny_onnx, "--target", path, "-o", run, *flags)
    assert done.code == 0, done.err
    path.unlink()
    assert json.loads((run / "run.json").read_text())["target"]["name"] == "my-board"
    assert (run / "bundles" / "my-board" / "manifest.json").is_file()
    again = edgedafl("export", run, "--json")
    assert again.code == 0, again.err
    assert again.json["directory"] == "bundles/my-board"

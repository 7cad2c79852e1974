"""Which candidates are looked at on the way down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn

from edgedafl.config import CompressConfig
from edgedafl.errors import UsageError
from edgedafl.graph.compact import compact
from edgedafl.graph.edit import strip_metadata
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.runs import Band, Candidate
from edgedafl.stages import Ladder, build_ladder, builder, possible_bits, pruner_of, study_teacher
from edgedafl.stages.candidates import Candidates
from edgedafl.stages.ladder import _promise, _smallest_that_holds
from edgedafl.stages.prepare import _trains
from edgedafl.targets import find_target
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher, load_teacher
from tests.conftest import EXAMPLE, export

SHARES = (0.25, 0.35, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0)


class Rungs:
    """Candidates that hold from one share on."""

    def __init__(self, least: float, slowest: float) -> None:
        self.least, self.slowest = least, slowest
        self.asked: list[float] = []

    def judged(self, candidate: Candidate) -> Candidate:
        self.asked.append(candidate.share)
        cautious = 0.99 if candidate.share >= self.least else 0.5
        band = Band(cautious, cautious, cautious, cautious, "predicted", 0)
        return replace(candidate, untrained=band, expected=band)


def outlines() -> list[Candidate]:
    return [Candidate(f"kept:{s}", s, (3, 8, 8), int(1000 * s), 1, int(1000 * s), None) for s in SHARES]


@pytest.mark.parametrize("least", [*SHARES, 2.0])
def test_the_smallest_that_holds_is_found_and_the_whole_teacher_is_the_last_resort(least: float) -> None:
    for slowest in (0.0, 60.0):
        rungs = Rungs(least, slowest)
        ladder = _smallest_that_holds(rungs, outlines(), 0.95)  # type: ignore[arg-type]
        assert ladder.candidates[ladder.chosen].share == min(least, 1.0)
        assert len(rungs.asked) == len(set(rungs.asked)), "nothing is judged twice"
        assert (len(rungs.asked) == len(SHARES)) or slowest


def test_where_a_candidate_takes_long_few_are_judged() -> None:
    nothing_holds, all_hold = Rungs(1.0, 60.0), Rungs(0.0, 60.0)
    _smallest_that_holds(nothing_holds, outlines(), 0.95)  # type: ignore[arg-type]
    _smallest_that_holds(all_hold, outlines(), 0.95)  # type: ignore[arg-type]
    assert nothing_holds.asked == [1.0, 0.95]
    assert all_hold.asked == [1.0, 0.95, 0.75, 0.25]


def test_a_teacher_whose_arithmetic_is_not_known_is_trained_all_the_same(tiny_teacher: Teacher) -> None:
    study = study_teacher(tiny_teacher)
    student = pruner_of(tiny_teacher, study).student("pruned:0.5")
    config = CompressConfig()
    tiny_teacher.spec = replace(tiny_teacher.spec, macs=0)
    assert _trains(student, study, 60.0, config, tiny_teacher)
    assert not _trains(student, study, 1e-3, config, tiny_teacher)


def test_where_as_much_is_expected_weights_and_arithmetic_decide() -> None:
    """Below all that predictions know they are the same for candidates that differ by points."""
    band, better = Band(0.674, 0.5, 0.8, 0.6), Band(0.69, 0.5, 0.8, 0.6)

    def candidate(name: str, share: float, macs: int, expected: Band) -> Candidate:
        return Candidate(name, share, (3, 112, 112), 1000, macs, 1000, 0.002, expected, expected)

    narrow, large = candidate("kept:0.35@144", 0.35, 73, band), candidate("kept:1@112", 1.0, 70, band)
    small, known = candidate("kept:1@96", 1.0, 55, band), candidate("kept:0.45@144", 0.45, 60, better)
    assert sorted([small, known, large, narrow], key=_promise) == [narrow, small, large, known]


def test_transformers_begin_before_their_heads_go() -> None:
    """Kept to 60 % of its weights one was promised 99 % and kept 94.5."""

    def least(text: str) -> float:
        pruner = SimpleNamespace(graph=onnx.parser.parse_model(text), cuts=True)
        rungs = SimpleNamespace(_pruner=pruner, _precision="int8", shares=SHARES)
        rungs._whole = SimpleNamespace(spec=SimpleNamespace(parameters=1_000_000))
        return Candidates.shares_from_least(rungs)[0]  # type: ignore[arg-type]

    head = '<ir_version: 8, opset_import: ["": 18]> g (float[n,4] image) => (float[n,4] logits) '
    assert least(head + "{ logits = Relu(image) }") == 0.25
    assert least(head + "{ seen = Softmax(image)  logits = Mul(seen, image) }") == 0.7


def test_a_limit_on_size_takes_bits_before_it_takes_weights() -> None:
    teacher = load_teacher(str(EXAMPLE / "teacher.onnx"), TeacherOptions(mean=(0.1307,), std=(0.3081,)))
    study, target = study_teacher(teacher), find_target("rpi4")

    def ladder(size: str, **settings: object) -> Ladder:
        config = CompressConfig(max_size=size, **settings)
        return build_ladder(builder(config, teacher, study, target), study, target, "int8", config)

    enough, less, least = ladder("70KB"), ladder("45KB"), ladder("20KB")
    assert [(c.name, c.weight_bits) for c in enough.candidates] == [("kept:1", 8.0)]
    chosen = less.candidates[less.chosen]
    assert chosen.name == "kept:1" and 5 < chosen.weight_bits < 6 and 44_000 < chosen.size <= 45_000
    beside = next(c for c in less.candidates if c is not chosen)
    assert beside.share < 1 and beside.weight_bits == 8, "a cut one of eight bits is shown"
    assert all(c.share < 1 and c.size <= 20_000 for c in least.candidates)
    assert {c.weight_bits for c in least.candidates} == {8.0, 5.0, 3.5}
    held = ladder("45KB", max_ram="1MB")
    assert [c.weight_bits for c in held.candidates] == [8.0], "to load fewer bits takes memory"


def test_where_scales_and_nodes_make_a_large_file_the_whole_teacher_takes_fewer_bits(tmp_path: Path) -> None:
    """Depthwise layers have a scale and a bias for nine weights: eight bits leave 31 % of the file."""
    layers: list[nn.Module] = [nn.Conv2d(1, 64, 3, 2, 1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4))
    path = tmp_path / "net.onnx"
    model = module_to_onnx(net.eval(), torch.zeros(2, 1, 16, 16), input_name="image", output_name="scores")
    onnx.save(compact(strip_metadata(model)), path)
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
    study = study_teacher(teacher)

    def ladder(target: str, **settings: object) -> Ladder:
        config, found = CompressConfig(**settings), find_target(target)
        return build_ladder(builder(config, teacher, study, found), study, found, "int8", config)

    nothing_asked = ladder("rpi4", min_fidelity=0.999)
    fewer, eight = nothing_asked.candidates[-2:]
    assert (fewer.name, eight.name, eight.weight_bits) == ("kept:1", "kept:1", 8.0)
    assert 6 <= fewer.weight_bits < 8
    assert fewer.size <= 0.27 * path.stat().st_size < eight.size
    for others in (ladder("jetson"), ladder("android-litert"), ladder("rpi4", max_ram="10MB")):
        assert {c.weight_bits for c in others.candidates} == {8.0}


def test_a_file_that_fewer_bits_do_not_make_smaller_is_cut(tmp_path: Path) -> None:
    """What takes weights apart takes more bytes than a few hundred weights save."""
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    teacher = load_onnx_teacher(export(net, tmp_path / "net.onnx", (1, 16, 16)), TeacherOptions(input_range=(0.0, 1.0)))
    study, target = study_teacher(teacher), find_target("rpi4")

    def candidates(size: str | None) -> tuple[Candidate, ...]:
        config = CompressConfig(max_size=size)
        return build_ladder(builder(config, teacher, study, target), study, target, "int8", config).candidates

    whole = max(candidates(None), key=lambda c: c.share)
    found = candidates(f"{whole.size - 200}B")
    assert found and all(c.share < 1 and c.size <= whole.size - 200 for c in found)


def test_bits_that_a_target_does_not_have_are_refused_in_one_sentence() -> None:
    for target, precision, found in (("jetson", "int8", "at least 8 bits"), ("rpi4", "fp32", "weights of fp32")):
        with pytest.raises(UsageError, match=found):
            possible_bits(CompressConfig(weight_bits=5), find_target(target), precision)
    assert possible_bits(CompressConfig(weight_bits=8), find_target("jetson"), "int8") == (8.0,)
    assert possible_bits(CompressConfig(max_size="1KB"), find_target("jetson"), "int8") == (8.0,)
    assert possible_bits(CompressConfig(max_size="1KB"), find_target("android-litert"), "int8") == (8.0, 6.0, 5.0, 4.0)

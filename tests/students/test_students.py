"""Architectures, the user's own student, and the fit to a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgedafl.errors import UsageError
from edgedafl.students import (
    ARCHITECTURES,
    Budget,
    Candidate,
    Student,
    build_student,
    fit_student,
    students_below,
    usual_students,
)

SHAPE = (1, 32, 32)


def fit(parameters: int = 61_706, macs: int = 416_520, shape: tuple[int, int, int] = SHAPE, **given: Any) -> Candidate:
    return fit_student(
        usual_students(macs, shape, pruned=False),
        lambda name: build_student(name, shape, 10),
        teacher_parameters=parameters,
        bytes_per_weight=1,
        **given,
    )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 48, 64), (2, 33, 47)])
@pytest.mark.parametrize("name", [n if n != "resnet18" else "resnet18:0.25" for n in ARCHITECTURES])
def test_every_architecture_takes_every_image(name: str, shape: tuple[int, int, int]) -> None:
    student = build_student(name, shape, 7)
    assert student.module(torch.zeros(2, *shape)).shape == (2, 7)
    assert student.spec.macs > student.spec.parameters / 10


def test_students_are_chosen_near_a_quarter_of_the_teacher() -> None:
    found = fit(budget=Budget())
    assert found.spec.name == "lenet5-half"
    assert found.spec.parameters == 15_738


def test_small_networks_get_plain_students_at_any_image_size() -> None:
    found = fit(900_000, 19_000_000, (1, 28, 28), budget=Budget())
    assert found.spec.architecture == "convnet"
    assert 100_000 < found.spec.parameters <= 1.1 * 900_000 / 4


def test_students_below_a_teacher_are_smaller_than_it() -> None:
    def build(name: str) -> Student:
        return build_student(name, SHAPE, 10)

    names = students_below(usual_students(416_520, SHAPE, pruned=False), build, 61_706)
    assert names[0] == "lenet5:0.25" and "lenet5-half" in names
    assert all(build(name).spec.parameters < 61_706 for name in names)
    large = usual_students(0, (3, 64, 64), pruned=False)
    assert "resnet8:0.25" in students_below(large, lambda name: build_student(name, (3, 64, 64), 5), 0)
    assert students_below(names[:1], build, 10) == names[:1]


def test_large_teachers_get_residual_students() -> None:
    found = fit(270_000, 40_000_000, (3, 32, 32), budget=Budget())
    assert found.spec.architecture.startswith("resnet")
    assert found.spec.parameters <= 1.1 * 270_000 / 4


@pytest.mark.parametrize("limit", [20_000, 30_000, 80_000])
def test_a_size_limit_is_kept_and_used(limit: int) -> None:
    found = fit(budget=Budget(size=limit))
    assert found.size <= limit
    assert found.size >= 0.5 * limit


def test_an_impossible_budget_names_the_smallest_that_fits() -> None:
    with pytest.raises(UsageError, match=r"smallest student \(lenet5:0.25\) needs about 16"):
        fit(budget=Budget(size=1000))
    with pytest.raises(UsageError, match=r"fastest .* takes about 2 ms"):
        fit(budget=Budget(latency=1e-6), latency_of=lambda s: 2e-3)


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(UsageError) as caught:
        build_student("resnet21", (3, 32, 32), 10)
    assert "resnet20" in caught.value.hint
    with pytest.raises(UsageError, match="width"):
        build_student("resnet8:wide", (3, 32, 32), 10)
    with pytest.raises(UsageError, match="cannot take images"):
        build_student("lenet5", (1, 8, 8), 10)


def test_the_users_own_student(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text(
        "from torch import nn\n"
        "def build(input_shape, num_classes):\n"
        "    c, h, w = input_shape\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))\n"
        "def wrong(input_shape, num_classes):\n    return nn.Flatten()\n"
    )
    student = build_student(f"{file}:build", (1, 16, 16), 3)
    assert student.spec.parameters == 256 * 3 + 3
    with pytest.raises(UsageError, match="answers shape"):
        build_student(f"{file}:wrong", (1, 16, 16), 3)
    with pytest.raises(UsageError, match="no function 'nope'"):
        build_student(f"{file}:nope", (1, 16, 16), 3)
    with pytest.raises(UsageError, match="does not exist"):
        build_student(f"{tmp_path}/no.py:build", (1, 16, 16), 3)

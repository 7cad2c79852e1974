"""Architectures by name, and students from the user's own file."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from edgedafl.errors import UsageError, did_you_mean
from edgedafl.module_cost import module_macs
from edgedafl.students.base import PRUNED, Student, StudentSpec
from edgedafl.students.convnet import ConvNet
from edgedafl.students.lenet import LeNet
from edgedafl.students.mobilenet import MobileNetV2
from edgedafl.students.resnet import cifar_resnet, wide_stem_resnet

__all__ = ["ARCHITECTURES", "build_student"]

_Builder = Callable[[tuple[int, int, int], int, float], nn.Module]

_resnet18 = functools.partial(wide_stem_resnet, blocks=(2, 2, 2, 2))
ARCHITECTURES: dict[str, _Builder] = {
    "convnet": ConvNet,
    "lenet5": LeNet,
    "lenet5-half": lambda shape, classes, width: LeNet(shape, classes, 0.5 * width),
    "resnet8": functools.partial(cifar_resnet, depth=8),
    "resnet14": functools.partial(cifar_resnet, depth=14),
    "resnet20": functools.partial(cifar_resnet, depth=20),
    "resnet18": _resnet18,
    "mobilenetv2": MobileNetV2,
}


def build_student(name: str, input_shape: tuple[int, int, int], num_classes: int) -> Student:
    """Build a student.

    Args:
        name: `resnet8`, `resnet8:0.5` (a width), or `my.py:build`, a function that takes
            `input_shape` and `num_classes` and returns a module.
        input_shape: (C, H, W).
        num_classes: K.

    Raises:
        UsageError: If there is no such architecture, or it does not fit the image.

    Examples:
        >>> student = build_student("resnet8:0.5", (3, 32, 32), 10)
        >>> student.spec.parameters
        19954
    """
    architecture, width = _parse(name)
    try:
        module = _construct(architecture, width, input_shape, num_classes)
        with torch.no_grad():
            logits = module.eval()(torch.zeros(2, *input_shape))
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UsageError(
            f"The student {name!r} cannot take images of shape {input_shape}: {str(error).splitlines()[0]}",
            "Choose another with --student; LeNet needs sides of 16 and more.",
        ) from error
    if tuple(logits.shape) != (2, num_classes):
        raise UsageError(
            f"The student {name!r} answers shape {tuple(logits.shape)} for two images; expected (2, {num_classes}).",
        )
    parameters = sum(p.numel() for p in module.parameters())
    macs = module_macs(module, input_shape)
    spec = StudentSpec(name, architecture, width, input_shape, num_classes, parameters, macs)
    return Student(module.train(), spec)


def _parse(name: str) -> tuple[str, float]:
    if ".py:" in name:
        return name, 1.0
    architecture, _, width = name.partition(":")
    if architecture not in ARCHITECTURES:
        nearest = did_you_mean(architecture, [*ARCHITECTURES, PRUNED], most=3)
        raise UsageError(
            f"There is no student {architecture!r}.",
            f"{nearest}Known: {', '.join(ARCHITECTURES)}, {PRUNED}:0.5 (cut out of the teacher), or my.py:build.",
        )
    try:
        factor = float(width or 1)
    except ValueError:
        factor = 0.0
    if factor <= 0:
        raise UsageError(f"The student width {width!r} is not a positive number.", "Write it like resnet8:0.5.")
    return architecture, factor


def _construct(architecture: str, width: float, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    if ".py:" not in architecture:
        return ARCHITECTURES[architecture](input_shape, num_classes, width)
    file, _, function = architecture.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"The student file {file!r} does not exist.", "Write it like my.py:build.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder = getattr(module, function, None)
    if builder is None:
        raise UsageError(f"{file!r} has no function {function!r}.", "Write it like my.py:build.")
    student = builder(input_shape=input_shape, num_classes=num_classes)
    if not isinstance(student, nn.Module):
        raise UsageError(f"{architecture!r} returned {type(student).__name__}; expected a torch.nn.Module.")
    return student

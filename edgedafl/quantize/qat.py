"""Data-free quantization-aware training: weights that know they will be rounded.

The student runs with its Q/DQ pairs in place, rounding passed straight through, and learns from
the teacher's scores on generated images. What comes out are float weights for the same graph;
quantizing them again is left to the usual way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.graph.batch import free_batch, value_shapes
from edgedafl.graph.edit import copy_of
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.trainable import weight_names
from edgedafl.quantize.calibration import CalibrationSet
from edgedafl.quantize.ptq import quantize_graph
from edgedafl.quantize.ranges import Activation
from edgedafl.targets import QuantizationScheme
from edgedafl.tasks import Task, states

__all__ = ["QAT_SECONDS", "train_quantized"]

QAT_SECONDS = 60.0
"""Most seconds of quantization-aware training."""
_STEPS = 400
_TRIED = 3  # steps that tell how long one takes
_BATCH = 64
_MEMORY, _FEWEST = 3 << 28, 4  # bytes of what a pass keeps for its gradient; images of one
_RATE = 0.04  # integer steps
_TEMPERATURE = 2.0
_LARGEST_INTEGER = 127
_SMALLEST_STEP = 1e-12


def train_quantized(
    model: onnx.ModelProto,
    scheme: QuantizationScheme,
    calibration: CalibrationSet,
    activations: Mapping[str, Activation],
    method: str,
    *,
    steps: int = _STEPS,
    seconds: float = QAT_SECONDS,
    least: int = 0,
    seed: int = 0,
) -> onnx.ModelProto | None:
    """The float graph with weights trained under the scheme's rounding; None where the time allows too few steps.

    Args:
        model: Float32 graph at batch 1.
        scheme: The target's integer scheme.
        calibration: With the images to train on and the teacher's logits for them.
        activations: Of the float graph on the calibration images.
        method: Calibration method of the ranges.
        steps: Most steps.
        seconds: Most seconds.
        least: Steps that the time must allow: fewer shake the weights and mend nothing.
        seed: Of the order of images.

    Raises:
        ValueError: If the calibration set holds no images to train on.

    Examples:
        >>> from edgedafl.quantize import observe_activations
        >>> from edgedafl.runs import RunDirectory
        >>> from edgedafl.targets import find_target
        >>> model = onnx.load("runs/teacher-rpi4/models/rpi4/fp32.onnx")
        >>> own = CalibrationSet.load(RunDirectory("runs/teacher-rpi4").calibration)
        >>> seen, scheme = observe_activations(model, own.images()), find_target("rpi4").scheme
        >>> trained = train_quantized(model, scheme, own, seen, "min-max", steps=2)
        >>> len(trained.graph.node) == len(model.graph.node)
        True
    """
    if not len(calibration.training_pixels):
        raise ValueError("no images to train on")
    module, at_once = _trainable(quantize_graph(model, scheme, activations, method, trainable=True))
    moving = _Moving(module.make_trainable(weight_names(model)))
    optimizer = torch.optim.Adam(moving.moves.values(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * k / steps)))
    start, done = time.monotonic(), 0
    for step, rows in enumerate(_batches(len(calibration.training_pixels), steps, seed)):
        elapsed = time.monotonic() - start
        if elapsed > seconds or (step == _TRIED and elapsed / _TRIED * min(least, steps) > seconds):
            break
        images, wanted = map(torch.from_numpy, calibration.training_batch(rows))
        moving.place()
        for part, answers in zip(images.split(at_once), wanted.split(at_once), strict=True):
            _loss(module(part), answers, calibration.task).backward()
        moving.take_gradients()
        optimizer.step()
        schedule.step()
        done = step + 1
    return None if done < min(least, steps) else _with_weights(model, moving.values())


def _trainable(frozen: onnx.ModelProto) -> tuple[OnnxModule, int]:
    """A graph at batch 1 for any batch, and how many images of one go through it at once."""
    _, channels, rows, columns = (side.dim_value for side in frozen.graph.input[0].type.tensor_type.shape.dim)
    shapes = value_shapes(frozen, (channels, rows, columns))
    at_once = max(_FEWEST, _MEMORY // (4 * sum(math.prod(shape) for shape in shapes.values())))
    return OnnxModule(free_batch(frozen, shapes)), at_once


def _batches(count: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of each step's images."""
    random = np.random.default_rng(seed)
    return (random.choice(count, _BATCH) for _ in range(steps))


class _Moving:
    """Weights that move in units of their own integer step, channel by channel: layers of any scale learn alike.

    Args:
        weights: The trainable ones, by name.

    Attributes:
        moves: By how many integer steps each has moved; what an optimizer changes.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._units = {name: _integer_step(value.detach()) for name, value in weights.items()}
        self._starts = {name: value.detach().clone() for name, value in weights.items()}
        self.moves = {name: torch.zeros_like(value, requires_grad=True) for name, value in weights.items()}

    @torch.no_grad()
    def place(self) -> None:
        """Put the weights where the moves say."""
        for name, value in self._weights.items():
            value.copy_(self._starts[name] + self._units[name] * self.moves[name])
            value.grad = None

    def take_gradients(self) -> None:
        """Turn the weights' gradients into those of the moves."""
        for name, value in self._weights.items():
            self.moves[name].grad = None if value.grad is None else value.grad * self._units[name]

    def values(self) -> dict[str, np.ndarray]:
        """The weights as they have come to be."""
        moved = {name: self._starts[name] + self._units[name] * self.moves[name] for name in self._weights}
        return {name: value.detach().numpy() for name, value in moved.items()}


def _integer_step(weight: Tensor) -> Tensor:
    """What one integer of a weight stands for, per output channel; of a bias per vector."""
    flat = weight.abs().reshape(len(weight), -1) if weight.ndim > 1 else weight.abs().reshape(1, -1)
    step = flat.amax(1) / _LARGEST_INTEGER
    return step.reshape(-1, *[1] * (weight.ndim - 1)).clamp_min(_SMALLEST_STEP)


def _loss(student: Tensor, teacher: Tensor, task: Task) -> Tensor:
    """Of a part of a batch; the parts add up to its mean."""
    soft = torch.log_softmax(states(student.reshape(len(teacher), -1), task) / _TEMPERATURE, -1)
    wanted = torch.softmax(states(teacher, task) / _TEMPERATURE, -1)
    return torch.nn.functional.kl_div(soft, wanted, reduction="sum") * _TEMPERATURE**2 / _BATCH


def _with_weights(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    trained = copy_of(model)
    for tensor in trained.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return trained

"""What range of pixel values a model was trained on, where it is not declared.

Three signs, the surest first: arithmetic at the input that only makes sense for pixels of 0..255,
stored statistics of the first BatchNorm, and how many different classes the model sees. All
answers of a search rest on drawn images; the finding is an assumption and is called so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.graph.constants import with_constants_stored
from edgedafl.preprocess import CONVENTIONS, Preprocess
from edgedafl.teachers.base import Teacher

__all__ = ["baked_scale", "find_input_range"]

_ROWS = (12, 64)
_EFFORT = 3e9  # multiply-accumulates per candidate
_PIXEL_SCALES = (255.0, 256.0, 127.5, 128.0)
# A candidate must beat [0, 1] clearly before it is preferred.
_CLEARLY = 1.5
# Where the next candidate fits nearly as well, nothing was found: right ones are 1.1 to 27 times as near as the next.
_DECIDED = 1.25
_COLOUR = 0.4  # of a photograph's contrast is between channels; the rest they share
_DIGITS = (0.1307,), (0.3081,)  # of MNIST, as most of its networks take them
_TRANSPARENT = {"Cast", "Identity", "Transpose", "Reshape", "Unsqueeze", "Squeeze"}


def baked_scale(model: onnx.ModelProto, image: str) -> bool:
    """Whether the graph itself scales pixels of 0..255: a Div by 255, a Mul by 1/255, a Sub of 127.5.

    Examples:
        >>> text = '''<ir_version: 8, opset_import: ["": 18]> g (float[n,3,8,8] x) => (float[n,3,8,8] y)
        ...     <float most = {255}> { y = Div(x, most) }'''
        >>> baked_scale(onnx.parser.parse_model(text), "x")
        True
    """
    stored = with_constants_stored(model).graph.initializer
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in stored if np.prod(t.dims) <= 4}
    names = {image}
    for node in model.graph.node:
        if not names & set(node.input):
            continue
        if node.op_type in _TRANSPARENT:
            names.add(node.output[0])
        elif node.op_type in ("Div", "Mul", "Sub", "Add"):
            for name in node.input:
                if name in constants and _counts_pixels(node.op_type, np.abs(constants[name].astype(np.float64))):
                    return True
            names.add(node.output[0])
    return False


def _counts_pixels(op_type: str, values: np.ndarray) -> bool:
    """Deviations and means of pixels in 0..255 lie far above 1, their reciprocals far below."""
    if not values.size:
        return False
    if op_type == "Mul":
        return bool(((values > 0) & (values < 1 / 30)).all())
    return bool((values > 30).all() or np.isin(values, _PIXEL_SCALES).all())


def find_input_range(teacher: Teacher, baked: bool) -> Preprocess:
    """The likeliest map from pixels to what the teacher takes.

    Args:
        teacher: One whose range is not declared; it answers a few images per candidate.
        baked: Whether its graph scales pixels itself.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> found = find_input_range(load_teacher("examples/mnist/teacher.onnx"), baked=False)
        >>> found.low, found.high
        ((0.0,), (1.0,))
    """
    channels = teacher.spec.input_shape[0]
    if baked:
        return Preprocess.from_range(0, 255, channels, origin="found: the model scales pixels itself")
    candidates = _candidates(channels)
    rows = int(min(max(_ROWS[0], _EFFORT / max(teacher.spec.macs, 1)), _ROWS[1]))
    if teacher.spec.batch_norms:
        images = _textures(rows, teacher.spec.input_shape)
        candidates += [] if channels > 1 else [Preprocess.from_mean_std(*_DIGITS, 1, "MNIST's mean and deviation")]
        return _fitting(candidates, [_miss(teacher, c.to_model(images)) for c in candidates])
    noise = _noise(rows, teacher.spec.input_shape)
    varieties = [_variety(teacher, c.to_model(noise)) for c in candidates]
    best = max(range(len(candidates)), key=lambda i: varieties[i])
    # One class for everything at [0, 1] but several elsewhere: that range is the likelier one.
    if varieties[0] < 1.05 and varieties[best] > _CLEARLY * varieties[0]:
        return _renamed(candidates[best], "guessed", "the model tells more classes apart there")
    return candidates[0]


def _fitting(candidates: list[Preprocess], misses: list[float]) -> Preprocess:
    """The range whose statistics are nearest; [0, 1] unless another one is clearly nearer."""
    best = min(range(len(candidates)), key=lambda i: misses[i])
    chosen = best if misses[0] > _CLEARLY * misses[best] else 0
    rival = min((i for i in range(len(candidates)) if i != chosen), key=lambda i: misses[i])
    if misses[rival] < _DECIDED * misses[chosen]:
        other = _name(candidates[rival])
        return _renamed(candidates[chosen], "guessed", f"its first BatchNorm's statistics fit {other} about as well")
    return _renamed(candidates[chosen], "found", "its first BatchNorm's statistics fit best")


def _candidates(channels: int) -> list[Preprocess]:
    """The common maps from pixels, the commonest first."""
    origins = {**CONVENTIONS, "unit": "assumed"}
    return [replace(known, origin=origins[name]) for name, known in Preprocess.common(channels).items()]


def _renamed(found: Preprocess, how: str, reason: str) -> Preprocess:
    return replace(found, origin=f"{how}: {_name(found)}, {reason}")


def _name(candidate: Preprocess) -> str:
    return CONVENTIONS["unit"] if candidate.origin == "assumed" else candidate.origin


def _textures(rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Images (rows, C, H, W) in [0, 1] with the spectrum of photographs.

    All octaves are equally strong (1/f amplitude, Field 1987), channels alike, brightness and contrast various. White
    noise has edges that no photograph has, and was answered by the wrong range for one network of three.
    """
    generator = torch.Generator().manual_seed(11)
    images = torch.zeros(rows, *shape)
    for row in range(rows):
        field = torch.stack([_octave(cells, shape, generator) for cells in _octaves(min(shape[1:]))]).sum(0)
        grey = field.mean(0, keepdim=True)
        field = grey + _COLOUR * (field - grey)
        brightness, contrast = 0.2 + 0.6 * torch.rand(1, generator=generator), torch.rand(1, generator=generator)
        images[row] = (brightness + (0.06 + 0.24 * contrast) * field / field.std().clamp_min(1e-6)).clamp(0, 1)
    return images


def _noise(rows: int, shape: tuple[int, int, int]) -> Tensor:
    """Noise of all coarsenesses in [0, 1]: the more kinds of it, the more classes a network tells apart."""
    generator = torch.Generator().manual_seed(11)
    octaves = [1, *_octaves(min(shape[1:]))]
    return torch.cat([_octave(octaves[row % len(octaves)], shape, generator)[None] + 0.5 for row in range(rows)])


def _octaves(side: int) -> list[int]:
    """Cells across an image: 2, 4, 8, ... up to its pixels."""
    return [2**power for power in range(1, max(2, side).bit_length())]


def _octave(cells: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """A field of so many cells across, in [-0.5, 0.5]."""
    field = torch.rand(1, shape[0], min(cells, shape[1]), min(cells, shape[2]), generator=generator) - 0.5
    return torch.nn.functional.interpolate(field, shape[1:], mode="bilinear")[0]


def _miss(teacher: Teacher, images: Tensor) -> float:
    """How far the first BatchNorm's batch statistics are from its stored ones, scale-free."""
    with torch.no_grad():
        first = teacher.batch_norm_statistics(images)[0]
    ratio = torch.log(first.var.clamp_min(1e-8) / first.running_var.clamp_min(1e-8)).abs().mean()
    shift = ((first.mean - first.running_mean).abs() / first.running_var.clamp_min(1e-8).sqrt()).mean()
    return float(ratio + shift)


def _variety(teacher: Teacher, images: Tensor) -> float:
    """Effective number of classes among the answers: exp of their entropy."""
    logits = teacher.scores(images)
    if not torch.isfinite(logits).all():
        return 0.0
    classes = logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
    share = torch.bincount(classes).float() / len(classes)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))

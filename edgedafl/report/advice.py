"""Sentences that the reader of a report should see: doubts, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from edgedafl.runs import DistillResult, ProfileResult, QuantizeResult, RunRecord
from edgedafl.units import format_bytes

__all__ = ["advice_of"]

_PACKING = "onnx"
"""The exporter whose files hold weights of fewer bits than eight."""
_SMALLER = 0.65
_HARDLY = 0.1
"""Share of the arithmetic in integers below which a file should not be called int8."""


def advice_of(record: RunRecord) -> tuple[str, ...]:
    """Of all of a run's stages.

    Examples:
        >>> from edgedafl.runs import RunDirectory
        >>> print(advice_of(RunDirectory("runs/teacher-rpi4").record())[0])
        Nothing was trained: the student is the teacher itself, or the time allowed next to no step.
    """
    return (
        *_of_smaller_images(record),
        *(_of_training(record.distilled) if record.distilled else ()),
        *(_of_profile(record.profiled) if record.profiled else ()),
        *(_of_integers(record.quantized) if record.quantized else ()),
        *_of_size(record),
    )


def _of_smaller_images(record: RunRecord) -> Iterator[str]:
    """What a device has to do to a picture, where the student takes smaller ones than its teacher."""
    _, height, width = record.student.input_shape
    if record.middle < 1:
        yield (
            f"The artifact takes the middle {100 * record.middle:.1f} % of each side of what the teacher "
            f"takes, shrunk to {height}x{width} by cubic interpolation: cropping keeps things as large as the network "
            "knows them."
        )


def _of_size(record: RunRecord) -> Iterator[str]:
    """That a smaller file costs no time, where nobody has asked for one."""
    exported = record.exported
    if exported is None or exported.exporter != _PACKING or record.shipped != "int8":
        return
    if record.weight_bits == 8 and record.config.max_size is None:
        size = format_bytes(int(_SMALLER * exported.sizes["int8"])).replace(" ", "")
        yield f"At the same speed the file can be smaller: `--max-size {size}` stores weights in fewer bits than eight."


def _of_training(found: DistillResult) -> Iterator[str]:
    """What became of training, where it is not what one expects."""
    yield from found.recoveries
    yield from found.warnings
    if found.trained:
        return
    if not found.steps:
        yield "Nothing was trained: the student is the teacher itself, or the time allowed next to no step."
    else:
        yield f"{found.steps} steps of training did not help: the refitted weights were kept."


def _of_profile(found: ProfileResult) -> Iterator[str]:
    if found.measured is not None:
        yield from found.measured.warnings
    if found.recommendation is not None:
        yield found.recommendation.text
    if found.failed:
        yield f"The latency was not measured: {found.failed}"


def _of_integers(found: QuantizeResult) -> Iterator[str]:
    """What accuracy control did, and what it could not."""
    yield from found.advice
    if not found.method:
        return
    drop, share = 100 * (found.max_drop or 0), found.coverage if found.coverage is not None else 1.0
    if found.trained:
        yield (
            "The int8 weights went through quantization-aware training on generated images: "
            "calibration alone lost too much."
        )
    if found.kept_float:
        names = ", ".join(row.layer for row in found.kept_float)
        yield (
            f"{len(found.kept_float)} layers stay float so that int8 loses at most {drop:.2f} points "
            f"of agreement: {names}; {100 * share:.1f} % of the MACs run in integers."
        )
    if share < _HARDLY:
        yield (
            f"Only {100 * share:.0f} % of the MACs run in integers: the file called int8 is "
            "a float model in all but its name. Take fp32 or fp16."
        )
    if not found.holds:
        yield (
            f"int8{found.in_bits} loses more than the allowed {drop:.2f} points of agreement on synthetic "
            "images. Real images are clearer; the verdict says what is expected of them."
        )

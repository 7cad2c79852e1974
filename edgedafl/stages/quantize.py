"""Stage: the student in every precision the target may run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import onnx

from edgedafl.allocator import release_memory
from edgedafl.errors import UsageError
from edgedafl.files import digest_of, write_atomic
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.coverage import integer_coverage
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.facts import facts_of
from edgedafl.graph.half import to_half
from edgedafl.graph.image_input import find_image_input
from edgedafl.graph.layer_names import layer_names
from edgedafl.graph.load import load_onnx, sha256_of
from edgedafl.graph.packed import ALL_BITS
from edgedafl.quantize import CalibrationSet, ModelComparer, Quantized, quantize_model
from edgedafl.runs import DistillResult, KeptFloat, QuantizeResult, RunDirectory
from edgedafl.stages.graphs import file_size, for_target
from edgedafl.targets import Target

__all__ = ["allowed_drop", "load_models", "quantize_stage"]

_FEWEST_BITS = 3.2
_SPARE = 0.02  # bits
_TRIALS = 3


def allowed_drop(run: RunDirectory) -> float:
    """Agreement that int8 may lose against fp32, as the run was told.

    Examples:
        >>> allowed_drop(RunDirectory("runs/teacher-rpi4"))
        0.005
    """
    return run.record().config.max_drop


def quantize_stage(
    run: RunDirectory,
    target: Target,
    precision: str,
    max_drop: float | None = None,
    enough: Callable[[onnx.ModelProto], bool] | None = None,
    weight_bits: float | None = None,
    max_size: int | None = None,
) -> QuantizeResult:
    """Write `models/<target>/<precision>.onnx`.

    Args:
        run: A run with a distilled student.
        target: Whose scheme to use.
        precision: The artifact's; fp32 and fp16 are always written beside it.
        max_drop: Agreement that int8 may lose against fp32; None takes the run's own.
        enough: Whether an int8 model is faithful enough though it loses more than that.
        weight_bits: Mean bits of a weight in an int8 file; None takes the run's own.
        max_size: Bytes of an int8 file; what estimates were off by is taken from the bits, where the target has fewer.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> run = RunDirectory("runs/teacher-rpi4")
        >>> result = quantize_stage(run, find_target("rpi4"), "int8")  # it is there already, and read
        >>> result.precision
        'int8'
    """
    if not run.student.is_file():
        raise UsageError(f"{str(run.path)!r} holds no distilled student.", "Run `edgedafl distill` first.")
    allowed = allowed_drop(run) if max_drop is None else max_drop
    name = run.stage_name("quantize", target.name)
    bits = max(run.record().weight_bits if weight_bits is None else weight_bits, target.scheme.least_weight_bits)
    inputs = digest_of(
        [sha256_of(run.student), sha256_of(run.calibration), target.to_dict(), precision, allowed, bits, max_size]
    )
    if known := run.current(name, inputs, QuantizeResult):
        return known
    release_memory()  # of the ladder and of training
    model, calibration = for_target(load_onnx(run.student).model, target), CalibrationSet.load(run.calibration)
    models: dict[str, onnx.ModelProto] = {"fp32": fix_batch(model, 1)}
    models["fp16"] = to_half(models["fp32"])
    judge = ModelComparer(models["fp32"], calibration)
    result = QuantizeResult(precision, agreements={"fp32": judge.reference, "fp16": judge.of(models["fp16"]).agreement})
    if precision == "int8":
        quantized = partial(
            quantize_model,
            model,
            target.scheme,
            calibration,
            max_drop=allowed,
            enough=enough,
            trained=_was_trained(run),
            judge=judge,
        )
        limit = None if target.scheme.least_weight_bits == ALL_BITS else max_size
        found, bits = _within(quantized, bits, limit, target)
        models["int8"] = found.model
        result = replace(_with_integers(result, found, target, models["fp32"], allowed), weight_bits=bits)
    files = []
    for kind, graph in models.items():
        path = run.models(target.name) / f"{kind}.onnx"
        write_atomic(path, model_bytes(graph))
        files.append(path)
    run.finish(name, inputs, files, result)
    return result


def _within(
    quantized: Callable[..., Quantized], bits: float, limit: int | None, target: Target
) -> tuple[Quantized, float]:
    """An int8 model whose file keeps a limit, where a few bits less than were told do; and its bits."""
    found = quantized(weight_bits=bits)
    for _ in range(_TRIALS):
        over = 0 if limit is None else file_size(found.model, target) - limit
        if over <= 0:
            break
        weights = facts_of(found.model).parameters
        bits = max(_FEWEST_BITS, bits - _SPARE - 8 * over / weights)
        found = quantized(weight_bits=bits)
    return found, bits


def _was_trained(run: RunDirectory) -> bool:
    found = run.result("distill", DistillResult)
    return found is None or found.steps > 0


def _with_integers(
    result: QuantizeResult, found: Quantized, target: Target, model: onnx.ModelProto, max_drop: float
) -> QuantizeResult:
    names = layer_names(model)
    coverage = integer_coverage(found.model, runtime=target.runtime, architecture=target.architecture)
    return replace(
        result,
        agreements={**result.agreements, "int8": found.agreement},
        method=found.method,
        tried=found.tried,
        agreement=found.agreement,
        float_agreement=found.float_agreement,
        max_drop=max_drop,
        holds=found.holds,
        trained=found.trained,
        kept_float=tuple(KeptFloat(names.get(k.node, k.node), k.sensitivity, k.agreement) for k in found.kept),
        coverage=coverage.share,
        float_layers=tuple(names.get(node, node) for node in coverage.floating),
        calibration=found.calibration,
        advice=_advice(target, model),
    )


def _advice(target: Target, model: onnx.ModelProto) -> tuple[str, ...]:
    """What in this student's shape costs integers their gain on this target."""
    layers = layer_costs(model, find_image_input(model))
    advice = []
    deep = [layer for layer in layers if layer.kind == "depthwise"]
    if deep:
        advice.append(
            f"{len(deep)} depthwise convolutions: int8 gains little on them and costs them most accuracy; "
            "students of plain convolutions (resnet8, resnet20) suit integers better."
        )
    odd = [t.name for t in model.graph.initializer if len(t.dims) == 4 and t.dims[0] % target.channel_multiple]
    if odd and target.runtime == "tensorrt":
        advice.append(
            f"{len(odd)} convolutions have a channel count that is not a multiple of {target.channel_multiple}: "
            f"{target.title} pads them."
        )
    return tuple(advice)


def load_models(run: RunDirectory, target: Target) -> dict[str, onnx.ModelProto]:
    """The precisions written for a target, fp32 first.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> list(load_models(RunDirectory("runs/teacher-rpi4"), find_target("rpi4")))
        ['fp32', 'fp16', 'int8']
    """
    folder = run.models(target.name)
    found = {p: folder / f"{p}.onnx" for p in ("fp32", "fp16", "int8")}
    return {p: load_onnx(path).model for p, path in found.items() if path.is_file()}

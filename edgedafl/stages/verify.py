"""Stage: compare what will be shipped with the teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from edgedafl.errors import CheckFailedError, UsageError, reason_of
from edgedafl.evaluate import accuracy
from edgedafl.export import Bundle, find_exporter, read_bundle
from edgedafl.files import digest_of
from edgedafl.files.arrays import read_arrays
from edgedafl.files.labelled import LabelledSource
from edgedafl.graph.load import sha256_of
from edgedafl.graph.parity import compare, require_parity
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.quantize import CalibrationSet, answers_on_probes
from edgedafl.runs import Confused, LostClass, Parity, RunDirectory, SameAnswers, VerifyResult
from edgedafl.stages.class_errors import confusions, lost_classes
from edgedafl.stages.quantize import load_models
from edgedafl.stages.study import resized
from edgedafl.targets import Target
from edgedafl.tasks import SINGLE_LABEL, Task, agreement, predictions
from edgedafl.teachers import Teacher

__all__ = ["ModelComparison", "check_answers", "compare_models", "shipped_scores", "trials", "verify_stage"]

_CHUNK = 32
_Scores = Callable[[np.ndarray], np.ndarray]
# Bundles for these runtimes ship the run's own graphs.
_SAME_GRAPHS = ("onnxruntime", "tensorrt")


@dataclass(frozen=True)
class ModelComparison:
    """Two ONNX models on the same images.

    Attributes:
        parity: Numeric agreement of their scores.
        images: What they were compared on.
    """

    parity: Parity
    images: str


def compare_models(a: onnx.ModelProto, b: onnx.ModelProto, images: np.ndarray, what: str) -> ModelComparison:
    """Compare two classifiers with one image input each, at batch 1.

    Examples:
        >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }'
        >>> model, images = onnx.parser.parse_model(text), np.array([[1, 2], [2, 1]], np.float32)
        >>> compare_models(model, model, images, "random images")
        ModelComparison(parity=Parity(relative_error=0.0, same_class=1.0, rows=2), images='random images')
    """
    reference = run_batched(open_session(a), images, batch=1)
    other = run_batched(open_session(b), images, batch=1)
    return ModelComparison(compare(reference, other), what)


@dataclass(frozen=True)
class _Labelled:
    """What labelled images tell, each by precision."""

    accuracy: dict[str, float]
    fidelity: dict[str, SameAnswers]
    lost: dict[str, tuple[LostClass, ...]]
    confusions: dict[str, tuple[Confused, ...]]


def verify_stage(
    run: RunDirectory, target: Target, *, teacher: Teacher | None, labelled: LabelledSource | None
) -> VerifyResult:
    """Compare teacher, float student, integer student and bundle.

    Args:
        run: A run with a bundle for `target`.
        target: The target.
        teacher: Needed for its accuracy only.
        labelled: The user's labelled pictures, for reporting.

    Raises:
        CheckFailedError: If the bundle's model does not answer as its `expected_io` says.

    Examples:
        >>> from edgedafl.targets import find_target
        >>> run, target = RunDirectory("runs/teacher-rpi4"), find_target("rpi4")
        >>> sorted(verify_stage(run, target, teacher=None, labelled=None).agreement)
        ['fp16', 'fp32', 'int8']
    """
    calibration = CalibrationSet.load(run.calibration)
    models = load_models(run, target)
    scores = {p: answers_on_probes(m, calibration) for p, m in models.items()}
    agreements = {p: agreement(predictions(s, calibration.task), calibration.probe_classes) for p, s in scores.items()}
    bundle = read_bundle(run.bundle(target.name))
    if bundle.manifest["runtime"] not in _SAME_GRAPHS:
        # This exporter makes models of its own: what agrees is what is shipped.
        agreements |= _shipped_agreement(bundle, calibration)
    parity = {f"student fp32 against {p}": compare(scores["fp32"], s) for p, s in scores.items() if p != "fp32"}
    parity |= {f"bundle {file} against expected_io": found for file, found in check_answers(bundle).items()}
    name = run.stage_name("verify", target.name)
    inputs = digest_of([sha256_of(run.models(target.name) / f"{p}.onnx") for p in models])
    if labelled is not None:
        known = _on_labelled(models, teacher, labelled, calibration, shipped_scores(bundle))
    else:
        known = _known_before(run, name, inputs)  # measured before on these very models
    result = VerifyResult(agreements, parity, **vars(known), built=trials(bundle))
    run.finish(name, inputs, [], result)
    return result


def _known_before(run: RunDirectory, name: str, inputs: str) -> _Labelled:
    before, found = run.stage(name), run.result(name, VerifyResult)
    if before is None or found is None or before.inputs != inputs:
        return _Labelled({}, {}, {}, {})
    return _Labelled(found.accuracy, found.fidelity, found.lost, found.confusions)


def _shipped_agreement(bundle: Bundle, calibration: CalibrationSet) -> dict[str, float]:
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    found = {}
    for variant in bundle.manifest["variants"]:
        file = bundle.directory / variant["file"]
        scores = calibration.probe_scores(functools.partial(exporter.predict, file))
        found[str(variant["precision"])] = agreement(predictions(scores, calibration.task), calibration.probe_classes)
    return found


def trials(bundle: Bundle) -> dict[str, Any]:
    """What making the device's own form of each model here tells, by file; see `Exporter.try_build`.

    Examples:
        >>> from pathlib import Path
        >>> from edgedafl.export import read_bundle
        >>> trials(read_bundle(Path("runs/teacher-rpi4/bundles/rpi4")))  # nothing has to be built for ONNX Runtime
        {}
    """
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    found = {str(v["file"]): exporter.try_build(bundle.directory / v["file"]) for v in bundle.manifest["variants"]}
    return {file: facts for file, facts in found.items() if facts}


def check_answers(bundle: Bundle) -> dict[str, Parity]:
    """Run a bundle's model files on its example inputs, with the runtime they are made for.

    Returns:
        How near each file's scores are to the expected ones.

    Raises:
        CheckFailedError: If one is not near enough, or there is none.
        EnvironmentMissingError: If the runtime is not installed here.

    Examples:
        >>> from pathlib import Path
        >>> from edgedafl.export import read_bundle
        >>> sorted(check_answers(read_bundle(Path("runs/teacher-rpi4/bundles/rpi4"))))
        ['model.fp16.onnx', 'model.fp32.onnx', 'model.int8.onnx']
    """
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    try:
        expected = read_arrays(bundle.directory / "expected_io.npz")
        images = expected.pop("image")
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"The bundle {str(bundle.directory)!r} has no readable expected_io: {reason_of(error)}.", "Export it again."
        ) from error
    checks = {}
    for variant in bundle.manifest["variants"]:
        parity = compare(expected[variant["precision"]], exporter.predict(bundle.directory / variant["file"], images))
        require_parity(parity, variant["tolerance"], f"{variant['file']} against expected_io")
        checks[str(variant["file"])] = parity
    if not checks:
        raise CheckFailedError(f"The bundle {str(bundle.directory)!r} holds no model.")
    return checks


def shipped_scores(bundle: Bundle) -> dict[str, _Scores]:
    """What answers on the device, by precision, where an exporter makes models of its own; else nothing.

    Each maps float32 images (N,C,H,W) in model space, at the size that the bundle takes, to scores (N,K).

    Examples:
        >>> from pathlib import Path
        >>> from edgedafl.export import read_bundle
        >>> bundle = read_bundle(Path("runs/teacher-rpi4/bundles/rpi4"))
        >>> shipped_scores(bundle)  # ONNX Runtime runs the models as they are
        {}
    """
    if bundle.manifest["runtime"] in _SAME_GRAPHS:
        return {}
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    files = {str(v["precision"]): bundle.directory / v["file"] for v in bundle.manifest["variants"]}
    return {p: functools.partial(exporter.predict, file) for p, file in files.items()}


def _on_labelled(
    models: dict[str, onnx.ModelProto],
    teacher: Teacher | None,
    labelled: LabelledSource,
    calibration: CalibrationSet,
    shipped: dict[str, _Scores],
) -> _Labelled:
    """On the user's labelled images: every model's accuracy, answers as its teacher's, and classes that it loses."""
    first = next(iter(models.values())).graph
    own = [side.dim_value for side in first.input[0].type.tensor_type.shape.dim][1:]
    shape = (own[0], own[1], own[2]) if teacher is None else teacher.spec.input_shape
    classes = first.output[0].type.tensor_type.shape.dim[1].dim_value
    task, preprocess = calibration.task, calibration.preprocess
    data = labelled.read(shape, classes, task=task)
    answering = {} if teacher is None else {"teacher": _scores_of_teacher(teacher)}
    for precision, model in models.items():
        answering[precision] = _sized(shipped.get(precision) or _scores_of_model(model), (own[1], own[2]))
    found, answers = {}, {}
    for name, scores_of in answering.items():
        kept = _Kept(scores_of, task)
        found[name] = accuracy(data, preprocess, kept, task=task)
        answers[name] = np.concatenate(kept.classes)
    if teacher is None:
        return _Labelled(found, {}, {}, {})
    same = {precision: answers[precision] == answers["teacher"] for precision in models}
    faithful = {precision: SameAnswers(int(rows.sum()), int(rows.size)) for precision, rows in same.items()}
    if task != SINGLE_LABEL:
        return _Labelled(found, faithful, {}, {})
    names, wanted = labelled.names(classes), answers["teacher"].reshape(-1)
    mine = {precision: answers[precision].reshape(-1) for precision in models}
    return _Labelled(
        found,
        faithful,
        {precision: tuple(lost_classes(data.labels, wanted, rows, names)) for precision, rows in mine.items()},
        {precision: tuple(confusions(data.labels, wanted, rows, names)) for precision, rows in mine.items()},
    )


class _Kept:
    """Scores of a model that remember their classes, so that nothing is asked twice."""

    def __init__(self, scores_of: _Scores, task: Task) -> None:
        self._scores_of, self._task = scores_of, task
        self.classes: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        scores = self._scores_of(images)
        self.classes.append(predictions(scores, self._task))
        return scores


def _scores_of_teacher(teacher: Teacher) -> _Scores:
    def scores_of(images: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(images).split(_CHUNK)
        return torch.cat([teacher.scores(part) for part in parts]).numpy()

    return scores_of


def _scores_of_model(model: onnx.ModelProto) -> _Scores:
    session = open_session(model, threads=0)
    return lambda images: run_batched(session, images, batch=1)


def _sized(scores_of: _Scores, sides: tuple[int, int]) -> _Scores:
    return lambda images: scores_of(resized(torch.from_numpy(images), sides).numpy())

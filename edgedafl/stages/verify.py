"""Stage: compare what will be shipped with the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from edgedafl.arrays import read_arrays
from edgedafl.errors import CheckFailedError, UsageError, reason_of
from edgedafl.evaluate import accuracy
from edgedafl.export import Bundle, find_exporter, read_bundle
from edgedafl.graph.load import sha256_of
from edgedafl.graph.parity import Parity, compare, require_parity
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.labelled_files import LabelledSource
from edgedafl.quantize import CalibrationSet
from edgedafl.rundir import RunDirectory, digest_of
from edgedafl.stages.class_errors import confusions, lost_classes
from edgedafl.stages.distill import CALIBRATION
from edgedafl.stages.export import bundle_dir
from edgedafl.stages.quantize import load_models, models_dir, stage_name
from edgedafl.stages.study import resized
from edgedafl.targets import Target
from edgedafl.tasks import SINGLE_LABEL, agreement, predictions
from edgedafl.teachers import Teacher

__all__ = ["ModelComparison", "check_answers", "compare_models", "trials", "verify_stage"]

_CHUNK = 32
# Bundles for these runtimes ship the run's own graphs.
_SAME_GRAPHS = ("onnxruntime", "tensorrt")
_OF_LABELS = ("accuracy", "fidelity", "lost", "confusions")


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
    """Compare two classifiers with one image input each, at batch 1."""
    reference = run_batched(open_session(a), images, batch=1)
    other = run_batched(open_session(b), images, batch=1)
    return ModelComparison(compare(reference, other), what)


def verify_stage(
    run: RunDirectory, target: Target, *, teacher: Teacher | None, labelled: LabelledSource | None
) -> dict[str, Any]:
    """Compare teacher, float student, integer student and bundle; returns the stage's result.

    Args:
        run: A run with a bundle for `target`.
        target: The target.
        teacher: Needed for its accuracy only.
        labelled: The user's labelled pictures, for reporting.

    Raises:
        CheckFailedError: If the bundle's model does not answer as its `expected_io` says.
    """
    calibration = CalibrationSet.load(run.path / CALIBRATION)
    images, classes = calibration.probe_images(), calibration.probe_classes
    models = load_models(run, target)
    scores = {p: run_batched(open_session(m), images, batch=1) for p, m in models.items()}
    result: dict[str, Any] = {
        "agreement": {p: agreement(predictions(s, calibration.task), classes) for p, s in scores.items()},
        "parity": {},
        "accuracy": {},
        "fidelity": {},
    }
    for precision, found in scores.items():
        if precision != "fp32":
            parity = compare(scores["fp32"], found)
            result["parity"][f"student fp32 against {precision}"] = vars(parity)
    bundle = read_bundle(bundle_dir(run, target))
    result["parity"] |= {f"bundle {f} against expected_io": vars(p) for f, p in check_answers(bundle).items()}
    result["built"] = trials(bundle)
    if bundle.manifest["runtime"] not in _SAME_GRAPHS:
        # This exporter makes models of its own: what agrees is what is shipped.
        result["agreement"] |= _shipped_agreement(bundle, calibration)
    name = stage_name("verify", run, target)
    inputs = digest_of([sha256_of(models_dir(run, target) / f"{p}.onnx") for p in models])
    if labelled is not None:
        result |= _on_labelled(models, teacher, labelled, calibration)
    elif (before := run.stage(name)) is not None and before.inputs == inputs:
        # Measured before on these very models.
        result |= {name: before.result[name] for name in _OF_LABELS if name in before.result}
    run.finish(name, inputs, [], result)
    return result


def _shipped_agreement(bundle: Bundle, calibration: CalibrationSet) -> dict[str, float]:
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    images = calibration.probe_images().astype(np.float32)
    found = {}
    for variant in bundle.manifest["variants"]:
        scores = exporter.answer(bundle.directory / variant["file"], images)
        found[str(variant["precision"])] = agreement(predictions(scores, calibration.task), calibration.probe_classes)
    return found


def trials(bundle: Bundle) -> dict[str, Any]:
    """What making the device's own form of each model here tells, by file; see `Exporter.trial`."""
    exporter = find_exporter(str(bundle.manifest["exporter"]))
    found = {str(v["file"]): exporter.trial(bundle.directory / v["file"]) for v in bundle.manifest["variants"]}
    return {file: facts for file, facts in found.items() if facts}


def check_answers(bundle: Bundle) -> dict[str, Parity]:
    """Run a bundle's model files on its example inputs, with the runtime they are made for.

    Returns:
        How near each file's scores are to the expected ones.

    Raises:
        CheckFailedError: If one is not near enough, or there is none.
        EnvironmentMissingError: If the runtime is not installed here.
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
        parity = compare(expected[variant["precision"]], exporter.answer(bundle.directory / variant["file"], images))
        require_parity(parity, variant["tolerance"], f"{variant['file']} against expected_io")
        checks[str(variant["file"])] = parity
    if not checks:
        raise CheckFailedError(f"The bundle {str(bundle.directory)!r} holds no model.")
    return checks


def _on_labelled(
    models: dict[str, onnx.ModelProto], teacher: Teacher | None, labelled: LabelledSource, calibration: CalibrationSet
) -> dict[str, Any]:
    """On the user's labelled images: every model's accuracy, answers as its teacher's, and classes that it loses."""
    first = next(iter(models.values())).graph
    own = [side.dim_value for side in first.input[0].type.tensor_type.shape.dim][1:]
    shape = (own[0], own[1], own[2]) if teacher is None else teacher.spec.input_shape
    classes = first.output[0].type.tensor_type.shape.dim[1].dim_value
    task, preprocess = calibration.task, calibration.preprocess
    data = labelled.read(shape, classes, task=task)
    answers: dict[str, list[np.ndarray]] = {}

    def kept(name: str, scores_of: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def scores(images: np.ndarray) -> np.ndarray:
            found = scores_of(images)
            answers.setdefault(name, []).append(predictions(found, task))
            return found

        return scores

    found = {}
    if teacher is not None:
        asked = teacher

        def teacher_scores(x: np.ndarray) -> np.ndarray:
            parts = torch.from_numpy(x).split(_CHUNK)
            return torch.cat([asked.scores(part) for part in parts]).numpy()

        found["teacher"] = accuracy(data, preprocess, kept("teacher", teacher_scores), task=task)
    for precision, model in models.items():
        session = open_session(model, threads=0)

        def scores_of(x: np.ndarray, session: Any = session) -> np.ndarray:
            return run_batched(session, resized(torch.from_numpy(x), (own[1], own[2])).numpy(), batch=1)

        found[precision] = accuracy(data, preprocess, kept(precision, scores_of), task=task)
    wanted = None if teacher is None else np.concatenate(answers["teacher"])
    faithful = {}
    for precision in models if wanted is not None else ():
        same = np.concatenate(answers[precision]) == wanted
        faithful[precision] = {"same": int(same.sum()), "images": int(same.size)}
    result: dict[str, Any] = {"accuracy": found, "fidelity": faithful}
    if task == SINGLE_LABEL and teacher is not None:
        whole = {name: np.concatenate(parts).reshape(-1) for name, parts in answers.items()}
        names = labelled.names(classes)
        for title, rows_of in (("lost", lost_classes), ("confusions", confusions)):
            result[title] = {
                precision: [row.to_dict() for row in rows_of(data.labels, whole["teacher"], whole[precision], names)]
                for precision in models
            }
    return result

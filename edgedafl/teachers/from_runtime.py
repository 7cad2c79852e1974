"""An ONNX file behind ONNX Runtime as a black box: answers, no gradients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.cost import count_macs
from edgedafl.graph.facts import ImageInput, facts_of
from edgedafl.graph.head import find_head
from edgedafl.graph.load import load_onnx
from edgedafl.graph.needed import needed_part
from edgedafl.graph.runtime import open_session
from edgedafl.graph.tame import tamed
from edgedafl.teachers.base import TeacherSpec
from edgedafl.teachers.decode import are_labels, guess_output, guess_task
from edgedafl.teachers.forward import ForwardTeacher
from edgedafl.teachers.options import TeacherOptions

__all__ = ["RuntimeTeacher", "load_runtime_teacher"]

_TRIAL_ROWS = 4
_BATCH = 256
_NUMPY = {"UINT8": np.uint8, "FLOAT16": np.float16, "DOUBLE": np.float64}


@dataclass(frozen=True)
class _Port:
    """Where images go in and answers come out."""

    session: ort.InferenceSession
    image: ImageInput
    output: str

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answers to RGB images (N,C,H,W), one row each, whatever batch the graph is fixed to."""
        image = self.image
        block = (image.batch or _BATCH) if image.batched else 1
        feeds = images[:, ::-1] if image.blue_first else images
        feeds = feeds.transpose(0, 2, 3, 1) if image.layout == "NHWC" else feeds
        feeds = feeds.reshape(image.dimensions(len(images))) if image.flat else feeds
        feeds = np.ascontiguousarray(feeds, _NUMPY.get(image.dtype, np.float32))
        rows = []
        for start in range(0, len(feeds), block):
            piece = feeds[start : start + block]
            real = len(piece)
            if image.batch is not None and real < block:
                piece = np.concatenate([piece, np.repeat(piece[-1:], block - real, 0)])
            answer = np.asarray(self.session.run([self.output], {image.name: piece if image.batched else piece[0]})[0])
            rows.append(answer.reshape(len(piece), -1)[:real])
        return np.concatenate(rows)


class RuntimeTeacher(ForwardTeacher):
    """A local ONNX model that is asked and never opened.

    Examples:
        >>> teacher = load_runtime_teacher("examples/mnist/teacher.onnx", TeacherOptions(max_queries=100))
        >>> teacher.remaining
        100
    """

    def __init__(self, spec: TeacherSpec, port: _Port, *, max_queries: int | None = None) -> None:
        super().__init__(spec, max_queries=max_queries)
        self._port = port

    def _forward(self, images: np.ndarray) -> np.ndarray:
        return self._port.run(images)


def load_runtime_teacher(path: str | Path, options: TeacherOptions) -> RuntimeTeacher:
    """Open an ONNX classifier for answers only.

    Raises:
        UnsupportedModelError: If it is damaged, no image classifier, or its answers change.
        UsageError: If a choice is missing (`--output-name`, `--input-shape`, `--classes`).

    Examples:
        >>> teacher = load_runtime_teacher("examples/mnist/teacher.onnx", TeacherOptions())
        >>> teacher.spec.access
        'scores'
    """
    file = load_onnx(path)
    model, chosen = needed_part(tamed(file.model), output=options.output_name, image=options.input_name)
    image = options.image_input(model)
    session = open_session(file.path if model is file.model else model, threads=options.threads)
    output = _choose_output(session, chosen)
    head = find_head(model, output)
    facts = facts_of(model)
    preprocess = options.preprocess(image.image_shape[0], image.dtype)
    port = _Port(session, image, output)
    trial = _trial(port, preprocess.low[0], preprocess.high[0], file.path.name)
    kind = head.kind if head.kind != "logits" else guess_output(trial)
    if np.issubdtype(_result_type(session, output), np.integer):
        kind = "labels" if are_labels(trial) else "logits"
    classes = _count_classes(trial, kind, options, file.path.name)
    spec = TeacherSpec(
        source=str(file.path),
        input_shape=image.image_shape,
        layout=image.layout,
        dtype=image.dtype,
        preprocess=preprocess,
        num_classes=classes,
        task=options.task or guess_task(kind, classes),
        output=kind,
        access="labels" if "labels" in (kind, options.access) else "scores",
        has_features=False,
        batch_norms=0,
        batch=image.batch if image.batched else 1,
        parameters=facts.parameters,
        macs=count_macs(model, image),
        size=file.size,
        sha256=file.sha256,
    )
    return RuntimeTeacher(spec, port, max_queries=options.max_queries)


def _choose_output(session: ort.InferenceSession, name: str | None) -> str:
    names = [output.name for output in session.get_outputs()]
    if name is not None and name not in names:
        raise UsageError(f"The model has no output {name!r}; it has {', '.join(names)}.", "Correct --output-name.")
    if name is None and len(names) > 1:
        raise UsageError(f"The model has {len(names)} outputs: {', '.join(names)}.", "Choose one with --output-name.")
    kind = next(output.type for output in session.get_outputs() if output.name == (name or names[0]))
    if "string" in kind or "map" in kind:
        raise UnsupportedModelError(
            f"The output {name or names[0]!r} answers text ({kind}); expected numbers.",
            "Choose the output that holds the scores with --output-name.",
        )
    return name or names[0]


def _result_type(session: ort.InferenceSession, name: str) -> np.dtype[np.generic]:
    kind = next(output.type for output in session.get_outputs() if output.name == name)
    return np.dtype(np.int64 if "int" in kind else np.float32)


def _trial(port: _Port, low: float, high: float, name: str) -> np.ndarray:
    """Answers to a few random images, asked twice: they must be rows, and the same rows."""
    rng = np.random.default_rng(0)
    images = rng.uniform(low, high, (_TRIAL_ROWS, *port.image.image_shape)).astype(np.float32)
    first, second = port.run(images), port.run(images)
    if not np.isfinite(first).all():
        raise UnsupportedModelError(f"{name} answers NaN or infinity on ordinary images.", "Check the export.")
    if not np.allclose(first, second, atol=1e-5 * max(1.0, float(np.abs(first).max()))):
        raise UnsupportedModelError(
            f"{name} gives different answers to the same image.",
            "Export it in inference mode (model.eval()): dropout or noise is still active.",
        )
    return first


def _count_classes(trial: np.ndarray, kind: str, options: TeacherOptions, name: str) -> int:
    if kind != "labels":
        return int(trial.shape[1])
    if options.classes is None and trial.shape[1] == 1:
        raise UsageError(f"{name} answers class indices only.", "Say how many classes there are: --classes 10.")
    return options.classes or int(trial.shape[1])

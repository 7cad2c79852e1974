"""A gradient teacher from an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.constants import with_constants_stored
from edgedafl.graph.cost import count_macs
from edgedafl.graph.executor import OnnxModule, unsupported_nodes
from edgedafl.graph.facts import ImageInput, facts_of, float_outputs
from edgedafl.graph.head import BatchNormTap, Head, batch_norm_taps, find_head
from edgedafl.graph.load import OnnxFile, load_onnx
from edgedafl.graph.moments import PromisedMoments, batch_norm_moments
from edgedafl.graph.needed import needed_part
from edgedafl.graph.parity import (
    FP16_TOLERANCE,
    FP32_TOLERANCE,
    QUANTIZED_TOLERANCE,
    compare,
    require_parity,
)
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.graph.tame import tamed
from edgedafl.runs import Parity
from edgedafl.tasks import SINGLE_LABEL
from edgedafl.teachers.acceptance import check_classifier, check_gradient, check_rows_alone, is_distribution
from edgedafl.teachers.base import (
    BatchNormStatistics,
    Teacher,
    TeacherOutput,
    TeacherSpec,
    channels_last,
    device_of,
)
from edgedafl.teachers.decode import guess_task
from edgedafl.teachers.input_range import baked_scale, find_input_range
from edgedafl.teachers.network import network_of
from edgedafl.teachers.options import TeacherOptions

__all__ = ["OnnxTeacher", "load_onnx_teacher", "to_interface"]

_PARITY_ROWS = 3
_TINY = 1e-30
_LEAST_SHARE = 1e-3  # a sigmoid that says no to everything is right to say so a little differently


@dataclass(frozen=True)
class _Wiring:
    """The values of the graph that the teacher reads."""

    image: ImageInput
    head: Head
    taps: tuple[BatchNormTap, ...]

    @property
    def wanted(self) -> tuple[str, ...]:
        names = [self.head.output, self.head.logits, *(tap.input for tap in self.taps)]
        return tuple(names if self.head.features is None else [*names, self.head.features])


class OnnxTeacher(Teacher):
    """Runs the graph with torch, so that gradients reach the image."""

    def __init__(self, spec: TeacherSpec, model: onnx.ModelProto, wiring: _Wiring, *, quantized: bool) -> None:
        super().__init__(spec)
        module = OnnxModule(model, keep=wiring.wanted)
        # Convolutions are 1.1-1.4x faster in channels-last on CPUs and tensor cores alike.
        self._module = channels_last(module).eval()
        self._wiring = wiring
        self._statistics = _running_statistics(model, wiring.taps)
        self._model = model
        self._quantized = quantized

    def network(self) -> onnx.ModelProto:
        """The graph up to its logits; refused for integer graphs, whose weights are not floats."""
        if self._quantized:
            raise UnsupportedModelError(f"{self.spec.source} is quantized: its layers hold integers.")
        return network_of(self, self._model, self._wiring.image, self._wiring.head.output)

    def promised_moments(self, network: onnx.ModelProto) -> dict[str, PromisedMoments]:
        """Means and deviations of the BatchNorms' outputs on the training data."""
        return batch_norm_moments(self._model, network)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self._module)

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self._module.to(device)
        self._statistics = {name: value.to(device) for name, value in self._statistics.items()}
        return self

    def _answer(self, images: Tensor, *, batch_norm: bool) -> TeacherOutput:
        head = self._wiring.head
        values = self._run(images)
        logits = values[head.logits].reshape(len(images), -1)
        if self.spec.output == "probabilities" and head.logits == head.output:
            # Decomposed softmax: KD is shift invariant, so log-probabilities serve as logits.
            logits = torch.log(logits.clamp_min(1e-12))
        features = None if head.features is None else _pooled(values[head.features])
        statistics = tuple(self._observe(tap, values) for tap in self._wiring.taps if batch_norm)
        return TeacherOutput(logits, features, statistics)

    def _run(self, images: Tensor) -> dict[str, Tensor]:
        image = self._wiring.image
        if image.batched and image.batch is None:
            feed = to_interface(images, image)
            return self._pick(self._module.run({image.name: feed}))
        return self._run_fixed(images, image)

    def _run_fixed(self, images: Tensor, image: ImageInput) -> dict[str, Tensor]:
        """Fixed batches are run in blocks under vmap: exact, and no slower than a free batch."""
        block = image.batch or 1
        missing = -len(images) % block
        padded = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        blocks = padded.reshape(-1, block, *padded.shape[1:])

        def run_block(piece: Tensor) -> dict[str, Tensor]:
            feed = to_interface(piece, image)
            feed = feed if image.batched else feed[0]
            found = self._pick(self._module.run({image.name: feed}))
            return {n: v.reshape(block, -1, *v.shape[2:]) if image.batched else v[None] for n, v in found.items()}

        found = torch.vmap(run_block)(blocks)
        return {name: value.flatten(0, 1)[: len(images)] for name, value in found.items()}

    def _pick(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values[name] for name in self._wiring.wanted}

    def _observe(self, tap: BatchNormTap, values: dict[str, Tensor]) -> BatchNormStatistics:
        x = values[tap.input].float()
        axes = [i for i in range(x.ndim) if i != 1]
        mean, var = x.mean(axes), x.var(axes, unbiased=False)
        return BatchNormStatistics(mean, var, self._statistics[tap.mean], self._statistics[tap.var])


def to_interface(images: Tensor, image: ImageInput) -> Tensor:
    """RGB images (N,C,H,W) laid out as the graph takes them.

    Examples:
        >>> from edgedafl.graph.facts import ImageInput
        >>> image = ImageInput("x", (None, 32, 32, 3), "FLOAT", "NHWC", (3, 32, 32), None)
        >>> to_interface(torch.zeros(4, 3, 32, 32), image).shape
        torch.Size([4, 32, 32, 3])
    """
    images = images.flip(1) if image.blue_first else images
    if image.flat:
        return images.reshape(image.dimensions(len(images)))
    return images.permute(0, 2, 3, 1) if image.layout == "NHWC" else images


def _pooled(features: Tensor) -> Tensor:
    """Features as (N, F); maps before a 1x1 convolution are averaged over space."""
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def load_onnx_teacher(path: str | Path, options: TeacherOptions | None = None) -> OnnxTeacher:
    """Load an ONNX classifier as a teacher with gradient access.

    The import is accepted only if it answers like ONNX Runtime.

    Raises:
        UnsupportedModelError: If the file is damaged, is not an image classifier, is a training graph,
            or has operators that cannot run.
        UsageError: If a choice is missing (`--output-name`, `--input-shape`).
        CheckFailedError: If the import's answers differ from ONNX Runtime's.

    Examples:
        >>> teacher = load_onnx_teacher("examples/mnist/teacher.onnx")
        >>> teacher.spec.input_shape, teacher.spec.num_classes
        ((1, 32, 32), 10)
    """
    options = options or TeacherOptions()
    file = load_onnx(path)
    inlined = _inlined(file.model)
    stored = with_constants_stored(inlined)
    model, output = needed_part(tamed(stored), output=options.output_name, image=options.input_name)
    reference = file.path if inlined is file.model and model is stored else model
    facts = facts_of(model)
    if facts.training:
        raise UnsupportedModelError(
            f"{file.path.name} is a training graph (it computes gradients or batch statistics).",
            "Export it in inference mode: model.eval() before the export.",
        )
    image = options.image_input(model)
    _refuse_unsupported(model, file.path.name)
    head = _choose_head(model, output)
    wiring = _Wiring(image, head, tuple(batch_norm_taps(model)))
    preprocess = options.preprocess(image.image_shape[0], image.dtype)
    spec = TeacherSpec(
        source=str(file.path),
        input_shape=image.image_shape,
        layout=image.layout,
        dtype=image.dtype,
        preprocess=preprocess,
        num_classes=0,
        task=options.task or SINGLE_LABEL,
        output=head.kind,
        access="gradient",
        has_features=head.features is not None,
        batch_norms=len(wiring.taps),
        batch=image.batch if image.batched else 1,
        parameters=facts.parameters,
        macs=count_macs(model, image),
        size=file.size,
        sha256=file.sha256,
    )
    teacher = OnnxTeacher(spec, model, wiring, quantized=facts.quantized)
    teacher.max_queries = options.max_queries
    _accept(teacher, file, reference, model, wiring, quantized=facts.quantized)
    if options.task is None:
        classes = teacher.spec.num_classes
        teacher.spec = replace(teacher.spec, task=guess_task(teacher.spec.output, classes))
    if preprocess.origin == "assumed":
        teacher.spec = replace(teacher.spec, preprocess=find_input_range(teacher, baked_scale(model, image.name)))
    return teacher


def _refuse_unsupported(model: onnx.ModelProto, name: str) -> None:
    """Raises UnsupportedModelError where an operator has no differentiable form."""
    missing = unsupported_nodes(model.graph)
    if not missing:
        return
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    own = all("." not in node.split(" ")[0] for node in missing)  # a domain stands before others' operators
    raise UnsupportedModelError(
        f"{name} has {len(missing)} nodes without a differentiable form: {', '.join(missing[:5])}{more}.",
        "Use it as a black box: --access scores."
        if own
        else "Export it with standard operators (ONNX Runtime: save at level EXTENDED, not ALL), "
        "or use it as a black box: --access scores.",
    )


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.functions:
        return model
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model)


def _running_statistics(model: onnx.ModelProto, taps: tuple[BatchNormTap, ...]) -> dict[str, Tensor]:
    wanted = {name for tap in taps for name in (tap.mean, tap.var)}
    return {
        tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in model.graph.initializer
        if tensor.name in wanted
    }


def _choose_head(model: onnx.ModelProto, name: str | None) -> Head:
    outputs = [output.name for output in model.graph.output]
    if name is not None:
        if name not in outputs:
            raise UsageError(
                f"The model has no output {name!r}; it has {', '.join(outputs)}.", "Correct --output-name."
            )
        return find_head(model, name)
    heads = [find_head(model, output) for output in float_outputs(model)] or [
        find_head(model, output) for output in outputs
    ]
    classifiers = [head for head in heads if head.features is not None]
    choice = classifiers or heads
    if len(choice) != 1:
        raise UsageError(
            f"The model has {len(choice)} outputs that could be the scores: "
            f"{', '.join(head.output for head in choice)}.",
            "Choose one with --output-name.",
        )
    return choice[0]


def _accept(
    teacher: OnnxTeacher,
    file: OnnxFile,
    reference_model: onnx.ModelProto | Path,
    model: onnx.ModelProto,
    wiring: _Wiring,
    *,
    quantized: bool,
) -> None:
    """Compare with ONNX Runtime on random pixels, and learn what only running can tell."""
    image, spec = wiring.image, teacher.spec
    session = open_session(reference_model)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (_PARITY_ROWS, *spec.input_shape), generator=generator)
    images = spec.preprocess.from_pixels(pixels.to(torch.uint8))
    images.requires_grad_()
    values = teacher._run(images)
    check_gradient(file.path.name, images, values[wiring.head.logits])
    values = {name: value.detach() for name, value in values.items()}
    logits = values[wiring.head.logits]
    check_classifier(file.path.name, logits)
    images = images.detach()
    scores = values[wiring.head.output].reshape(_PARITY_ROWS, -1).numpy()
    kind = {"UINT8": np.uint8, "FLOAT16": np.float16, "DOUBLE": np.float64}.get(image.dtype, np.float32)
    feeds = to_interface(images, image).contiguous().numpy().astype(kind)
    if not image.batched:
        answers = [session.run([wiring.head.output], {image.name: row})[0] for row in feeds]
        reference = np.stack([np.asarray(a, np.float32).reshape(-1) for a in answers])
    else:
        reference = run_batched(session, feeds, output=wiring.head.output, batch=image.batch)
    reference = np.asarray(reference, np.float32).reshape(_PARITY_ROWS, -1)
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    tolerance = QUANTIZED_TOLERANCE if quantized else FP16_TOLERANCE if half else FP32_TOLERANCE
    shares = wiring.head.kind in ("sigmoid", "probabilities")
    parity = compare(reference, scores, least=_LEAST_SHARE if shares else _TINY)
    if wiring.head.kind == "labels":
        # Labels have no scale: the arg-max of the logits must be what ONNX Runtime answers.
        found = logits.flatten(1).argmax(1).numpy()
        parity = Parity(float((reference[:, 0] != found).any()), float((reference[:, 0] == found).mean()), len(found))
        require_parity(parity, 0.0, f"Importing {file.path.name}, labels")
    else:
        require_parity(parity, tolerance, f"Importing {file.path.name}")
    if image.batched and image.batch is None:
        check_rows_alone(file.path.name, logits, teacher._run(images[:1])[wiring.head.logits])
    output = spec.output
    if output == "logits" and is_distribution(scores):
        output = "probabilities"
    teacher.spec = replace(spec, num_classes=logits.flatten(1).shape[1], output=output)

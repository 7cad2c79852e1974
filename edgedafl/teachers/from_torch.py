"""A gradient teacher from a Python factory and a weights file."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgedafl.errors import UnsupportedModelError, UsageError, reason_of
from edgedafl.graph.canonicalize import IMAGE
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.graph.load import sha256_of
from edgedafl.graph.moments import PromisedMoments, batch_norm_moments
from edgedafl.tasks import SINGLE_LABEL
from edgedafl.teachers.base import (
    BatchNormStatistics,
    Teacher,
    TeacherOutput,
    TeacherSpec,
    channels_last,
    device_of,
)
from edgedafl.teachers.decode import guess_output, guess_task
from edgedafl.teachers.input_range import find_input_range
from edgedafl.teachers.network import network_of
from edgedafl.teachers.options import TeacherOptions
from edgedafl.teachers.torch_files import PYTORCH_FILES, BlueFirst, FirstTensor, first_tensor, load_torch_file
from edgedafl.teachers.torch_weights import load_weights

__all__ = ["PYTORCH_FILES", "TorchTeacher", "load_torch_teacher", "looks_like_factory"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def looks_like_factory(source: str) -> bool:
    """Whether a teacher is named as `package.module:factory`.

    Examples:
        >>> looks_like_factory("my_nets.py:build"), looks_like_factory("model.onnx")
        (True, False)
    """
    module, _, name = source.partition(":")
    parts = module.split(".")
    return name.isidentifier() and all(p.isidentifier() for p in parts) and not Path(source).exists()


class TorchTeacher(Teacher):
    """An `nn.Module`; features are what its last linear layer reads."""

    def __init__(self, spec: TeacherSpec, module: nn.Module) -> None:
        super().__init__(spec)
        self._module = channels_last(module)
        self._features: list[Tensor] = []
        self._observed: list[BatchNormStatistics] = []
        self._watching = False
        if not isinstance(module, torch.jit.ScriptModule):
            self._listen(module)

    @property
    def module(self) -> nn.Module:
        """The network that answers."""
        return self._module

    def _listen(self, module: nn.Module) -> None:
        """Hooks for features and statistics; compiled modules take none and give neither."""
        layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
        if layers:
            layers[-1].register_forward_pre_hook(self._keep_features)
        for layer in module.modules():
            if isinstance(layer, _BATCH_NORMS) and layer.running_mean is not None:
                layer.register_forward_pre_hook(self._observe)

    def _keep_features(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._features = [inputs[0]]

    def _observe(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        x = inputs[0].float()
        axes = [i for i in range(x.ndim) if i != 1]
        mean, var = x.mean(axes), x.var(axes, unbiased=False)
        running = (layer.running_mean, layer.running_var)
        self._observed.append(BatchNormStatistics(mean, var, *running))  # type: ignore[arg-type]

    def network(self) -> onnx.ModelProto:
        """The module as torch's exporter writes it."""
        shape = self.spec.input_shape
        image = ImageInput(IMAGE, (None, *shape), "FLOAT", "NCHW", shape, None)
        return network_of(self, self._exported(optimize=True), image, "scores")

    def promised_moments(self, network: onnx.ModelProto) -> dict[str, PromisedMoments]:
        """Means and deviations of the BatchNorms' outputs on the training data."""
        return batch_norm_moments(self._exported(optimize=False), network) if self.spec.batch_norms else {}

    def _exported(self, *, optimize: bool) -> onnx.ModelProto:
        try:
            zeros = torch.zeros(2, *self.spec.input_shape, device=self.device)
            return module_to_onnx(self._module, zeros, input_name=IMAGE, output_name="scores", optimize=optimize)
        except Exception as error:  # the exporter's errors share no base class
            raise UnsupportedModelError(f"torch cannot export {self.spec.source} to ONNX.") from error

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self._module)

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self._module.to(device)
        return self

    def _answer(self, images: Tensor, *, batch_norm: bool) -> TeacherOutput:
        self._features, self._observed, self._watching = [], [], batch_norm
        logits = _as_logits(self._module(images), self.spec.output)
        features = self._features[0].flatten(1) if self._features else None
        self._features = []
        return TeacherOutput(logits, features, tuple(self._observed))


def load_torch_teacher(source: str, options: TeacherOptions) -> TorchTeacher:
    """Build `package.module:factory()` with its weights, or open a file that holds a whole model.

    Weights never run code; whole models may, and are opened with `options.trust` only.

    Raises:
        UsageError: If the factory or the weights cannot be found, or `--input-shape` is missing.
        UnsupportedModelError: If the weights do not fit, or the file would have to run code.

    Examples:
        >>> load_torch_teacher("my.models:resnet", TeacherOptions(weights="resnet.pt"))  # doctest: +SKIP
    """
    if options.input_shape is None:
        raise UsageError("A PyTorch teacher does not say its image size.", "Give it: --input-shape C,H,W.")
    size, digest = 0, ""
    if looks_like_factory(source):
        module = _build(source)
    else:
        module = load_torch_file(Path(source), trust=options.trust)
        size, digest = Path(source).stat().st_size, sha256_of(Path(source))
    if options.weights is not None:
        load_weights(module, options.weights)
        size, digest = options.weights.stat().st_size, sha256_of(options.weights)
    module = module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    channels = options.input_shape[0]
    module = BlueFirst(module) if options.blue_first else module
    spec = TeacherSpec(
        source=source,
        input_shape=options.input_shape,
        layout="NCHW",
        dtype="FLOAT",
        preprocess=options.preprocess(channels),
        num_classes=0,
        task=options.task or SINGLE_LABEL,
        output="logits",
        access="gradient",
        has_features=any(isinstance(m, nn.Linear) for m in module.modules()),
        batch_norms=sum(isinstance(m, _BATCH_NORMS) for m in module.modules()),
        batch=None,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=0,
        size=size or sum(4 * p.numel() for p in module.parameters()),
        sha256=digest,
    )
    return _finish(spec, module, options)


def _finish(spec: TeacherSpec, module: nn.Module, options: TeacherOptions) -> TorchTeacher:
    from edgedafl.module_cost import module_macs

    if not isinstance(module, torch.jit.ScriptModule):
        _check_batch_norms(spec.source, module)
    scores, wrapped = _trial(spec, module)
    module = FirstTensor(module) if wrapped else module
    output = guess_output(scores)
    if scores.shape[1] == 1 and scores.min() > 0 and scores.max() < 1 and options.task != SINGLE_LABEL:
        output = "sigmoid"
    macs = module_macs(module, spec.input_shape) if _is_plain(module) else 0
    task = options.task or guess_task(output, scores.shape[1])
    spec = replace(spec, num_classes=scores.shape[1], macs=macs, output=output, task=task)
    teacher = TorchTeacher(spec, module)
    teacher.max_queries = options.max_queries
    if spec.preprocess.origin == "assumed":
        teacher.spec = replace(spec, preprocess=find_input_range(teacher, baked=False))
    return teacher


def _is_plain(module: nn.Module) -> bool:
    """Whether layers can be seen: compiled and exported programs hide them."""
    layers = any(isinstance(m, nn.Linear | nn.Conv2d) for m in module.modules())
    return layers and not isinstance(module, torch.jit.ScriptModule)


def _check_batch_norms(source: str, module: nn.Module) -> None:
    lacking = [name for name, m in module.named_modules() if isinstance(m, _BATCH_NORMS) and m.running_mean is None]
    if lacking:
        raise UnsupportedModelError(
            f"{source} has {len(lacking)} BatchNorm layers without running statistics ({lacking[0]}): its answer to "
            "an image depends on the others in the batch.",
            "Build it with track_running_stats=True and load weights that have the statistics.",
        )


def _trial(spec: TeacherSpec, module: nn.Module) -> tuple[np.ndarray, bool]:
    """Scores of random images, asked twice: one row each, finite, and the same both times.

    Returns:
        The scores, and whether they came within something else.
    """
    generator = torch.Generator().manual_seed(0)
    images = spec.preprocess.to_model(torch.rand(4, *spec.input_shape, generator=generator))
    with torch.no_grad():
        try:
            answer = module(images)
            first, second = first_tensor(answer), first_tensor(module(images))
        except Exception as error:  # a user's own code raises what it likes
            raise UnsupportedModelError(
                f"{spec.source} does not take images of shape {spec.input_shape}: {reason_of(error)}",
                "Correct --input-shape.",
            ) from error
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != 4:
        shape = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise UnsupportedModelError(
            f"{spec.source} answers shape {shape} for four images; expected (4, classes).",
            "EdgeDAFL compresses image classifiers.",
        )
    if not first.is_floating_point():
        raise UnsupportedModelError(
            f"{spec.source} answers whole numbers ({first.dtype}); expected a score for every class.",
            "Leave out the arg-max at its end.",
        )
    if not torch.isfinite(first).all():
        raise UnsupportedModelError(f"{spec.source} answers NaN or infinity on ordinary images.", "Check its weights.")
    if not torch.allclose(first, second, atol=1e-4):
        raise UnsupportedModelError(
            f"{spec.source} gives different answers to the same image.", "Call model.eval() before saving it."
        )
    return first.numpy(), not isinstance(answer, Tensor)


def _build(source: str) -> nn.Module:
    name, _, factory = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's own code lies where the command is called
    try:
        found = getattr(importlib.import_module(name), factory)
    except Exception as error:  # the user's module runs when it is imported, and raises what it likes
        raise UsageError(
            f"The factory {source!r} cannot be imported: {reason_of(error)}.", "Write it as package.module:function."
        ) from error
    try:
        module = found()
    except Exception as error:
        raise UsageError(
            f"The factory {source!r} failed with {type(error).__name__}: {reason_of(error)}.",
            "It is called without arguments, on the CPU; write a function that fills in what the model needs.",
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"The factory {source!r} returned {type(module).__name__}; expected a torch.nn.Module.")
    return module


def _as_logits(scores: Tensor, output: str) -> Tensor:
    """Differentiable logits from what the module answers."""
    if output == "probabilities":
        return torch.log(scores.clamp_min(1e-12))
    return torch.logit(scores, 1e-7) if output == "sigmoid" else scores

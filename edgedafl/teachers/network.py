"""A teacher's own network as a graph that a student can start from."""

from __future__ import annotations

import onnx
import torch

from edgedafl.errors import UnsupportedModelError, reason_of
from edgedafl.graph.canonicalize import canonicalize
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.head import find_head
from edgedafl.tasks import Task, states
from edgedafl.teachers.base import Teacher

__all__ = ["network_of"]

_ROWS = 3
_TOLERANCE = 1e-3


def network_of(teacher: Teacher, model: onnx.ModelProto, image: ImageInput, output: str) -> onnx.ModelProto:
    """A teacher's graph with images in and logits out, accepted after comparing its answers.

    Args:
        teacher: Whose graph it is.
        model: The graph.
        image: Its image input.
        output: Its score output.

    Raises:
        UnsupportedModelError: If the logits cannot be read, or the rewritten graph answers otherwise.

    Examples:
        >>> from edgedafl.graph.image_input import find_image_input
        >>> from edgedafl.graph.load import load_onnx
        >>> from edgedafl.teachers import load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx")
        >>> model = load_onnx("examples/mnist/teacher.onnx").model
        >>> network = network_of(teacher, model, find_image_input(model), model.graph.output[0].name)
        >>> [value.name for value in [*network.graph.input, *network.graph.output]]
        ['image', 'logits']
    """
    head = find_head(model, output)
    if head.kind == "logits" and teacher.spec.output not in ("logits", "log-probabilities"):
        raise UnsupportedModelError(f"The network answers {teacher.spec.output}; its logits cannot be read.")
    graph = canonicalize(model, image, head.logits)
    try:
        _compare(graph, teacher)
    except RuntimeError as error:
        raise UnsupportedModelError(f"The network does not take batches of another size: {reason_of(error)}") from error
    return graph


@torch.no_grad()
def _compare(graph: onnx.ModelProto, teacher: Teacher) -> None:
    """Three images at once and one by one must be answered as the teacher answers them."""
    spec = teacher.spec
    generator = torch.Generator().manual_seed(1)
    images = spec.preprocess.to_model(torch.rand(_ROWS, *spec.input_shape, generator=generator))
    module = OnnxModule(graph)
    wanted = _classes(teacher.scores(images.to(teacher.device)).cpu(), spec.task)
    for answer in (module(images), torch.cat([module(row) for row in images.split(1)])):
        found = _classes(answer, spec.task)
        if found.shape != wanted.shape or not bool((found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max()):
            raise UnsupportedModelError("The network answers otherwise once its layers are read one by one.")


def _classes(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Log-probabilities: what differs by a constant is the same answer."""
    return torch.log_softmax(states(logits, task), -1)

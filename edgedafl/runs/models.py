"""What is known of a teacher and of a student, without opening either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgedafl.preprocess import Preprocess
from edgedafl.tasks import Access, Answers, Layout, Task

__all__ = ["KEPT", "PRUNED", "StudentSpec", "TeacherRecord", "TeacherSpec"]

PRUNED = "pruned"
"""Architecture name of students that are cut out of their teacher."""

KEPT = "kept"
"""Name of those whose widths are chosen for a share of the teacher's weights."""


@dataclass(frozen=True)
class TeacherSpec:
    """What is known of a teacher.

    Attributes:
        source: Where it came from, as the user named it.
        input_shape: (C, H, W).
        layout: `NCHW` or `NHWC`, as its own interface takes images.
        dtype: Element type of its own interface.
        preprocess: Map from pixels to model space.
        num_classes: K.
        task: `single-label`, `binary` (one score) or `multi-label`.
        output: What its own interface answers: `logits`, `probabilities`, `log-probabilities`,
            `sigmoid` or `labels`.
        access: `gradient`, `scores` or `labels`.
        has_features: Whether penultimate features can be read.
        batch_norms: How many BatchNorm layers still carry statistics.
        batch: The fixed batch of its interface, or None.
        parameters: Count of weights.
        macs: Multiply-accumulates per image.
        size: Bytes of its file.
        sha256: Digest of its file; empty where there is none.
    """

    source: str
    input_shape: tuple[int, int, int]
    layout: Layout
    dtype: str
    preprocess: Preprocess
    num_classes: int
    task: Task
    output: Answers
    access: Access
    has_features: bool
    batch_norms: int
    batch: int | None
    parameters: int
    macs: int
    size: int
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        data = dict(vars(self))
        data["preprocess"] = self.preprocess.to_dict()
        data["input_shape"] = list(self.input_shape)
        return data


@dataclass(frozen=True)
class TeacherRecord(TeacherSpec):
    """The teacher of a run.

    Attributes:
        name: Of its file, for people.
    """

    name: str = ""


@dataclass(frozen=True)
class StudentSpec:
    """What is known of a student.

    Attributes:
        name: Architecture name, with its width where that is not 1, e.g. `resnet8:0.5`.
        architecture: The name in the registry, or the user's `my.py:build`.
        width: Factor on the channels.
        input_shape: (C, H, W).
        num_classes: K.
        parameters: Count of weights.
        macs: Multiply-accumulates per image.
    """

    name: str
    architecture: str
    width: float
    input_shape: tuple[int, int, int]
    num_classes: int
    parameters: int
    macs: int

    @property
    def inherited(self) -> bool:
        """Whether it begins with its teacher's weights, which a high rate would shake off."""
        return self.architecture == PRUNED

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return {**vars(self), "input_shape": list(self.input_shape)}

"""Probe sets: synthetic images that are never trained on, to watch a student by.

What they give is *synthetic agreement*, the share of equal top-1 answers. It is never called
accuracy: nobody can say from it how the student does on real images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgedafl.distill.synthesizers.base import Synthesizer
from edgedafl.distill.synthesizers.priors import noise_fields
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.preprocess import Preprocess
from edgedafl.runs import AgreementReport
from edgedafl.tasks import SINGLE_LABEL, Task, states
from edgedafl.teachers.base import Teacher, images_at_once

__all__ = ["ProbePlan", "ProbeSets"]

# Larger ones leave a processor's caches: 128 images of CIFAR's size run twice as fast as 512 there.
_CHUNK, _CHUNK_GPU = 128, 512
_ROWS, _FEWEST_ROWS = 1000, 200
# Multiply-accumulates that the teacher may take for one set: seconds on a small processor.
_EFFORT = 2e11
# Of one set; there are five, and all of them are in every checkpoint.
_BYTES = 64 << 20
# With the default synthesizer's eight lives these lie right before its adversarial phases: probes
# show how the student does on clear images, not on those made to fool it.
_MOMENTS = (0.28, 0.53, 0.78, 0.905)
# Under a query limit a probe set takes at most 1/150 of it: five sets stay below the 5 % that
# black-box synthesizers leave to them.
_SHARE = 150
_SEED = 20190402


class ProbeSets:
    """Frozen uint8 sets with the teacher's class for each image.

    Examples:
        >>> from edgedafl.preprocess import Preprocess
        >>> sets = ProbeSets(Preprocess.from_range(0.0, 1.0, channels=1))
        >>> sets.add("priors", torch.rand(4, 1, 8, 8), lambda images: images.flatten(1)[:, :3])
        >>> sets.names, sets.classes("priors").shape
        (['priors'], torch.Size([4]))
    """

    def __init__(self, preprocess: Preprocess, task: Task = SINGLE_LABEL) -> None:
        self._task = task
        self._preprocess = preprocess
        self._pixels: dict[str, Tensor] = {}
        self._classes: dict[str, Tensor] = {}

    @property
    def names(self) -> list[str]:
        """Names of the sets, oldest first."""
        return list(self._pixels)

    def add(self, name: str, images: Tensor, scores_of: Callable[[Tensor], Tensor]) -> None:
        """Freeze a set of images (N,C,H,W, model space); the teacher is asked once."""
        pixels = self._preprocess.to_pixels(images)
        exact = self._preprocess.from_pixels(pixels)
        self._pixels[name] = pixels
        self._classes[name] = self._decided(exact, scores_of)

    def images(self, name: str) -> Tensor:
        """One set in model space."""
        return self._preprocess.from_pixels(self._pixels[name])

    def pixels(self, name: str) -> Tensor:
        """One set as uint8."""
        return self._pixels[name]

    def classes(self, name: str) -> Tensor:
        """The teacher's classes for one set: (N,), or (N, K) of 0 and 1."""
        return self._classes[name]

    def agreement(self, scores_of: Callable[[Tensor], Tensor]) -> AgreementReport:
        """Agreement of a model, given as a function from images to scores (N, K)."""
        shares = {}
        for name in self.names:
            guess = self._decided(self.images(name), scores_of)
            same = guess.to(self._classes[name].device) == self._classes[name]
            shares[name] = float(same.float().mean())
        generated = [v for name, v in shares.items() if name.startswith("generated")]
        values = generated or list(shares.values()) or [0.0]
        return AgreementReport(shares, sum(values) / len(values), min(shares.values(), default=0.0))

    def _decided(self, images: Tensor, scores_of: Callable[[Tensor], Tensor]) -> Tensor:
        fitting = min(_CHUNK, images_at_once(images.shape[1:]))
        parts = torch.split(images, _CHUNK_GPU if images.is_cuda else fitting)
        return torch.cat([states(scores_of(part), self._task).argmax(-1) for part in parts])

    def state_dict(self) -> dict[str, Any]:
        """All sets."""
        return {"pixels": dict(self._pixels), "classes": dict(self._classes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._pixels = dict(state["pixels"])
        self._classes = dict(state["classes"])


class ProbePlan:
    """Adds a run's probe sets at their moments.

    Args:
        sets: Where they go; those of an earlier part of the run are not made again.
        teacher: Asked once about every set.
        synthesizer: Makes the generated sets.
        device: Where images are made.
    """

    def __init__(
        self, sets: ProbeSets, teacher: Teacher, synthesizer: Synthesizer, device: torch.device | str = "cpu"
    ) -> None:
        self._sets, self._teacher, self._synthesizer, self._device = sets, teacher, synthesizer, device
        limit = teacher.max_queries
        most = max(_FEWEST_ROWS, min(_ROWS, _BYTES // math.prod(teacher.spec.input_shape)))
        rows = rows_within_budget(teacher.spec.macs, effort=_EFFORT, fewest=_FEWEST_ROWS, most=most, device=device)
        self._rows = rows if limit is None else min(rows, limit // _SHARE)

    def begin(self) -> None:
        """Procedural images, the same in every run."""
        if self._sets.names:
            return
        spec, seed = self._teacher.spec, torch.Generator().manual_seed(_SEED)
        unit = noise_fields(self._rows, spec.input_shape, seed).to(self._device)
        self._sets.add("priors", spec.preprocess.to_model(unit), self._teacher.scores)

    def add_due(self, fraction: float) -> None:
        """Generated images, where a moment has come at this share of the budget."""
        made = len(self._sets.names) - 1
        if made < len(_MOMENTS) and fraction >= _MOMENTS[made]:
            self._add_generated(_MOMENTS[made])

    def end(self) -> None:
        """Generated images of the end, where no moment came before it."""
        if len(self._sets.names) == 1:
            self._add_generated(1.0)

    def _add_generated(self, moment: float) -> None:
        if self._teacher.remaining is not None and self._teacher.remaining < self._rows:
            return
        images = self._synthesizer.sample(self._rows)
        self._sets.add(f"generated at {moment:.0%}", images, self._teacher.scores)

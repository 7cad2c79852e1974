"""What is asked of a teacher before anything is trained: once, for everybody who needs it.

The layers are fitted on some of these images, candidates are judged on others, and if nothing is trained
the int8 ranges come from them as well.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

from edgedafl.distill import ProceduralImages
from edgedafl.distill.synthesizers.priors import FAMILIES, NATURAL, dead_leaves, spectra
from edgedafl.distill.training.augment import mixed
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.fidelity import Predictor, Signals, compare_answers, measured_band
from edgedafl.files.pictures import Pictures
from edgedafl.graph.edit import model_bytes
from edgedafl.graph.packed import has_few_integers
from edgedafl.graph.runtime import open_session, run_batched
from edgedafl.preprocess import middle_share
from edgedafl.quantize import CalibrationSet
from edgedafl.runs import Band
from edgedafl.stages.confident import confident_images
from edgedafl.tasks import predictions
from edgedafl.teachers import Teacher
from edgedafl.teachers.base import images_at_once

__all__ = ["Judged", "Study", "answers_to", "natural_images", "resized", "study_teacher"]

_TRIAL = (20, 300)
_JUDGED = (96, 400)
_RANGED = 128
_ASKED = 512
# Multiply-accumulates that the teacher may take: seconds on two cores.
_EFFORT = 1.5e10
_TRIAL_EFFORT = 2e10
# Of a limit on queries each part of the look takes at most this share.
_SHARE = 0.02
_LEAST_ASKED = 8
_EIGHT_BITS = "eight bits"
_LEAST_PICTURES = 20  # fewer measure nothing
_CHUNK = 32
_AT_ONCE = 16  # images that are drawn together
_MIXED = 48  # images that are mixed with each other, in one of three ways
_PICTURES = "pictures"


@dataclass(frozen=True)
class Judged:
    """Images that nothing learns from, with the teacher's logits.

    Attributes:
        images: float (N,C,H,W) in model space.
        logits: (N, K).
    """

    images: Tensor
    logits: np.ndarray


@dataclass(frozen=True)
class Study:
    """A teacher's answers to synthetic images and to the user's pictures.

    Attributes:
        teacher: Whose.
        companions: Draws images of the families that tell most about it, and the user's pictures.
        judged: By kind: `natural`, `mixture`, and `pictures` where the user gave enough.
        pictures: The user's.
        seconds: That the teacher takes per image, as it is asked.
    """

    teacher: Teacher
    companions: ProceduralImages
    judged: Mapping[str, Judged]
    pictures: Pictures | None
    seconds: float
    _bands: dict[str, Band | None] = field(default_factory=dict, repr=False, compare=False)
    _errors: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def fitting_images(self, count: int, *, mixes: bool = True) -> Tensor:
        """Images in model space to fit layers on: natural ones, the families' and the user's.

        Args:
            count: How many.
            mixes: Whether some are mixed with each other, which the user's are not.
        """
        natural = count // 2 if self.teacher.spec.input_shape[0] == 3 else count // 4
        seed = torch.Generator().manual_seed(11)
        own = self._natural(natural, seed)
        places = torch.randperm(count, generator=seed).argsort()
        # In place: at 224 pixels a thousand images are 600 MB, and every copy of them takes a quarter of a second.
        images = torch.empty(count, *self.teacher.spec.input_shape)
        images[places[:natural]] = own
        del own
        images[places[natural:]] = self.companions.draw(count - natural)
        if mixes and self.pictures is None:  # photographs are various enough as they are
            for part in images.split(_MIXED):
                part.copy_(mixed(part, seed))
        return images

    @cached_property
    def ranging_images(self) -> Tensor:
        """Images in model space to take integer ranges from: mixing moves extremes, so none are mixed."""
        return confident_images(self.teacher, self.fitting_images(_RANGED, mixes=False))

    def _natural(self, count: int, seed: torch.Generator) -> Tensor:
        return self.teacher.spec.preprocess.to_model(natural_images(count, self.teacher.spec.input_shape, seed))

    def band(
        self, scores_of: Callable[[Tensor], Tensor], *, whole: bool = False, few: bool | None = None
    ) -> Band | None:
        """Fidelity of a model: measured on held-back pictures where there are any, else predicted.

        Args:
            scores_of: Images (N,C,H,W) in model space, at the teacher's size, to logits (N, K).
            whole: Whether it is the teacher itself in other numbers.
            few: Whether weights take fewer bits than eight; None where they are not integers.
        """
        if _PICTURES in self.judged:
            mine = self.judged[_PICTURES]
            found = answers_to(scores_of, mine.images)
            task = self.teacher.spec.task
            same = predictions(found, task) == predictions(mine.logits, task)
            return measured_band(int(same.sum()), same.size, "measured on your pictures")
        if self.teacher.spec.access == "labels" or not self.judged:
            return None
        signals = self.signals(scores_of, whole=whole)
        if few and whole:
            signals = replace(signals, eight_bits=self._errors.get(_EIGHT_BITS))
        elif few is False and whole:
            self._errors[_EIGHT_BITS] = signals.mean_error
        return Predictor.shipped().predict(signals)

    def band_of_graph(self, model: onnx.ModelProto, *, whole: bool) -> Band | None:
        """The same of a graph at batch 1, which may take smaller images than the teacher; asked once per graph.

        What fewer bits than eight cost the whole teacher is told from what eight do, where those were asked first.
        """
        key = hashlib.sha256(model_bytes(model)).hexdigest()
        if key not in self._bands:
            self._bands[key] = self._band_of_graph(model, whole=whole)
        return self._bands[key]

    def _band_of_graph(self, model: onnx.ModelProto, *, whole: bool) -> Band | None:
        session = open_session(model, threads=0)
        _, _, height, width = session.get_inputs()[0].shape

        def scores_of(images: Tensor) -> Tensor:
            return torch.from_numpy(run_batched(session, resized(images, (height, width)).numpy(), batch=1))

        integers = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
        return self.band(scores_of, whole=whole, few=has_few_integers(model) if integers else None)

    def signals(self, scores_of: Callable[[Tensor], Tensor], *, whole: bool = False) -> Signals:
        """What is seen of a model on the synthetic images."""
        task = self.teacher.spec.task
        kinds = {kind: own for kind, own in self.judged.items() if kind != _PICTURES}
        found = {
            kind: compare_answers(own.logits, answers_to(scores_of, own.images), task) for kind, own in kinds.items()
        }
        return Signals(found, self.teacher.spec.num_classes, self.teacher.spec.input_shape[0] > 1, whole)

    def calibration(self, images: Tensor, sides: tuple[int, int], seed: int) -> CalibrationSet:
        """Calibration and probe images where no pool of generated ones is there.

        Args:
            images: To round weights and to train on, in model space, at the teacher's size.
            sides: Height and width that the student takes.
            seed: Of the choice.
        """
        spec = self.teacher.spec
        remaining = self.teacher.remaining
        images = images[: _ASKED if remaining is None else max(1, min(_ASKED, remaining // 4))]
        logits = torch.cat([self.teacher.scores(part) for part in images.split(_CHUNK)]).numpy()
        probes = list(self.judged.values()) or [Judged(images, logits)]

        def pixels_of(found: Tensor) -> np.ndarray:
            pixels: np.ndarray = spec.preprocess.to_pixels(resized(found, sides)).numpy()
            return pixels

        found = CalibrationSet.balanced(
            pixels_of(images),
            predictions(logits, spec.task),
            logits=logits,
            task=spec.task,
            probe_pixels=np.concatenate([pixels_of(own.images) for own in probes]),
            probe_classes=np.concatenate([predictions(own.logits, spec.task) for own in probes]),
            preprocess=spec.preprocess,
            seed=seed,
        )
        return replace(found, pixels=pixels_of(self.ranging_images))


def natural_images(count: int, input_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Dead leaves and 1/f fields (count, C, H, W) in [0, 1].

    Examples:
        >>> natural_images(4, (3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """
    leaves = round(NATURAL["leaves"] * count)
    images = torch.empty(count, *input_shape)
    for part in images[:leaves].split(_AT_ONCE):
        part.copy_(dead_leaves(len(part), input_shape, generator))
    images[leaves:] = spectra(count - leaves, input_shape, generator)
    return images


def study_teacher(teacher: Teacher, pictures: Pictures | None = None) -> Study:
    """Ask a teacher about the images by which its students are fitted and judged.

    Args:
        teacher: The teacher.
        pictures: The user's, where given.

    Examples:
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> study = study_teacher(teacher)
        >>> sorted(study.judged), study.signals(teacher.scores, whole=True).comparisons["natural"].agreement
        (['mixture', 'natural'], 1.0)
    """
    spec = teacher.spec
    trial = _affordable(teacher, _TRIAL, _TRIAL_EFFORT / len(FAMILIES), len(FAMILIES))
    draw = None if pictures is None else pictures.draw
    companions = ProceduralImages(spec, 1, trial, "cpu", draw)
    plain = ProceduralImages(spec, 1, trial, "cpu")
    if trial:
        companions.tune(teacher)
        plain.priors.shares = _without_pictures(companions.priors.shares)
    count = _affordable(teacher, _JUDGED, _EFFORT, 2)
    images = {}
    if count:
        natural = natural_images(count, spec.input_shape, torch.Generator().manual_seed(5))
        images = {"natural": spec.preprocess.to_model(natural), "mixture": plain.draw(count)}
    if pictures is not None:
        own = pictures.held_back
        if teacher.remaining is not None:
            own = own[: int(_SHARE * teacher.remaining)]
        if len(own) >= _LEAST_PICTURES:
            images[_PICTURES] = spec.preprocess.to_model(own)
    exact = {kind: spec.preprocess.from_pixels(spec.preprocess.to_pixels(own)) for kind, own in images.items()}
    begun = time.monotonic()
    judged = {kind: Judged(own, answers_to(teacher.scores, own)) for kind, own in exact.items()}
    asked = sum(len(own.images) for own in judged.values())
    seconds = (time.monotonic() - begun) / max(asked, 1)
    return Study(teacher, companions, judged, pictures, seconds)


def resized(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """Images for a network that is fed smaller ones: their middle (see `middle_share`), shrunk by cubic interpolation.

    Cubic interpolation keeps edges sharper than averaging does, which wins another point of the answers
    (docs/experiments.md). What it overshoots by is clipped to what the image holds.

    Examples:
        >>> resized(torch.zeros(2, 3, 224, 224), (160, 160)).shape
        torch.Size([2, 3, 160, 160])
    """
    if tuple(images.shape[2:]) == tuple(sides):
        return images
    kept = [round(full * middle_share(side, full)) for side, full in zip(sides, images.shape[2:], strict=True)]
    top, left = ((full - own) // 2 for own, full in zip(kept, images.shape[2:], strict=True))
    middle = images[:, :, top : top + kept[0], left : left + kept[1]]
    small = F.interpolate(middle, sides, mode="bicubic", align_corners=False)
    return small.clamp_(middle.amin((2, 3), keepdim=True), middle.amax((2, 3), keepdim=True))


def _without_pictures(shares: Mapping[str, float]) -> dict[str, float]:
    kept = {name: share for name, share in shares.items() if name in FAMILIES}
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()}


def _affordable(teacher: Teacher, limits: tuple[int, int], effort: float, parts: int) -> int:
    """Images per part; as few as a limit on queries leaves."""
    count = rows_within_budget(teacher.spec.macs, effort=effort, fewest=limits[0], most=limits[1])
    if teacher.remaining is None:
        return count
    allowed = int(_SHARE * teacher.remaining / parts)
    return min(count, allowed) if allowed >= _LEAST_ASKED else 0


def answers_to(scores_of: Callable[[Tensor], Tensor], images: Tensor) -> np.ndarray:
    """Logits (N, K), from as many images at once as leave a CPU's memory alone.

    Args:
        scores_of: Images (N,C,H,W) to logits.
        images: In model space.

    Examples:
        >>> answers_to(lambda images: images.mean((2, 3)), torch.ones(5, 3, 8, 8)).shape
        (5, 3)
    """
    at_once = min(_CHUNK, images_at_once(images.shape[1:]))
    with torch.no_grad():
        parts = [scores_of(part).detach().cpu().float().numpy() for part in images.split(at_once)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts])

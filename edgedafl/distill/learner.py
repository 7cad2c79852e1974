"""The student's side of the engine: what it is shown, what it is told, and its average."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.distill.augment import Augmentation, choose_augmentation, mixed
from edgedafl.distill.budget import SCHEDULES
from edgedafl.distill.compute import Compute
from edgedafl.distill.ema import EmaStudent
from edgedafl.distill.losses import distillation_loss
from edgedafl.distill.optimizer import bare_rate, make_optimizer, set_rate
from edgedafl.distill.pool import Pool
from edgedafl.distill.recorded import RecordedStep
from edgedafl.distill.synthesizers.base import Batch, Recipe, Synthesizer
from edgedafl.distill.world import World
from edgedafl.distill.worth import ImageWorth
from edgedafl.graph.portable import LOGITS
from edgedafl.students import Student, training_format
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["Learner", "capacity_of"]

# Pictures, calibration and probes still want images where the recipe itself keeps none.
_LEAST_POOL = 4000
_FIRST_ROWS = 400
_WARM_UP = 60  # student steps


@dataclass(frozen=True)
class _Lesson:
    """Images and the teacher's logits; without them the teacher has to be asked."""

    images: Tensor
    logits: Tensor | None


class Learner:
    """Teaches one student by a synthesizer's recipe.

    Args:
        student: The student to train.
        teacher: Asked anew about varied images, where the recipe varies them.
        synthesizer: Its recipe says how; it sees every batch.
        world: The processes that train together.
        compute: How the device is used.
        pool_memory: Most bytes of the replay pool, over all processes.

    Attributes:
        recipe: How the student learns.
        pool: The replay pool; this process's part of it.
        may_ask: Whether the teacher may still be asked.
        shown: Images of the last synthesizer step's student steps.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        synthesizer: Synthesizer,
        world: World,
        compute: Compute,
        pool_memory: int,
    ) -> None:
        recipe, spec = synthesizer.recipe, teacher.spec
        recipe = self.recipe = recipe.inherited() if student.spec.inherited else recipe
        layers = student.layers if recipe.layers else None
        self._teacher, self._synthesizer, self._world, self._compute = teacher, synthesizer, world, compute
        self._format = training_format(student.module, world.device)
        self.student: nn.Module = student.module.to(world.device, memory_format=self._format)  # type: ignore[call-overload]
        self.student.train()
        world.share(self.student)
        self._layers = layers.to(world.device) if layers is not None else None
        # Under a limit on queries the teacher is not asked about every student batch.
        self._compares = layers is not None and teacher.max_queries is None
        if layers is not None and not (self._compares and recipe.moves):
            layers.hold_still()  # what is known of the teacher are its answers as it stands
        self._beside = nn.Module() if layers is None else layers.learned
        world.share(self._beside)
        self._trained = compute.trained(self.student if layers is None else layers.watched, world)
        self._optimizer = make_optimizer([*self.student.parameters(), *self._beside.parameters()], recipe)
        self.ema = EmaStudent(self.student, recipe.ema) if recipe.ema else None
        self.pool = Pool(
            capacity_of(recipe, spec.input_shape, spec.num_classes, pool_memory) // world.size,
            spec.input_shape,
            spec.num_classes,
            spec.preprocess,
            world.device,
            ImageWorth(spec.task) if recipe.weighted else None,
        )
        self._rate_factor = 1.0
        self._trains = nn.ModuleList([self.student, self._beside])
        self._asking, self._told = self._recorded(self._gradients), self._recorded(self._gradients)
        self._begun = self._varied = False
        self._turns = 0
        self.may_ask = True
        self.shown = 0
        self._all = nn.ModuleList([self.student, self._beside, self.best])
        self._healthy = copy.deepcopy(self._all.state_dict())

    @property
    def best(self) -> nn.Module:
        """The student to keep: the average where there is one."""
        return self.ema.module if self.ema else self.student

    def learn(self, batch: Batch, fraction: float, is_over: Callable[[], bool] = lambda: False) -> Tensor:
        """The student steps on one synthesizer step, until time is over; returns the last loss."""
        recipe = self.recipe
        loss = batch.logits.new_zeros(())
        self.shown = 0
        if recipe.pool and not self._may_begin(fraction):
            return loss
        for turn in range(recipe.student_steps):
            if turn and is_over():
                break
            self._set_rate(fraction)
            lesson = self._lesson(batch, turn, fraction)
            self.shown += len(lesson.images)
            loss, logits = self._taught(lesson)
            self._world.average_gradients(self._beside.parameters())
            self._optimizer.step()
            self._turns += 1
            if self.ema:
                self.ema.update()
            self._synthesizer.observe(lesson.images, logits)
        return loss

    def _set_rate(self, fraction: float) -> None:
        recipe = self.recipe
        rate = recipe.student_rate * self._rate_factor * SCHEDULES[recipe.decay](fraction)
        # Adam's first steps go by signs alone: what was inherited would be shaken.
        warm = min(1.0, (self._turns + 1) / _WARM_UP) if recipe.relative else 1.0
        set_rate(self._optimizer, rate * warm)

    def _lesson(self, batch: Batch, turn: int, fraction: float) -> _Lesson:
        """What one student step learns from."""
        images, logits = self._drawn(batch, turn, fraction)
        free = self._teacher.max_queries is None and self.may_ask and self.recipe.pool > 0
        varied = free and (self.recipe.mixes or self._synthesizer.augmentation != Augmentation())
        if varied:
            images = self._synthesizer.augmentation(images)
            images = mixed(images) if self.recipe.mixes else images
        if self._moves and self._layers is not None:  # answers to moved values come with the layers alone
            images = images[: self._layers.rows(len(images))]
        return _Lesson(images.contiguous(memory_format=self._format), None if varied or self._moves else logits)

    @property
    def _moves(self) -> bool:
        """Whether student and teacher are compared on moved values."""
        return self._layers is not None and self._compares and self._layers.moves

    def _taught(self, lesson: _Lesson) -> tuple[Tensor, ...]:
        """Loss and the teacher's logits; the weights have their gradients."""
        asks, before = lesson.logits is None, self._teacher.queries
        step = self._asking if asks else self._told
        answer = step(lesson.images) if lesson.logits is None else step(lesson.images, lesson.logits)
        if isinstance(step, RecordedStep):  # counts when it is recorded, not when it is replayed
            self._teacher.queries = before + self._rows_asked(len(lesson.images), asks=asks)
        return answer

    def _recorded(self, step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        """A step as this device takes it; teachers that only answer may be anywhere."""
        here = self._teacher.spec.access == "gradient" and self._world.size == 1
        return RecordedStep(step, self._trains) if self._compute.recorded and here else step

    def _gradients(self, images: Tensor, logits: Tensor | None = None) -> tuple[Tensor, ...]:
        task = self._teacher.spec.task
        with self._compute.autocast():
            layers = self._layers.wanted(images) if self._layers is not None and self._compares else {}
            self._teacher.queries += len(layers.get(LOGITS, ()))
            logits = self._answers(images, layers) if logits is None else logits
            guess = self._trained(images)
        loss = self._distance(states(guess.float(), task), states(logits, task)) + self._layers_apart(layers)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach(), logits

    def _answers(self, images: Tensor, layers: Mapping[str, Tensor]) -> Tensor:
        """The teacher's logits; those beside its layers are the same but for a constant."""
        known = layers.get(LOGITS, images[:0])
        return known.float() if self._suffice(len(known), len(images)) else self._teacher.scores(images)

    def _suffice(self, known: int, count: int) -> bool:
        """Whether the logits beside the teacher's layers are answers to all images."""
        return known == count and (self._moves or self.recipe.loss == "kl")

    def _rows_asked(self, count: int, *, asks: bool) -> int:
        """Rows that the teacher sees in one step."""
        compared = self._layers.rows(count) if self._layers is not None and self._compares else 0
        return compared + (count if asks and not self._suffice(compared, count) else 0)

    def _drawn(self, batch: Batch, turn: int, fraction: float) -> tuple[Tensor, Tensor]:
        """Images and the teacher's logits, as they are kept."""
        recipe = self.recipe
        if not recipe.pool:
            # Fresh images: as many shares as there are, again from the first when they run out.
            images, logits = batch.images.split(recipe.student_batch), batch.logits.split(recipe.student_batch)
            return images[turn % len(images)], logits[turn % len(images)]
        newest = recipe.newest if fraction < recipe.newest_until else 0
        return self.pool.draw(recipe.student_batch, newest=newest)

    def _layers_apart(self, wanted: Mapping[str, Tensor]) -> Tensor | float:
        """What the student's layers make of the images against the teacher's."""
        if self._layers is None:
            return 0.0
        seen = self._layers.take_seen()
        if not self._compares:
            return 0.0
        with self._compute.autocast():
            return self.recipe.layers * self._layers.distance(wanted, seen)

    def _distance(self, guess: Tensor, target: Tensor) -> Tensor:
        recipe = self.recipe
        if recipe.loss == "l1":
            return F.l1_loss(guess, target)
        return distillation_loss(guess, target, recipe.temperature)

    def _may_begin(self, fraction: float) -> bool:
        """Whether there is something to learn from; on the way there, what is due once is done."""
        recipe = self.recipe
        if len(self.pool) < max(1, recipe.begin):
            return False
        if self._begun:
            return True
        if not self._varied:
            self._varied = True
            self._choose_augmentation()
        if fraction < recipe.begin_at and self.may_ask:
            return False
        self._begun = True
        if recipe.begin_at:
            self.pool.keep_newest(max(recipe.begin, len(self.pool) // 3))
            self._choose_augmentation()
        return True

    def _choose_augmentation(self) -> None:
        """By the images there are; only teachers that may be asked freely bear variations."""
        recipe = self.recipe
        if recipe.augment and self._teacher.max_queries is None:
            images, logits = self.pool.draw(_FIRST_ROWS)
            self._synthesizer.augmentation = choose_augmentation(self._teacher, images, logits)

    def bare_rate(self) -> float:
        """Images per second of the student's training step alone; 0 where there are no images."""
        if not len(self.pool):
            return 0.0
        rows = torch.arange(self.recipe.student_batch, device=self._world.device) % len(self.pool)
        images, logits = self.pool.rows(rows)
        images = images.contiguous(memory_format=self._format)
        return bare_rate(self.student, images, logits, self.recipe, self._teacher.spec.task, self._compute)

    @property
    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        values = [value for value in self._all.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([torch.isfinite(value).all() for value in values]).all())

    def keep(self) -> None:
        """Remember the weights as healthy ones."""
        if self.is_finite:
            self._healthy = copy.deepcopy(self._all.state_dict())

    def go_back(self) -> None:
        """Back to the weights that were healthy last, at a lower rate."""
        self._rate_factor *= 0.3
        self._optimizer.state.clear()
        self._all.load_state_dict(self._healthy)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the pool."""
        return {
            "student": self.student.state_dict(),
            "beside": self._beside.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self._optimizer.state_dict(),
            "rate_factor": self._rate_factor,
            "turns": self._turns,
            "begun": self._begun,
            "varied": self._varied,
            "augmentation": self._synthesizer.augmentation.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.student.load_state_dict(state["student"])
        self._beside.load_state_dict(state["beside"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rate_factor = float(state["rate_factor"])
        self._turns = int(state.get("turns", 0))
        self._begun = bool(state["begun"])
        self._varied = bool(state.get("varied", self._begun))
        self._synthesizer.augmentation = Augmentation(**state["augmentation"])
        self.keep()


def capacity_of(recipe: Recipe, input_shape: tuple[int, int, int], num_classes: int, memory: int) -> int:
    """Images that a pool holds within `memory` bytes: pixels, and logits and a weight of four bytes each."""
    each = math.prod(input_shape) + 4 * num_classes + 4
    return max(1, min(max(recipe.pool, _LEAST_POOL), memory // each))

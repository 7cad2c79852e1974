"""The student's side of the engine: what it is shown, what it is told, and its average."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.distributed import DistributedContext
from edgedafl.distill.synthesizers.base import Batch, Recipe, Synthesizer
from edgedafl.distill.training.augment import Augmentation, choose_augmentation, mixed
from edgedafl.distill.training.budget import SCHEDULES
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.cuda_graph import CudaGraphStep
from edgedafl.distill.training.ema import EmaStudent
from edgedafl.distill.training.optimizer import make_optimizer, reference_throughput, set_rate
from edgedafl.distill.training.pool import Pool
from edgedafl.distill.training.sampling import SamplingWeights
from edgedafl.distill.training.student_step import StudentStep, images_per_pass
from edgedafl.students import Student, training_format
from edgedafl.teachers.base import Teacher

__all__ = ["StudentTrainer", "capacity_of"]

# Pictures, calibration and probes still want images where the recipe itself keeps none.
_LEAST_POOL = 4000
_FIRST_ROWS = 400
_WARM_UP = 60  # student steps


@dataclass(frozen=True)
class _TrainingBatch:
    """Images and the teacher's logits; without them the teacher has to be asked."""

    images: Tensor
    logits: Tensor | None


class StudentTrainer:
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
        world: DistributedContext,
        compute: Compute,
        pool_memory: int,
    ) -> None:
        recipe, spec = synthesizer.recipe, teacher.spec
        recipe = self.recipe = recipe.inherited() if student.spec.inherited else recipe
        layers = None if student.layers is None or not recipe.layers else student.layers.to(world.device)
        self._teacher, self._synthesizer, self._world, self._compute = teacher, synthesizer, world, compute
        self._format = training_format(student.module, world.device)
        self.student: nn.Module = student.module.to(world.device, memory_format=self._format)  # type: ignore[call-overload]
        self.student.train()
        world.broadcast_parameters(self.student)
        if layers is not None and not (teacher.max_queries is None and recipe.moves):
            layers.hold_still()  # what is known of the teacher are its answers as it stands
        self._projections = nn.Module() if layers is None else layers.learned
        world.broadcast_parameters(self._projections)
        self._optimizer = make_optimizer([*self.student.parameters(), *self._projections.parameters()], recipe)
        self._step = StudentStep(
            teacher,
            compute.trained(self.student if layers is None else layers.extractor, world),
            layers,
            recipe,
            compute,
            lambda: self._optimizer.zero_grad(set_to_none=True),
            self._at_once(features=layers is not None),
        )
        self.ema = EmaStudent(self.student, recipe.ema) if recipe.ema else None
        self.pool = Pool(
            capacity_of(recipe, spec.input_shape, spec.num_classes, pool_memory) // world.size,
            spec.input_shape,
            spec.num_classes,
            spec.preprocess,
            world.device,
            SamplingWeights(spec.task) if recipe.weighted else None,
        )
        self._rate_factor = 1.0
        self._trainable = nn.ModuleList([self.student, self._projections])
        self._step_with_teacher, self._step_with_logits = self._recorded(self._step), self._recorded(self._step)
        self._started = self._augmentation_chosen = False
        self._steps_done = 0
        self.may_ask = True
        self.shown = 0
        self._all = nn.ModuleList([self.student, self._projections, self.best])
        self._healthy = copy.deepcopy(self._all.state_dict())

    def _at_once(self, *, features: bool) -> int:
        """Images of one pass through the student."""
        shape, device = self._teacher.spec.input_shape, self._world.device
        return images_per_pass(self.student, shape, self.recipe.student_batch, device, features=features)

    @property
    def best(self) -> nn.Module:
        """The student to keep: the average where there is one."""
        return self.ema.module if self.ema else self.student

    def learn(
        self,
        batch: Batch,
        fraction: float,
        is_over: Callable[[], bool] = lambda: False,
        on_turn: Callable[[int, Tensor], None] = lambda images, loss: None,
    ) -> Tensor:
        """The student steps on one synthesizer step, until time is over.

        Args:
            batch: What the synthesizer has made.
            fraction: Share of the budget that is used.
            is_over: Whether the time is used up.
            on_turn: Called after each of them with its images and its loss.

        Returns:
            The last loss.
        """
        recipe = self.recipe
        loss = batch.logits.new_zeros(())
        self.shown = 0
        if recipe.pool:
            self._prepare_augmentation()
            if not self._ready_to_train(fraction):
                return loss
            if not self._started:
                self._start()
        for turn in range(recipe.student_steps):
            if turn and is_over():
                break
            self._set_rate(fraction)
            drawn = self._next_batch(batch, turn, fraction)
            self.shown += len(drawn.images)
            loss, logits = self._train_step(drawn)
            self._world.average_gradients(self._projections.parameters())
            self._optimizer.step()
            self._steps_done += 1
            if self.ema:
                self.ema.update()
            self._synthesizer.observe(drawn.images, logits)
            on_turn(len(drawn.images), loss)
        return loss

    def _set_rate(self, fraction: float) -> None:
        recipe = self.recipe
        rate = recipe.student_rate * self._rate_factor * SCHEDULES[recipe.decay](fraction)
        # Adam's first steps go by signs alone: what was inherited would be shaken.
        warm = min(1.0, (self._steps_done + 1) / _WARM_UP) if recipe.relative else 1.0
        set_rate(self._optimizer, rate * warm)

    def _next_batch(self, batch: Batch, turn: int, fraction: float) -> _TrainingBatch:
        """What one student step learns from."""
        images, logits = self._drawn(batch, turn, fraction)
        free = self._teacher.max_queries is None and self.may_ask and self.recipe.pool > 0
        varied = free and (self.recipe.mixes or self._synthesizer.augmentation != Augmentation())
        if varied:
            images = self._synthesizer.augmentation(images)
            images = mixed(images) if self.recipe.mixes else images
        if self._step.moves:  # answers to moved values come with the layers alone
            images = images[: self._step.rows_compared(len(images))]
        images = images.contiguous(memory_format=self._format)
        return _TrainingBatch(images, None if varied or self._step.moves else logits)

    def _train_step(self, drawn: _TrainingBatch) -> tuple[Tensor, ...]:
        """Loss and the teacher's logits; the weights have their gradients."""
        asks, before = drawn.logits is None, self._teacher.queries
        step = self._step_with_teacher if asks else self._step_with_logits
        answer = step(drawn.images) if drawn.logits is None else step(drawn.images, drawn.logits)
        if isinstance(step, CudaGraphStep):  # counts when it is recorded, not when it is replayed
            self._teacher.queries = before + self._step.rows_asked(len(drawn.images), asks=asks)
        return answer

    def _recorded(self, step: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        """A step as this device takes it; teachers that only answer may be anywhere."""
        here = self._teacher.spec.access == "gradient" and self._world.size == 1
        return CudaGraphStep(step, self._trainable) if self._compute.recorded and here else step

    def _drawn(self, batch: Batch, turn: int, fraction: float) -> tuple[Tensor, Tensor]:
        """Images and the teacher's logits, as they are kept."""
        recipe = self.recipe
        if not recipe.pool:
            # Fresh images: as many shares as there are, again from the first when they run out.
            images, logits = batch.images.split(recipe.student_batch), batch.logits.split(recipe.student_batch)
            return images[turn % len(images)], logits[turn % len(images)]
        newest = recipe.newest if fraction < recipe.newest_until else 0
        return self.pool.draw(recipe.student_batch, newest=newest)

    @property
    def _has_images(self) -> bool:
        return len(self.pool) >= max(1, self.recipe.begin)

    def _ready_to_train(self, fraction: float) -> bool:
        """Whether the pool holds enough images, and the time has come that the recipe names."""
        return self._has_images and (self._started or fraction >= self.recipe.begin_at or not self.may_ask)

    def _prepare_augmentation(self) -> None:
        """Choose variations once by the first images."""
        if not self._augmentation_chosen and self._has_images:
            self._augmentation_chosen = True
            self._choose_augmentation()

    def _start(self) -> None:
        """Drop the oldest images where the recipe waits for better ones; done once."""
        self._started = True
        if self.recipe.begin_at:
            self.pool.keep_newest(max(self.recipe.begin, len(self.pool) // 3))
            self._choose_augmentation()

    def _choose_augmentation(self) -> None:
        """By the images there are; only teachers that may be asked freely bear variations."""
        recipe = self.recipe
        if recipe.augment and self._teacher.max_queries is None:
            images, logits = self.pool.draw(_FIRST_ROWS)
            self._synthesizer.augmentation = choose_augmentation(self._teacher, images, logits)

    def reference_throughput(self) -> float:
        """Images per second of the student's training step alone; 0 where there are no images."""
        if not len(self.pool):
            return 0.0
        count = self._at_once(features=False)
        rows = torch.arange(count, device=self._world.device) % len(self.pool)
        images, logits = self.pool.rows(rows)
        images = images.contiguous(memory_format=self._format)
        return reference_throughput(self.student, images, logits, self.recipe, self._teacher.spec.task, self._compute)

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
            "beside": self._projections.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self._optimizer.state_dict(),
            "rate_factor": self._rate_factor,
            "turns": self._steps_done,
            "begun": self._started,
            "varied": self._augmentation_chosen,
            "augmentation": self._synthesizer.augmentation.to_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.student.load_state_dict(state["student"])
        self._projections.load_state_dict(state["beside"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rate_factor = float(state["rate_factor"])
        self._steps_done = int(state.get("turns", 0))
        self._started = bool(state["begun"])
        self._augmentation_chosen = bool(state.get("varied", self._started))
        self._synthesizer.augmentation = Augmentation(**state["augmentation"])
        self.keep()


def capacity_of(recipe: Recipe, input_shape: tuple[int, int, int], num_classes: int, memory: int) -> int:
    """Images that a pool holds within `memory` bytes: pixels, and logits and a weight of four bytes each.

    Examples:
        >>> recipe = Recipe(student_steps=1, student_batch=8, student_rate=1e-2, pool=60_000)
        >>> capacity_of(recipe, (3, 32, 32), 10, 2**30), capacity_of(recipe, (3, 224, 224), 10, 2**30)
        (60000, 7131)
    """
    each = math.prod(input_shape) + 4 * num_classes + 4
    return max(1, min(max(recipe.pool, _LEAST_POOL), memory // each))

"""The one loop that alternates synthesizer and student steps. No algorithm has a loop of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.budget import Budget, Clock, cosine
from edgedafl.distill.checkpoint import load_checkpoint, save_checkpoint
from edgedafl.distill.ema import EmaStudent
from edgedafl.distill.health import HealthMonitor, Symptom
from edgedafl.distill.losses import distillation_loss
from edgedafl.distill.pool import Pool
from edgedafl.distill.priors import noise_fields
from edgedafl.distill.probes import Agreement, ProbeSets
from edgedafl.distill.reporter import Progress, Reporter, RunState, Upkeep
from edgedafl.distill.synthesizer import Batch, Synthesizer
from edgedafl.distill.worth import ImageWorth
from edgedafl.errors import (
    DistillationError,
    InterruptedRunError,
    MeasurementError,
    UnsupportedModelError,
    UsageError,
)
from edgedafl.students.base import Student
from edgedafl.tasks import states
from edgedafl.teachers.base import QueryBudgetError, Teacher

__all__ = ["Distillation", "Distiller"]

_log = logging.getLogger(__name__)

_PROBE_ROWS = 1000
# With the default synthesizer's eight lives these lie right before its adversarial phases: probes
# show how the student does on clear images, not on those made to fool it.
_PROBE_MOMENTS = (0.28, 0.53, 0.78, 0.905)
# Under a query limit a probe set takes at most 1/150 of it: five sets stay below the 5 % that
# black-box synthesizers leave to them.
_PROBE_SHARE = 150
_MOST_RECOVERIES = 3
# Pictures, calibration and probes still want images where the recipe itself keeps none.
_LEAST_POOL = 4000
# Large images: keep fewer rather than fill the machine (3x224x224 takes 150 kB each).
_POOL_BYTES = 2 << 30


@dataclass(frozen=True)
class Distillation:
    """The result.

    Attributes:
        student: The averaged student in evaluation mode.
        agreement: Its synthetic agreement on all probe sets.
        pool: The replay pool, for calibration and pictures.
        probes: The probe sets.
        steps: Synthesizer steps taken.
        seconds: Time spent.
        queries: Rows the teacher answered.
        recoveries: What went wrong on the way and was recovered.
    """

    student: nn.Module
    agreement: Agreement
    pool: Pool
    probes: ProbeSets
    steps: int
    seconds: float
    queries: int
    recoveries: tuple[str, ...]


class Distiller:
    """Teaches one student.

    Args:
        teacher: The frozen teacher.
        student: The student to train.
        synthesizer: Makes the images.
        budget: When to end.
        device: Where to train.
        checkpoint: File for the state; None keeps none.
        observe: Called with progress, about once per second.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        synthesizer: Synthesizer,
        *,
        budget: Budget,
        device: torch.device | str = "cpu",
        checkpoint: Path | None = None,
        observe: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.teacher = teacher.to(device)
        self.student = student.module.to(device).train()
        self.synthesizer = synthesizer
        self.budget = budget
        self._observe = observe
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        recipe = synthesizer.recipe
        spec = teacher.spec
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=recipe.learning_rate)
        self.ema = EmaStudent(self.student, recipe.ema) if recipe.ema else None
        capacity = max(min(recipe.pool, _POOL_BYTES // math.prod(spec.input_shape)), _LEAST_POOL)
        worth = ImageWorth(spec.task) if recipe.weighted else None
        self.pool = Pool(capacity, spec.input_shape, spec.num_classes, spec.preprocess, device, worth)
        self.probes = ProbeSets(spec.preprocess, spec.task)
        limit = teacher.max_queries
        self._probe_rows = _PROBE_ROWS if limit is None else min(_PROBE_ROWS, limit // _PROBE_SHARE)
        self._health = HealthMonitor(spec.task)
        self._recoveries: list[str] = []
        self._rate_factor = 1.0
        self._exhausted = False
        self._step = 0
        self._elapsed = 0.0

    @property
    def best(self) -> nn.Module:
        """The student to keep: the average where there is one."""
        return self.ema.module if self.ema else self.student

    def run(self, *, resume: bool = False) -> Distillation:
        """Distill until the budget ends.

        Args:
            resume: Go on from the checkpoint.

        Raises:
            DistillationError: If training collapsed and could not be recovered.
            InterruptedRunError: On Ctrl-C, after the state was saved.
        """
        if resume and self._checkpoint is not None:
            self._restore(load_checkpoint(self._checkpoint))
        clock = Clock(self.budget, self._elapsed)
        if not self.probes.names:
            self._add_prior_probe()
        reporter = Reporter(clock, self._observe, Upkeep(self.check_health, self.agreement, self.save))
        try:
            while (fraction := clock.fraction(self._step)) < 1:
                batch = self._synthesize(fraction)
                loss = self._teach(batch, fraction)
                self._step += 1
                self._add_due_probes(fraction)
                self._elapsed = clock.elapsed
                reporter.report(batch.losses, loss, self._state(fraction))
        except KeyboardInterrupt as interrupt:
            self._elapsed = clock.elapsed
            self.save()
            raise InterruptedRunError(
                f"Interrupted after {self._step} steps; the state is saved.",
                "Go on with the same command and --resume.",
            ) from interrupt
        except (MeasurementError, UnsupportedModelError, UsageError):
            # The teacher failed (a server went away, an answer was NaN): keep what was learned.
            self._elapsed = clock.elapsed
            self.save()
            raise
        self._elapsed = clock.elapsed
        return self._finish()

    def _state(self, fraction: float) -> RunState:
        recipe = self.synthesizer.recipe
        images = recipe.student_steps * recipe.student_batch
        return RunState(self._step, fraction, self.teacher.queries, images)

    def _synthesize(self, fraction: float) -> Batch:
        """Fresh images into the pool; none once the query budget is used up."""
        nothing = Batch.nothing(self.teacher.spec, self._device)
        if self._exhausted:
            return nothing
        try:
            batch = self.synthesizer.step(self.teacher, self.student, fraction)
        except QueryBudgetError:
            if not len(self.pool):
                raise
            self._exhausted = True
            _log.warning("All %s queries are used; the student goes on with the pool.", self.teacher.max_queries)
            return nothing
        if len(batch.images):
            self.pool.add(batch.images, batch.logits)
        self._health.watch(batch.logits if batch.generated is None else batch.generated)
        return batch

    def _finish(self) -> Distillation:
        self.save()
        if len(self.probes.names) == 1 and self._step:
            self._add_generated_probe(1.0)
        return Distillation(
            student=self.best.eval(),
            agreement=self.agreement(),
            pool=self.pool,
            probes=self.probes,
            steps=self._step,
            seconds=self._elapsed,
            queries=self.teacher.queries,
            recoveries=tuple(self._recoveries),
        )

    def _teach(self, batch: Batch, fraction: float) -> Tensor:
        """The student's steps on one synthesizer step; returns the last loss."""
        recipe, task = self.synthesizer.recipe, self.teacher.spec.task
        rate = recipe.learning_rate * self._rate_factor * (cosine(fraction) if recipe.decay else 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = batch.logits.new_zeros(())
        if recipe.pool and not len(self.pool):
            return loss
        for _ in range(recipe.student_steps):
            images, logits = batch.images, batch.logits
            if recipe.pool:
                newest = recipe.newest if fraction < recipe.newest_until else 0
                images, logits = self.pool.draw(recipe.student_batch, newest=newest)
            guess = states(self.student(images), task)
            loss = distillation_loss(guess, states(logits, task), recipe.temperature)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            if self.ema:
                self.ema.update()
            self.synthesizer.observe(images, logits)
        return loss.detach()

    def agreement(self) -> Agreement:
        """Synthetic agreement of the student to keep."""
        module = self.best
        was_training = module.training
        module.eval()
        with torch.no_grad():
            found = self.probes.agreement(module)
        module.train(was_training)
        return found

    def _add_prior_probe(self) -> None:
        seed = torch.Generator().manual_seed(20190402)
        spec = self.teacher.spec
        unit = noise_fields(self._probe_rows, spec.input_shape, seed).to(self._device)
        self.probes.add("priors", spec.preprocess.to_model(unit), self.teacher.scores)

    def _add_due_probes(self, fraction: float) -> None:
        made = len(self.probes.names) - 1
        if made < len(_PROBE_MOMENTS) and fraction >= _PROBE_MOMENTS[made]:
            self._add_generated_probe(_PROBE_MOMENTS[made])

    def _add_generated_probe(self, moment: float) -> None:
        if self.teacher.remaining is not None and self.teacher.remaining < self._probe_rows:
            return
        images = self.synthesizer.sample(self._probe_rows)
        self.probes.add(f"generated at {moment:.0%}", images, self.teacher.scores)

    def check_health(self, loss: float) -> None:
        """Recover from NaN and collapse, or give up with advice."""
        symptom = self._health.check(loss)
        if symptom is not None:
            self._recover(symptom)

    def _recover(self, symptom: Symptom) -> None:
        if len(self._recoveries) >= _MOST_RECOVERIES:
            raise DistillationError(
                f"Distillation failed {_MOST_RECOVERIES + 1} times: {symptom.text}.",
                "The usual cause is a wrong input range: check --input-mean/--input-std or --input-range "
                "with `edgedafl inspect`; then try another --seed.",
            )
        self._recoveries.append(f"step {self._step}: {symptom.text}; restarted the generator")
        _log.warning("Step %d: %s; restarting the generator.", self._step, symptom.text)
        self.synthesizer.restart()
        self._health.forget()
        if symptom.kind == "nan":
            self._reset_student()

    def _reset_student(self) -> None:
        """Back to the last average that is finite, or to zeroed non-finite weights."""
        self._rate_factor *= 0.3
        self.optimizer.state.clear()
        source = self.best.state_dict()
        clean = {name: torch.nan_to_num(value) for name, value in source.items()}
        self.student.load_state_dict(clean)
        if self.ema:
            self.ema.module.load_state_dict(clean)
        self.pool.clear()

    def save(self) -> None:
        """Write the checkpoint, if there is one."""
        if self._checkpoint is None:
            return
        state = {
            "step": self._step,
            "elapsed": self._elapsed,
            "student": self.student.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "synthesizer": self.synthesizer.state_dict(),
            "pool": self.pool.state_dict(),
            "probes": self.probes.state_dict(),
            "recoveries": list(self._recoveries),
            "rate_factor": self._rate_factor,
            "queries": self.teacher.queries,
            "teacher": self.teacher.state_dict(),
            "rng": torch.get_rng_state(),
        }
        save_checkpoint(self._checkpoint, state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._step, self._elapsed = int(state["step"]), float(state["elapsed"])
        self.student.load_state_dict(state["student"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.synthesizer.load_state_dict(state["synthesizer"])
        self.pool.load_state_dict(state["pool"])
        self.probes.load_state_dict(state["probes"])
        self._recoveries = list(state["recoveries"])
        self._rate_factor = float(state["rate_factor"])
        # What this process has asked about before it resumed was asked about all the same.
        self.teacher.queries += int(state["queries"])
        self.teacher.load_state_dict(state["teacher"])
        torch.set_rng_state(state["rng"])

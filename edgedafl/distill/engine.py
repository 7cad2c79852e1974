"""The one loop that alternates synthesizer and student steps. No algorithm has a loop of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.callbacks import OnProgress, silent
from edgedafl.distill.distributed import DistributedContext
from edgedafl.distill.monitoring.probes import ProbePlan, ProbeSets
from edgedafl.distill.monitoring.recovery import Recovery
from edgedafl.distill.monitoring.reporter import Reporter, RunState
from edgedafl.distill.outcome import Distillation
from edgedafl.distill.synthesizers.base import Batch, Synthesizer, evaluating
from edgedafl.distill.training.budget import Budget, Clock
from edgedafl.distill.training.checkpoint import load_checkpoint, merged_pools, pool_part, save_checkpoint
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.errors import InterruptedRunError, MeasurementError, UnsupportedModelError, UsageError
from edgedafl.runs import AgreementReport
from edgedafl.students.base import Student
from edgedafl.teachers.base import QueryBudgetError, Teacher

__all__ = ["POOL_MEMORY", "Distiller"]

_log = logging.getLogger(__name__)

POOL_MEMORY = 2 << 30
"""Bytes of the replay pool where nothing else is asked for."""

# By steps and not by time: a resumed run must judge itself at the same steps.
_HEALTH_EVERY = 10
_SILENT_SECONDS = 5.0


class Distiller:
    """Teaches one student.

    Args:
        teacher: The frozen teacher.
        student: The student to train.
        synthesizer: Makes the images.
        budget: When to end.
        world: The processes that train together, and this one's device.
        compute: How the device is used; its defaults when None.
        pool_memory: Most bytes of the replay pool.
        checkpoint: File for the state; None keeps none.
        on_progress: Called with progress, about once per second, in the first process.
        fidelity: Predicts the fidelity of a student, given as a function of images on the CPU.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        synthesizer: Synthesizer,
        *,
        budget: Budget,
        world: DistributedContext | None = None,
        compute: Compute | None = None,
        pool_memory: int = POOL_MEMORY,
        checkpoint: Path | None = None,
        on_progress: OnProgress = silent,
        fidelity: Callable[[Callable[[Tensor], Tensor]], float | None] | None = None,
    ) -> None:
        self._predict_fidelity = fidelity
        self.world = world or DistributedContext()
        self.budget = budget
        self.teacher = teacher.to(self.world.device)
        self.synthesizer = synthesizer
        synthesizer.join(self.world)
        self.compute = compute or Compute.of(self.world.device, teacher.spec.macs)
        self.trainer = StudentTrainer(student, teacher, synthesizer, self.world, self.compute, pool_memory)
        spec = teacher.spec
        self.probes = ProbeSets(spec.preprocess, spec.task)
        self._plan = ProbePlan(self.probes, teacher, synthesizer, self.world.device)
        self._on_progress = on_progress
        self._checkpoint = checkpoint
        self.recovery = Recovery(teacher, self.trainer, synthesizer, self.world)
        self._step = 0
        self._shown = 0  # images that the student has learned from
        self._elapsed = 0.0
        self._longest = 0.0  # seconds of a synthesizer step

    @property
    def best(self) -> nn.Module:
        """The student to keep."""
        return self.trainer.best

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
        self._plan.begin()
        reporter = Reporter(clock, self._on_progress, self.agreement, self._fidelity)
        try:
            self._loop(clock, reporter)
        except KeyboardInterrupt as interrupt:
            self._save_own(clock)
            raise InterruptedRunError(
                f"Interrupted after {self._step} steps; the state is saved.",
                "Go on with the same command and --resume.",
            ) from interrupt
        except (MeasurementError, UnsupportedModelError, UsageError):
            # The teacher failed (a server went away, an answer was NaN): keep what was learned.
            self._save_own(clock)
            raise
        self._elapsed = clock.elapsed
        return self._finish()

    def _loop(self, clock: Clock, reporter: Reporter) -> None:
        while True:
            overruns = clock.overruns(self._longest)
            fraction, must_save, late = self.world.broadcast(
                clock.fraction(self._step), float(reporter.must_save), float(overruns)
            )
            if must_save:
                self._elapsed = clock.elapsed
                self.save()
                reporter.saved(self._elapsed)
            if fraction >= 1 or (late and not self.synthesizer.recipe.pool):
                return
            started = clock.elapsed
            # Where the next images would come too late, the student uses the rest of the time.
            batch = self._nothing if late else self._synthesize(fraction)
            self._longest = max(self._longest, clock.elapsed - started)
            loss = self.trainer.learn(
                batch, fraction, lambda: self.world.size == 1 and clock.is_over, self._watch(clock, reporter, batch)
            )
            self._step += 1
            self._shown += self.trainer.shown * self.world.size
            self._plan.add_due(fraction)
            if self._step % _HEALTH_EVERY == 0:
                self.recovery.check(self._step, float(loss))
            if self.world.is_main_process:
                reporter.report(batch.losses, loss, self._state(clock.fraction(self._step)))

    def _watch(self, clock: Clock, reporter: Reporter, batch: Batch) -> Callable[[int, Tensor], None]:
        """Reports between student steps where those of one synthesizer step take long: minutes for large images."""
        started = clock.elapsed

        def on_turn(images: int, loss: Tensor) -> None:
            reporter.count(images * self.world.size)
            if self.world.is_main_process and clock.elapsed - started > _SILENT_SECONDS:
                reporter.report(batch.losses, loss, self._state(clock.fraction(self._step)))

        return on_turn

    def _state(self, fraction: float) -> RunState:
        return RunState(self._step, fraction, self.teacher.queries)

    @property
    def _nothing(self) -> Batch:
        return Batch.nothing(self.teacher.spec, self.world.device)

    def _synthesize(self, fraction: float) -> Batch:
        """Fresh images into the pool; none once the query budget is used up."""
        if not self.trainer.may_ask:
            return self._nothing
        try:
            with self.compute.autocast():
                batch = self._made(fraction)
        except QueryBudgetError:
            if not len(self.trainer.pool):
                raise
            self.trainer.may_ask = False
            _log.warning("All %s queries are used; the student goes on with the pool.", self.teacher.max_queries)
            return self._nothing
        if len(batch.images):
            self.trainer.pool.add(batch.images, batch.logits)
        self.recovery.watch(batch.logits if batch.generated is None else batch.generated, batch.logits)
        return batch

    def _made(self, fraction: float) -> Batch:
        """Images of the synthesizer, or procedural ones alone once its generator was given up."""
        batch = self.synthesizer.procedural(self.teacher) if self.recovery.gave_up else None
        return batch or self.synthesizer.step(self.teacher, self.trainer.student, fraction)

    def _finish(self) -> Distillation:
        self.recovery.check_end(self._step)
        self.save()
        if self._step:
            self._plan.end()
        return Distillation(
            student=self.best.eval(),
            agreement=self.agreement(),
            pool=self.trainer.pool,
            probes=self.probes,
            steps=self._step,
            seconds=self._elapsed,
            queries=self.teacher.queries,
            recoveries=tuple(self.recovery.notes),
            images_per_second=self._shown / max(self._elapsed, 1e-9),
            bare_images_per_second=self.trainer.reference_throughput() * self.world.size,
        )

    def agreement(self) -> AgreementReport:
        """Synthetic agreement of the student to keep."""
        with torch.no_grad(), evaluating(self.best) as module, self.compute.autocast():
            return self.probes.agreement(module)

    def _fidelity(self) -> float | None:
        if self._predict_fidelity is None:
            return None
        with torch.no_grad(), evaluating(self.best) as module:
            device = self.world.device

            def scores_of(images: Tensor) -> Tensor:
                scores: Tensor = module(images.to(device))
                return scores.float().cpu()

            return self._predict_fidelity(scores_of)

    def save(self) -> None:
        """Write the checkpoint, if there is one; all processes take part, the first one writes."""
        if self._checkpoint is None:
            return
        pools = self.world.gather(self.trainer.pool.state_dict())
        if self.world.is_main_process:
            save_checkpoint(self._checkpoint, {**self._own_state(), "pool": merged_pools(pools)})

    def _save_own(self, clock: Clock) -> None:
        """After a failure the other processes may be gone: alone, or not at all."""
        self._elapsed = clock.elapsed
        if self.world.size == 1:
            self.save()

    def _own_state(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "shown": self._shown,
            "elapsed": self._elapsed,
            "processes": self.world.size,
            "learner": self.trainer.state_dict(),
            "synthesizer": self.synthesizer.state_dict(),
            "probes": self.probes.state_dict(),
            **self.recovery.state_dict(),
            "queries": self.teacher.queries,
            "teacher": self.teacher.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.world.device) if self.world.device.type == "cuda" else None,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._step, self._elapsed, self._shown = int(state["step"]), float(state["elapsed"]), int(state["shown"])
        self.trainer.load_state_dict(state["learner"])
        self.trainer.pool.load_state_dict(pool_part(state["pool"], self.world))
        self.synthesizer.load_state_dict(state["synthesizer"])
        self.probes.load_state_dict(state["probes"])
        self.recovery.load_state_dict(state)
        # What this process has asked about before it resumed was asked about all the same.
        self.teacher.queries += int(state["queries"])
        self.teacher.load_state_dict(state["teacher"])
        if self.world.size == state["processes"] == 1:
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"] is not None and self.world.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], self.world.device)
        else:
            # The processes' own random numbers are not kept: new ones, different in each.
            torch.manual_seed(1_000_003 * self._step + self.world.rank)

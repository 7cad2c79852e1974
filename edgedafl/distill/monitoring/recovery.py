"""What is done about a distillation that is not healthy: go back, begin anew, give up the generator, or end."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from edgedafl.distill.distributed import DistributedContext
from edgedafl.distill.monitoring.health import KINDS, HealthMonitor, Symptom
from edgedafl.distill.synthesizers.base import Synthesizer
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.errors import DistillationError
from edgedafl.teachers.base import Teacher

__all__ = ["Recovery"]

_log = logging.getLogger(__name__)

_MOST = 3


class Recovery:
    """Watches one run, and mends it.

    Args:
        teacher: Its teacher.
        trainer: Its student's trainer.
        synthesizer: Makes its images.
        world: The processes that train together.

    Attributes:
        notes: What was seen and done, one sentence each.
        gave_up: Whether the generator was given up: procedural images alone go on.
    """

    def __init__(
        self, teacher: Teacher, trainer: StudentTrainer, synthesizer: Synthesizer, world: DistributedContext
    ) -> None:
        self._teacher, self._trainer, self._synthesizer, self._world = teacher, trainer, synthesizer, world
        self._health = HealthMonitor(teacher.spec.task, labels_only=teacher.spec.access == "labels")
        self.notes: list[str] = []
        self.gave_up = False

    def watch(self, generated: Tensor, answers: Tensor) -> None:
        """Take in the newest images' answers: of the generator's, and of all of a batch."""
        self._health.watch(generated, answers)

    def check(self, step: int, loss: float) -> None:
        """Recover from NaN and collapse.

        Args:
            step: Synthesizer step that was made.
            loss: The student's.

        Raises:
            DistillationError: If it was tried often enough.
        """
        symptom = self._health.check(loss)
        place = int(self._world.broadcast(float(KINDS.index(symptom.kind) if symptom else -1))[0])
        if place < 0:
            self._trainer.keep()
            return
        # All processes have to do the same: some of it waits for the others.
        if symptom is None or symptom.kind != KINDS[place]:
            symptom = Symptom(KINDS[place], "the first process saw it")
        self._mend(step, symptom)

    def check_end(self, step: int) -> None:
        """Go back to healthy weights where those at the end are not finite."""
        if not self._trainer.is_finite:
            self._note(step, "the student's weights are not finite at the end", "went back to healthy weights")
            self._trainer.go_back()

    def _mend(self, step: int, symptom: Symptom) -> None:
        if len(self.notes) >= _MOST:
            if not symptom.is_fatal or self.gave_up:
                return  # said often enough; the rest of the pool is still worth learning from
            if symptom.kind == "collapse" and self._synthesizer.procedural(self._teacher) is not None:
                self.gave_up = True
                self._note(step, symptom.text, "goes on without the generator")
                return
            raise DistillationError(
                f"Distillation failed {_MOST + 1} times: {symptom.text}.",
                "The usual cause is a wrong input range: check --input-mean/--input-std or --input-range "
                "with `edgedafl inspect`; then try another --seed.",
            )
        if symptom.kind == "divergence":
            self._note(step, symptom.text, "went back to healthy weights")
            self._trainer.go_back()
            return
        self._note(step, symptom.text, "restarted the generator")
        self._synthesizer.restart()
        self._health.forget()
        if symptom.kind == "nan":
            self._trainer.go_back()
            self._trainer.pool.clear()

    def _note(self, step: int, symptom: str, remedy: str) -> None:
        self.notes.append(f"step {step}: {symptom}; {remedy}")
        _log.warning("Step %d: %s; %s.", step, symptom, remedy)

    def state_dict(self) -> dict[str, Any]:
        """What was watched and done."""
        return {"health": self._health.state_dict(), "recoveries": list(self.notes), "gave_up": self.gave_up}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._health.load_state_dict(state["health"])
        self.notes = list(state["recoveries"])
        self.gave_up = bool(state.get("gave_up", False))

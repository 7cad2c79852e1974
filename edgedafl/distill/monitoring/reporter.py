"""What a run says of itself, and when: progress, probes, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from edgedafl.callbacks import OnProgress
from edgedafl.distill.training.budget import Clock
from edgedafl.runs import AgreementReport, Progress

__all__ = ["Reporter", "RunState"]

_REPORT_SECONDS = 1.0
_PROBE_SECONDS = 6.0
# Asking the probes and writing checkpoints take no more than these shares of the time.
_PROBE_SHARE, _SAVE_SHARE = 0.02, 0.03
_SAVE_SECONDS = 30.0


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Synthesizer steps so far.
        fraction: Share of the budget used, in [0, 1].
        queries: Rows the teacher has answered.
    """

    step: int
    fraction: float
    queries: int


class Reporter:
    """Decides when to read losses (which waits for the device), ask the probes, and save."""

    def __init__(
        self,
        clock: Clock,
        on_progress: OnProgress,
        agreement: Callable[[], AgreementReport],
        fidelity: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._fidelity = fidelity
        self._on_progress = on_progress
        self._agreement = agreement
        self._reported = clock.elapsed
        self._save_due = clock.elapsed + _SAVE_SECONDS
        self._probe_due = clock.elapsed + _PROBE_SECONDS
        self._images = 0

    @property
    def must_save(self) -> bool:
        """Whether a checkpoint is due."""
        return self._clock.elapsed >= self._save_due

    def saved(self, began: float) -> None:
        """Take note of a checkpoint and of when its writing began."""
        cost = self._clock.elapsed - began
        self._save_due = began + max(_SAVE_SECONDS, cost / _SAVE_SHARE)

    def count(self, images: int) -> None:
        """Take note of images that the student has learned from."""
        self._images += images

    def report(self, losses: dict[str, Tensor], loss: Tensor, state: RunState) -> None:
        """About once per second say where the run stands."""
        now = self._clock.elapsed
        if now - self._reported < _REPORT_SECONDS:
            return
        agreement, fidelity = self._asked() if now >= self._probe_due else (None, None)
        rate = self._images / max(now - self._reported, 1e-9)
        terms = {name: float(term) for name, term in losses.items()} | {"distillation": float(loss)}
        self._on_progress(Progress(state.step, state.fraction, now, terms, agreement, rate, state.queries, fidelity))
        self._reported, self._images = now, 0

    def _asked(self) -> tuple[AgreementReport, float | None]:
        """What the probes say; the same is asked again after the last step, which takes as long."""
        started = self._clock.elapsed
        agreement = self._agreement()
        self._clock.leave(self._clock.elapsed - started)
        fidelity = self._fidelity()
        cost = self._clock.elapsed - started
        self._probe_due = started + max(_PROBE_SECONDS, cost / _PROBE_SHARE)
        return agreement, fidelity

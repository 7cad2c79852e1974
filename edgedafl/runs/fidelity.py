"""How faithful a student is: one figure with its band, the candidates of a run, and the verdict on the artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Band", "Candidate", "FidelityVerdict"]


@dataclass(frozen=True)
class Band:
    """A fidelity with its 90 % band, all in [0, 1].

    Attributes:
        fidelity: The figure.
        low: Lower end.
        high: Upper end.
        cautious: Reached in 85 % of the cases: by it candidates are chosen.
        kind: `predicted`, `measured on your pictures`, or `measured on labelled images`.
        images: On how many images it was measured; 0 for predictions.
    """

    fidelity: float
    low: float
    high: float
    cautious: float
    kind: str = "predicted"
    images: int = 0

    def mapped(self, change: Callable[[float], float]) -> Band:
        """With the figure and all ends changed alike."""
        return replace(
            self,
            fidelity=change(self.fidelity),
            low=change(self.low),
            high=change(self.high),
            cautious=change(self.cautious),
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON form."""
        return dict(vars(self))


@dataclass(frozen=True)
class Candidate:
    """A form of the teacher that a run considered.

    Attributes:
        name: Of the student, as `--student` takes it.
        share: Of the teacher's weights.
        input_shape: What it takes, (C, H, W).
        parameters: Count of weights.
        macs: Multiply-accumulates per image.
        size: Bytes of the artifact, estimated.
        latency: Seconds per image on the target, estimated; None where it was not asked for.
        untrained: Fidelity of the artifact before any training; None where it was not looked at.
        expected: The same after what training the time allows.
        memory: Bytes of working memory, estimated; None where it was not asked for.
        weight_bits: Mean of a weight in the artifact's file; 8 unless size asks for fewer, see `graph.packed`.
    """

    name: str
    share: float
    input_shape: tuple[int, int, int]
    parameters: int
    macs: int
    size: int
    latency: float | None
    untrained: Band | None = None
    expected: Band | None = None
    memory: int | None = None
    weight_bits: float = 8.0

    @property
    def title(self) -> str:
        """Its name, with the bits of its weights where they are fewer than eight."""
        return self.name if self.weight_bits == 8 else f"{self.name}, {self.weight_bits:.1f} bits"

    def is_of(self, student: str, weight_bits: float) -> bool:
        """Whether it is the candidate of this student, in weights of so many bits."""
        return self.name == student and self.weight_bits == weight_bits

    def should_hold(self, floor: float) -> bool:
        """Whether its fidelity is expected to reach a floor."""
        return self.expected is not None and self.expected.cautious >= floor


@dataclass(frozen=True)
class FidelityVerdict:
    """What a run promises.

    Attributes:
        band: Fidelity of the artifact; None where it cannot be told.
        floor: What was asked for, in [0, 1].
        holds: Whether it is reached; True where it cannot be told.
        sentence: The verdict in words.
        predicted: The prediction, where `band` was measured; the same as `band` elsewhere.
    """

    band: Band | None
    floor: float
    holds: bool
    sentence: str
    predicted: Band | None = None

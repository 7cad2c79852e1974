"""Procedural images alone, for students that are cut out of their teacher.

Such a student only has to mend what the cut broke, layer by layer, and any image that excites the layers
as real ones do serves for that. A generator would take most of the time and make hardly any steps of the
student possible. Where BatchNorms promise the moments of real data, the layers are brought to them while
they are compared (`graph.moments`), which does more for the student than better images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import Batch, Recipe, Synthesizer
from edgedafl.distill.synthesizers.priors import PriorMixture
from edgedafl.distill.synthesizers.procedural_images import ProceduralImages
from edgedafl.teachers.base import Teacher, TeacherSpec

__all__ = ["ProceduralSettings", "ProceduralSynthesizer"]


@dataclass(frozen=True)
class ProceduralSettings:
    """Chosen on CIFAR-10 ResNets, see `docs/benchmarks.md`.

    Attributes:
        batch: Images per step.
        natural: Share of images with the statistics of photographs; the rest are of the families that
            tell most about the teacher.
        prior_trial: Images per family by which their shares are set.
        recipe: How the student learns. Batches are small, because steps count more than their noise.
    """

    batch: int = 256
    natural: float = 0.5
    prior_trial: int = 300
    recipe: Recipe = Recipe(
        student_steps=40,
        student_batch=48,
        student_rate=2e-2,
        relative=True,
        layers=20.0,
        pool=60_000,
        temperature=20.0,
        augment=True,
        mixes=True,
        moves=True,
    )

    @classmethod
    def of(cls, spec: TeacherSpec) -> ProceduralSettings:
        """The defaults for a teacher: digits and garments have little of photographs."""
        return cls() if spec.input_shape[0] > 1 else cls(natural=0.25)


class ProceduralSynthesizer(Synthesizer):
    """Draws, and learns nothing itself.

    Args:
        teacher: Asked about what is drawn.
        settings: See there.
        device: Where to train.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> ProceduralSynthesizer(load_teacher("examples/mnist/teacher.onnx")).sample(3).shape
        torch.Size([3, 1, 32, 32])
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: ProceduralSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings or ProceduralSettings.of(teacher.spec)
        self.recipe = self.settings.recipe
        self._companions = ProceduralImages(teacher.spec, self.settings.batch, self.settings.prior_trial, device)

    def use_priors(self, priors: PriorMixture) -> None:
        self._companions.use_priors(priors.with_natural(self.settings.natural))

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Draw a batch and ask about it."""
        self._companions.tune(teacher)
        return self._companions.alone(teacher, self.settings.batch)

    def sample(self, count: int) -> Tensor:
        return self._companions.draw(count)

    def restart(self) -> None:
        """Nothing was learned that could have collapsed."""

    def state_dict(self) -> dict[str, Any]:
        return {"companions": self._companions.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._companions.load_state_dict(state["companions"])

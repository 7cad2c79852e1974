"""For teachers that only answer: procedural images, then a generator that learns from two students.

No query is spent on a gradient. Procedural images of the families that tell most come first. Then
a generator is trained through the student and a second student of the same make (the second_student): its
images should be of a clear class, all classes, and such that the two differ, which is where the
teacher's answer is worth most (DisGUIDE's disagreement with DAFL's balance; IDEAL for labels).
Every answer is kept and learned from many times.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.distill.synthesizers.base import Batch, GeneratorSynthesizer, Recipe, detached
from edgedafl.distill.synthesizers.generators import SlimGenerator
from edgedafl.distill.synthesizers.priors import PriorMixture
from edgedafl.distill.training.losses import (
    balanced_classes,
    distillation_loss,
    information_entropy_loss,
    one_hot_loss,
)
from edgedafl.teachers.base import Teacher

__all__ = ["BlackBoxSettings", "BlackBoxSynthesizer"]

_RIVAL_RATE = 2e-3
_GENERATOR_BATCH = 64
_TEMPERATURE = 4.0


@dataclass(frozen=True)
class BlackBoxSettings:
    """Defaults.

    Attributes:
        batch: Images asked about per step, at most.
        generated: Share of them that the generator makes once it has begun.
        begin: Progress at which the generator begins.
        asked_by: Progress at which the query budget is used up; the rest is learning.
        trial_share: Share of the query budget by which the families of priors are chosen.
        trial_rows: Most images per family for that.
        reserve: Share of the query budget left to probes.
        one_hot: Weight of the one-hot loss, through the student.
        entropy: Weight of the class balance (base 10).
        disagreement: Weight of the two students' difference.
        generator_steps: Generator steps per step; they cost no query.
        second_student_every: The second student learns from one of so many student batches.
        latent: Length of the code.
        channels: Width of the generator.
        learning_rate: Of the generator's Adam.
        recipe: How the student learns; with labels only, at temperature 1.
    """

    batch: int = 256
    generated: float = 0.25
    begin: float = 0.3
    asked_by: float = 0.8
    trial_share: float = 0.05
    trial_rows: int = 300
    reserve: float = 0.05
    one_hot: float = 1.0
    entropy: float = 5.0
    disagreement: float = 1.0
    generator_steps: int = 1
    second_student_every: int = 3
    latent: int = 64
    channels: int = 32
    learning_rate: float = 2e-3
    recipe: Recipe = Recipe(student_steps=12, student_batch=128, student_rate=8e-3, pool=200_000, weighted=True)


class BlackBoxSynthesizer(GeneratorSynthesizer):
    """Priors and a generator; only `teacher.scores` is ever called."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        settings: BlackBoxSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        s = self.settings = settings or BlackBoxSettings()
        super().__init__(teacher, self._recipe_for(teacher), s.latent, s.learning_rate, device)
        self._limit = teacher.remaining
        self._asked = 0
        self._calls = 0
        self.second_student: nn.Module | None = None
        self._saved_second: tuple[dict[str, Any], dict[str, Any]] | None = None
        self.priors = PriorMixture(teacher.spec.input_shape, seed=int(torch.randint(2**31, ())))
        self._chosen = False

    def _recipe_for(self, teacher: Teacher) -> Recipe:
        recipe = self.settings.recipe
        if teacher.remaining is not None:
            recipe = replace(recipe, pool=min(recipe.pool, teacher.remaining))
        return replace(recipe, temperature=1.0) if teacher.spec.access == "labels" else recipe

    def _choose_families(self, teacher: Teacher) -> Batch:
        """Ask about some images of each family; they are the first that the student learns from."""
        s, families = self.settings, len(self.priors.shares)
        rows = s.trial_rows
        if self._limit is not None:
            rows = min(rows, int(self._limit * s.trial_share) // families)
        if rows < 2:
            return Batch.nothing(self._spec, self._device)
        images: list[Tensor] = []
        answers: list[Tensor] = []

        def ask(unit: Tensor) -> Tensor:
            images.append(self._to_model(unit))
            answers.append(teacher.scores(images[-1]))
            return self._states(answers[-1])

        self.priors.tune(ask, rows)
        self._asked = rows * families
        return Batch(torch.cat(images), torch.cat(answers), generated=answers[0][:0])

    def _make(self) -> nn.Module:
        return SlimGenerator.of(self._spec, latent=self.settings.latent, channels=self.settings.channels)

    def use_priors(self, priors: PriorMixture) -> None:
        """The families with the user's pictures among them; their trial is what the student learns from first."""
        self.priors = priors

    @property
    def _sample_batch(self) -> int:
        return max(8, self.settings.batch)

    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Ask about as many images as the budget allows by now; possibly none."""
        if self.second_student is None and self.settings.generated:
            self._make_second_student(student)
        if not self._chosen:
            self._chosen = True
            return self._choose_families(teacher)
        allowed = self._allowance(teacher, fraction)
        if not allowed:
            return Batch.nothing(self._spec, self._device)
        losses: dict[str, Tensor] = {}
        made = 0
        if fraction >= self.settings.begin and self.settings.generated:
            made = int(allowed * self.settings.generated)
            losses = self._train_generator(student)
        images = self._to_model(self.priors.draw(allowed - made))
        if made:
            images = torch.cat([images, self.sample(made)])
        self._asked += len(images)
        logits = teacher.scores(images)
        return Batch(images, logits, losses, logits[len(logits) - made :])

    def _allowance(self, teacher: Teacher, fraction: float) -> int:
        s = self.settings
        if self._limit is None:
            return s.batch if fraction < s.asked_by else 0
        usable = int(self._limit * (1 - s.reserve))
        due = int(usable * min(1.0, fraction / s.asked_by)) - self._asked
        return max(0, min(due, s.batch, usable - self._asked, teacher.remaining or 0))

    def _train_generator(self, student: nn.Module) -> dict[str, Tensor]:
        """The student stands for the teacher; where the second_student differs, neither can be trusted."""
        s, second_student = self.settings, self.second_student
        assert second_student is not None
        was_training = student.training
        student.eval()
        second_student.eval()
        for _ in range(s.generator_steps):
            images = self.generator(self.latents(_GENERATOR_BATCH))
            guess, other = self._states(student(images)), self._states(second_student(images))
            losses = {
                "one_hot": one_hot_loss(guess, balanced_classes(guess)),
                "entropy": information_entropy_loss(guess),
                "disagreement": -torch.log1p(distillation_loss(other, guess, _TEMPERATURE)),
            }
            total = s.one_hot * losses["one_hot"] + s.entropy * losses["entropy"]
            total = total + s.disagreement * losses["disagreement"]
            self._descend(total)
        student.train(was_training)
        return detached(losses)

    def observe(self, images: Tensor, logits: Tensor) -> None:
        """Teach the second_student from some of the batches that the student learns from."""
        s = self.settings
        self._calls += 1
        if self._calls % s.second_student_every or self.second_student is None:
            return
        self.second_student.train()
        guess = self._states(self.second_student(images))
        loss = distillation_loss(guess, self._states(logits), self.recipe.temperature)
        self._second_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._second_optimizer.step()

    def _make_second_student(self, student: nn.Module) -> None:
        """A second student with other starting weights, or as it was before an interruption."""
        second_student = copy.deepcopy(student)
        if self._saved_second is None:
            for module in second_student.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()
        self._second_optimizer = torch.optim.Adam(second_student.parameters(), lr=_RIVAL_RATE)
        if self._saved_second is not None:
            second_student.load_state_dict(self._saved_second[0])
            self._second_optimizer.load_state_dict(self._saved_second[1])
            self._saved_second = None
        self.second_student = second_student

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Before the generator has learned anything, procedural images."""
        if not any(state for state in self.optimizer.state.values()):
            return self._to_model(self.priors.draw(count))
        return super().sample(count)

    def state_dict(self) -> dict[str, Any]:
        state = {
            **super().state_dict(),
            "asked": self._asked,
            "calls": self._calls,
            "priors": self.priors.state_dict(),
            "chosen": self._chosen,
        }
        if self.second_student is not None:
            state["rival"] = self.second_student.state_dict()
            state["rival_optimizer"] = self._second_optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._asked, self._calls = int(state["asked"]), int(state["calls"])
        self.priors.load_state_dict(state["priors"])
        self._chosen = bool(state["chosen"])
        if "rival" in state:
            self._saved_second = (state["rival"], state["rival_optimizer"])

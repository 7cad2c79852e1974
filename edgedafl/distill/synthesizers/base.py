"""The contract of a synthesizer: the part that makes images for the student to learn from."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgedafl.distill.distributed import DistributedContext, convert_sync_batchnorm
from edgedafl.distill.synthesizers.priors import PriorMixture
from edgedafl.distill.training.augment import Augmentation
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher, TeacherSpec, channels_last

__all__ = [
    "LAYERS",
    "Batch",
    "GeneratorSynthesizer",
    "Recipe",
    "Synthesizer",
    "detached",
    "evaluating",
    "random_classes",
]

_INHERITED_RATE = 1e-2
LAYERS = 5.0
"""Weight of the layers' comparison, where a method makes one."""


@dataclass(frozen=True)
class Batch:
    """Fresh images (N,C,H,W) in model space with the teacher's logits (N,K).

    Attributes:
        losses: The synthesizer's loss terms by name, as scalar tensors (reading one waits for
            the device, so only the reporting step does).
        generated: The teacher's logits on what a generator made, by which its health is judged;
            None where that is all of them.
    """

    images: Tensor
    logits: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    generated: Tensor | None = None

    @classmethod
    def nothing(cls, spec: TeacherSpec, device: torch.device | str, losses: dict[str, Tensor] | None = None) -> Batch:
        """A step that asked the teacher about no image."""
        images = torch.zeros(0, *spec.input_shape, device=device)
        return cls(images, images.new_zeros(0, spec.num_classes), losses or {})


@dataclass(frozen=True)
class Recipe:
    """How the student learns beside a synthesizer.

    Attributes:
        student_steps: Student steps per synthesizer step.
        student_batch: Images per student step.
        student_rate: Peak rate of the student's optimizer.
        relative: Whether that is a share of every weight's own size.
        layers: Weight of what the student's layers make of images against what the teacher's make,
            where both can be looked into; 0 compares the answers alone.
        optimizer: `adam`, or `sgd` with momentum 0.9.
        weight_decay: Of the optimizer.
        decay: `cosine` to a floor, `steps` (a tenth from 0.4 of the budget, a hundredth from 0.8),
            or `constant`.
        pool: Capacity of the replay pool; 0 trains on the fresh batch itself.
        begin: Images the pool must hold before the student begins.
        begin_at: Share of the budget before the student begins, for synthesizers whose first
            images teach nothing; the oldest two thirds of the pool are dropped then.
        newest: Half of a student batch comes from that many newest images.
        newest_until: Progress after which batches are drawn from the whole pool alike: the
            student should end on everything it has seen.
        loss: `kl`, or `l1` on the raw logits.
        temperature: Of the distillation loss.
        ema: Decay of the averaged student; 0 keeps the last weights.
        weighted: Whether images are drawn by worth (see `worth`) instead of evenly.
        augment: Whether drawn images are shifted and mirrored, as far as the teacher's classes
            allow it, and the teacher asked anew about them.
        mixes: Whether drawn images are mixed with each other as well, see `augment.mixed`.
        moves: Whether layers are compared on values that are moved to the moments that BatchNorms promise;
            images that a generator has made by those moments need no such help.
    """

    student_steps: int
    student_batch: int
    student_rate: float
    relative: bool = False
    layers: float = 0.0
    optimizer: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    decay: Literal["cosine", "steps", "constant"] = "cosine"
    pool: int = 100_000
    begin: int = 0
    begin_at: float = 0.0
    newest: int = 0
    newest_until: float = 0.0
    loss: Literal["kl", "l1"] = "kl"
    temperature: float = 4.0
    ema: float = 0.99
    weighted: bool = False
    augment: bool = False
    mixes: bool = False
    moves: bool = False

    def inherited(self) -> Recipe:
        """The same for a student that begins as its teacher.

        It has something to lose, and no BatchNorm to bear large steps: it moves by small shares of its
        weights' own size, at once.
        """
        if self.relative:  # made for such students
            return self
        rate = _INHERITED_RATE
        return replace(
            self, optimizer="adam", student_rate=rate, relative=True, layers=LAYERS, weight_decay=0.0, begin_at=0.0
        )


class Synthesizer(abc.ABC):
    """Makes batches; owns whatever it learns to do so.

    Attributes:
        recipe: How the student learns beside it.
        augmentation: Variations that the teacher takes for the same image; the engine finds them
            when the recipe asks for it.
        world: The processes that train together.
    """

    recipe: Recipe
    augmentation: Augmentation = Augmentation()
    world: DistributedContext = DistributedContext()

    @abc.abstractmethod
    def step(self, teacher: Teacher, student: nn.Module, fraction: float) -> Batch:
        """Learn once and return fresh images.

        Args:
            teacher: Asked for logits, features and gradients.
            student: The student as it stands; not changed here.
            fraction: Progress through the budget, in [0, 1].
        """

    def join(self, world: DistributedContext) -> None:
        """Train together with other processes; called once, before the first step."""
        self.world = world

    def observe(self, images: Tensor, logits: Tensor) -> None:  # noqa: B027  (most need nothing)
        """See a batch that the student has just learned from."""

    def use_priors(self, priors: PriorMixture) -> None:  # noqa: B027  (some draw none)
        """Take over procedural images in shares that others have found: the teacher is not asked again."""

    def procedural(self, teacher: Teacher) -> Batch | None:
        """A batch without the generator, for teachers that suit none; None where there is nothing else."""
        return None

    @abc.abstractmethod
    def sample(self, count: int) -> Tensor:
        """Images (count,C,H,W) in model space, for probes and pictures."""

    @abc.abstractmethod
    def restart(self) -> None:
        """Begin again from fresh weights with a lower rate, after a collapse."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything learned so far."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""


def random_classes(spec: TeacherSpec, count: int, device: torch.device | str) -> Tensor:
    """Classes (count,), or states (count, labels), evenly distributed.

    Examples:
        >>> from edgedafl.teachers import load_teacher
        >>> spec = load_teacher("examples/mnist/teacher.onnx").spec
        >>> random_classes(spec, 20, "cpu").shape
        torch.Size([20])
    """
    shape = states(torch.zeros(1, spec.num_classes), spec.task).shape[1:]
    return torch.randint(shape[-1], (count, *shape[:-1]), device=device)


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Loss terms for the record, without their graphs.

    Examples:
        >>> loss = torch.ones((), requires_grad=True) * 2
        >>> detached({"one_hot": loss})
        {'one_hot': tensor(2.)}
    """
    return {name: value.detach() for name, value in losses.items()}


class GeneratorSynthesizer(Synthesizer):
    """What synthesizers with one generator and one optimizer share.

    Args:
        teacher: For its specification.
        recipe: How the student learns.
        latent: Length of the code.
        rate: Peak rate of the generator.
        device: Where to train.
    """

    def __init__(
        self, teacher: Teacher, recipe: Recipe, latent: int, rate: float, device: torch.device | str = "cpu"
    ) -> None:
        self.recipe = recipe
        self.latent = latent
        self._spec = teacher.spec
        self._device = device
        self._rate = rate
        self._build()

    @abc.abstractmethod
    def _make(self) -> nn.Module:
        """A generator with fresh weights."""

    def _build(self) -> None:
        self.generator = convert_sync_batchnorm(channels_last(self._make()).to(self._device), self.world)
        self.world.broadcast_parameters(self.generator)
        self.optimizer = self._optimizer()

    def join(self, world: DistributedContext) -> None:
        super().join(world)
        if world.size > 1:
            self._build()

    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.generator.parameters(), lr=self._rate, betas=(0.5, 0.999))

    def _descend(self, loss: Tensor) -> None:
        """One step of the generator; nothing but its weights gets a gradient."""
        parameters = [*self.generator.parameters()]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)
        self.world.average_gradients(parameters)
        self._clip(parameters)
        self.optimizer.step()

    def _clip(self, parameters: list[nn.Parameter]) -> None:
        """Bound the gradient, in methods that do."""

    def _to_model(self, unit: Tensor) -> Tensor:
        """Images in [0, 1] to model space, on the training device."""
        return self._spec.preprocess.to_model(unit.to(self._device))

    def _states(self, logits: Tensor) -> Tensor:
        """Logits as the losses take them, in float32; see `tasks`."""
        return states(logits.float(), self._spec.task)

    def latents(self, count: int) -> Tensor:
        """Standard normal codes (count, latent) on the generator's device."""
        return torch.randn(count, self.latent, device=self._device)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """In training mode, as it was trained: batch statistics are part of the generator."""
        pieces = []
        for start in range(0, count, self._sample_batch):
            images = self.generator(self.latents(self._sample_batch))
            pieces.append(images[: count - start])
        return torch.cat(pieces)

    @property
    @abc.abstractmethod
    def _sample_batch(self) -> int:
        """Batch size the generator was trained with."""

    def restart(self) -> None:
        self._rate *= 0.3
        self._build()

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self._rate,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rate = float(state["rate"])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode, and back in the mode it was in.

    Examples:
        >>> module = nn.Dropout()
        >>> with evaluating(module):
        ...     print(module.training)
        False
        >>> module.training
        True
    """
    was_training = module.training
    module.eval()
    try:
        yield module
    finally:
        module.train(was_training)

"""Sanity values of the published losses."""

from __future__ import annotations

import math

import pytest
import torch

from edgedafl.distill.synthesizers.dafl import DaflSynthesizer
from edgedafl.distill.synthesizers.generators import PublishedGenerator
from edgedafl.distill.synthesizers.generators.tone import tone_of
from edgedafl.distill.synthesizers.priors import noise_fields
from edgedafl.distill.training.losses import (
    activation_loss,
    balanced_classes,
    distillation_loss,
    entropy_share,
    information_entropy_loss,
    one_hot_loss,
)
from edgedafl.preprocess import Preprocess

NORMALISED = Preprocess.from_mean_std((0.5,), (0.25,), 1)


@pytest.mark.parametrize(("classes", "value"), [(10, -1.0), (100, -2.0), (2, -0.30103)])
def test_entropy_of_balanced_classes_in_base_ten(classes: int, value: float) -> None:
    assert float(information_entropy_loss(torch.zeros(4, classes))) == pytest.approx(value, abs=1e-5)


def test_entropy_of_one_class_is_zero_and_rises_with_balance() -> None:
    one = torch.tensor([[50.0, 0, 0]] * 6)
    assert float(information_entropy_loss(one)) == pytest.approx(0, abs=1e-6)
    mixed = torch.eye(3).repeat(2, 1) * 50
    assert float(information_entropy_loss(mixed)) == pytest.approx(-math.log10(3), abs=1e-5)


def test_one_hot_loss_is_cross_entropy_with_the_own_class() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    assert float(one_hot_loss(logits)) == pytest.approx(math.log(1 + math.exp(-2)))


def test_activation_loss_is_a_mean_over_batch_and_features() -> None:
    assert float(activation_loss(torch.tensor([[1.0, -3.0], [0.0, 4.0]]))) == -2.0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_loss_is_kl_times_temperature_squared(temperature: float) -> None:
    teacher, student = torch.randn(5, 4), torch.randn(5, 4)
    p = torch.softmax(teacher / temperature, 1)
    q = torch.softmax(student / temperature, 1)
    expected = (p * (p / q).log()).sum(1).mean() * temperature**2
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(teacher, teacher)) == pytest.approx(0, abs=1e-6)


def test_distillation_never_trains_the_generator_or_the_teacher(tiny_teacher) -> None:
    synthesizer = DaflSynthesizer(tiny_teacher)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
    batch = synthesizer.step(tiny_teacher, student, 0.0)
    synthesizer.optimizer.zero_grad()
    distillation_loss(student(batch.images), batch.logits).backward()
    assert all(p.grad is None for p in synthesizer.generator.parameters())
    assert not any(p.requires_grad for p in tiny_teacher._module.parameters())


def test_published_generator() -> None:
    generator = PublishedGenerator((1, 32, 32), 100, 128, NORMALISED, "normalised", epsilon=0.8)
    norms = [m for m in generator.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m.eps for m in norms] == [1e-5, 0.8, 0.8, 1e-5]
    assert {m.momentum for m in norms} == {0.1}
    assert not norms[-1].affine
    images = generator(torch.randn(64, 100))
    assert images.shape == (64, 1, 32, 32)
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.var()) == pytest.approx(1, abs=1e-2)
    assert PublishedGenerator((3, 30, 45), 8, 16, Preprocess.from_range(0, 1, 3), "pixels")(
        torch.randn(4, 8)
    ).shape == (4, 3, 30, 45)


def test_published_settings(tiny_teacher) -> None:
    s = DaflSynthesizer(tiny_teacher)
    assert (s.settings.one_hot, s.settings.entropy, s.settings.activation) == (1, 5, 0.1)
    assert (s.settings.batch, s.settings.latent, s.settings.learning_rate) == (512, 100, 0.2)
    assert (s.recipe.student_steps, s.recipe.pool, s.recipe.temperature, s.recipe.decay) == (1, 0, 1.0, "constant")


def test_priors_are_varied_and_in_range() -> None:
    images = noise_fields(200, (3, 20, 30), torch.Generator().manual_seed(0))
    assert images.shape == (200, 3, 20, 30)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert float(images.mean((1, 2, 3)).std()) > 0.1
    again = noise_fields(200, (3, 20, 30), torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


@pytest.mark.parametrize(("mean", "std"), [(0.1307, 0.3081), (0.286, 0.353), (0.4734, 0.2516)])
def test_the_tone_reproduces_the_declared_mean(mean: float, std: float) -> None:
    tone = tone_of(Preprocess.from_mean_std((mean,), (std,), 1))
    pixels = tone.to_unit(torch.randn(100_000, 1, 1, 1))
    assert float(pixels.mean()) == pytest.approx(mean, abs=0.01)
    assert float(pixels.std()) == pytest.approx(std, abs=0.07)


def test_half_and_half_is_a_range_and_no_statistic() -> None:
    assert tone_of(Preprocess.from_mean_std((0.5,), (0.5,), 3)).origin == "assumed"


def test_entropy_share() -> None:
    assert entropy_share(torch.ones(7) / 7) == pytest.approx(1)
    assert entropy_share(torch.tensor([1.0, 0, 0])) == pytest.approx(0, abs=1e-5)


def test_balanced_classes_give_every_class_its_share() -> None:
    logits = torch.randn(100, 5)
    logits[:, 0] += 3
    assert torch.bincount(logits.argmax(1), minlength=5)[0] > 80
    counts = torch.bincount(balanced_classes(logits), minlength=5)
    assert counts.min() >= 10
    clear = torch.eye(5).repeat(20, 1) * 9
    assert torch.equal(balanced_classes(clear), clear.argmax(1))

"""Every method of the registry, on a teacher with BatchNorm that is learned within seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgedafl.distill import METHODS, AdversarialSettings, Budget, Distiller, make_synthesizer, settings_of
from edgedafl.distill.synthesizers import FastSettings, FastSynthesizer, InversionSynthesizer, dfad, zskt
from edgedafl.distill.synthesizers.priors import noise_fields
from edgedafl.distill.training.augment import Augmentation, choose_augmentation
from edgedafl.distill.training.balance import EntropyWeight
from edgedafl.distill.training.losses import (
    batch_norm_loss,
    distillation_loss,
    jensen_shannon,
    shared_disagreement,
    total_variation,
)
from edgedafl.distill.training.pool import Pool
from edgedafl.distill.training.trainer import capacity_of
from edgedafl.errors import UsageError
from edgedafl.students import build_student, training_format
from edgedafl.teachers import TeacherOptions, load_onnx_teacher
from edgedafl.teachers.base import BatchNormStatistics, Teacher


@pytest.fixture
def bn_teacher(bn_onnx: Path) -> Teacher:
    return load_onnx_teacher(bn_onnx, TeacherOptions(input_range=(0.0, 1.0)))


SMALL: dict[str, dict[str, object]] = {
    "adversarial": {"channels": 8, "batch": 32, "priors": 32, "prior_trial": 20},
    "fast": {"channels": 16, "batch": 64, "latent": 32},
    "inversion": {"batch": 64, "iterations": 20, "per_step": 5},
    "dafl": {"channels": 8, "batch": 64, "learning_rate": 2e-3},
    "dfad": {"channels": 16, "batch": 64},
    "zskt": {"channels": 16, "batch": 64},
    "dfq": {"channels": 16, "batch": 64},
}


def distiller(teacher: Teacher, method: str, steps: int) -> Distiller:
    torch.manual_seed(0)
    student = build_student("lenet5", teacher.spec.input_shape, teacher.spec.num_classes)
    _, default = settings_of(method, teacher)
    recipe = replace(default.recipe, student_steps=6, student_batch=64, optimizer="adam", student_rate=3e-3)
    recipe = replace(recipe, pool=min(recipe.pool, 4000), begin=min(recipe.begin, 64), decay="cosine")
    settings = replace(default, recipe=recipe, **SMALL[method])
    return Distiller(teacher, student, METHODS[method].build(teacher, settings=settings), budget=Budget(steps=steps))


@pytest.mark.parametrize("method", SMALL)
def test_every_method_teaches(method: str, bn_teacher: Teacher) -> None:
    # At 60 steps the default lies at its bound, on either side of it as rounding has it.
    run = distiller(bn_teacher, method, 75 if method == "adversarial" else 60)
    images = noise_fields(400, (1, 16, 16), torch.Generator().manual_seed(2))
    answers = bn_teacher.scores(images)

    def distance() -> float:
        with torch.no_grad():
            return float(distillation_loss(run.best.eval()(images), answers))

    before = distance()
    run.trainer.student.train()
    assert run.run().recoveries == ()
    # The published methods are made for far longer runs.
    assert distance() < (0.6 if method in ("adversarial", "fast") else 1.0) * before


@pytest.mark.parametrize("meta", ["fomaml", "reptile"])
def test_a_meta_learned_generator_starts_ever_better(meta: str, bn_teacher: Teacher) -> None:
    default = FastSettings()
    settings = replace(default, meta=meta, channels=16, batch=64, latent=32, adversarial=0.0, one_hot=0.0)
    synthesizer = FastSynthesizer(bn_teacher, settings=settings)
    student = build_student("lenet5", (1, 16, 16), 3).module

    def start() -> float:
        images = synthesizer.generator(torch.randn(256, 32, generator=torch.Generator().manual_seed(1)))
        return float(batch_norm_loss(bn_teacher.batch_norm_statistics(images.detach())))

    first = start()
    for _ in range(15):
        synthesizer.step(bn_teacher, student, 0.0)
    assert start() < 0.8 * first


def test_inverted_images_have_the_statistics_of_the_data(bn_teacher: Teacher) -> None:
    _, default = settings_of("inversion", bn_teacher)
    settings = replace(default, batch=64, iterations=120, per_step=120, compete=0.0)
    synthesizer = InversionSynthesizer(bn_teacher, settings=settings)
    noise = batch_norm_loss(bn_teacher.batch_norm_statistics(synthesizer.sample(64)))
    batch = synthesizer.step(bn_teacher, nn.Identity(), 0.0)
    assert batch_norm_loss(bn_teacher.batch_norm_statistics(batch.images)) < 0.7 * noise
    low, high = bn_teacher.spec.preprocess.bounds(batch.images)
    assert bool((batch.images >= low).all()) and bool((batch.images <= high).all())


@pytest.mark.parametrize("method", ["fast", "inversion"])
def test_methods_that_need_statistics_say_so(method: str, tiny_teacher: Teacher) -> None:
    with pytest.raises(UsageError, match="BatchNorm") as caught:
        make_synthesizer(method, tiny_teacher)
    assert "without folding" in caught.value.hint


def test_published_recipes(bn_teacher: Teacher) -> None:
    spec = bn_teacher.spec
    assert (dfad(spec).distance, dfad(spec).recipe.loss, dfad(spec).recipe.student_steps) == ("l1", "l1", 5)
    assert (dfad(spec).batch, dfad(spec).latent, dfad(spec).recipe.optimizer) == (512, 100, "sgd")
    assert (zskt(spec).fresh, zskt(spec).recipe.student_steps, zskt(spec).clip) == (False, 10, 5.0)
    assert METHODS["dfq"].settings(spec).balance == pytest.approx(46.05, abs=0.01)
    assert FastSettings().batch_norm == 10 and FastSettings().momentum == 0.9


def test_statistics_loss_is_the_sum_of_norms() -> None:
    one = BatchNormStatistics(torch.tensor([3.0, 4]), torch.ones(2), torch.zeros(2), torch.ones(2))
    two = BatchNormStatistics(torch.zeros(2), torch.tensor([2.0, 1]), torch.zeros(2), torch.ones(2))
    assert float(batch_norm_loss([one, two])) == pytest.approx(5 + 1)


def test_disagreement_counts_where_the_class_is_the_same() -> None:
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # unsure, and wrong
    p, q = torch.softmax(teacher[0], 0), torch.softmax(student[0], 0)
    assert float(shared_disagreement(student, teacher)) == pytest.approx(float((p * (p / q).log()).sum()) / 2)
    assert float(jensen_shannon(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)
    assert float(jensen_shannon(torch.tensor([[90.0, 0]]), torch.tensor([[0.0, 90]]), 3.0)) > 0.5
    flat = torch.ones(2, 1, 4, 4)
    assert float(total_variation(flat)) == 0


class Mirrored(Teacher):
    """Knows left from right, or does not."""

    def __init__(self, spec, handed: bool) -> None:  # type: ignore[no-untyped-def]
        super().__init__(spec)
        self._handed = handed

    def _answer(self, images, *, batch_norm):  # type: ignore[no-untyped-def]
        from edgedafl.teachers.base import TeacherOutput

        left, right = images[..., :8].mean((1, 2, 3)), images[..., 8:].mean((1, 2, 3))
        first = left - right if self._handed else (left + right) - 1
        return TeacherOutput(torch.stack([first, -first, torch.full_like(first, -9)], 1))


@pytest.mark.parametrize(("handed", "mirror"), [(True, False), (False, True)])
def test_images_are_mirrored_only_where_the_teacher_does_not_mind(
    handed: bool, mirror: bool, bn_teacher: Teacher
) -> None:
    teacher = Mirrored(bn_teacher.spec, handed)
    images = torch.rand(300, 1, 16, 16) * torch.rand(300, 1, 1, 1)
    images[:, :, :, :8] *= torch.rand(300, 1, 1, 1)
    found = choose_augmentation(teacher, images, teacher.scores(images))
    assert found.mirror is mirror


def test_variations_move_images_and_keep_their_values() -> None:
    images = torch.arange(16 * 36).reshape(16, 1, 6, 6).float()
    varied = Augmentation(shift=1, mirror=True)(images)
    assert varied.shape == images.shape
    assert not torch.equal(varied, images)
    for old, new in zip(images, varied, strict=True):
        assert set(new.flatten().tolist()) <= set(old.flatten().tolist())
    assert Augmentation()(images) is images


def test_shifts_bring_in_the_edge_or_a_border() -> None:
    images = torch.rand(64, 2, 6, 6) + 1
    edges, bordered = Augmentation(shift=2)(images), Augmentation(shift=2, border=(-1.0, -2.0))(images)
    assert float(edges.min()) >= 1
    for channel, outside in enumerate((-1.0, -2.0)):
        found = bordered[:, channel]
        inside = found >= 1
        assert torch.equal(found[~inside], torch.full_like(found[~inside], outside))
        # Shifts of 0 to 2 pixels either way leave 1 - (1.2 / 6) of each side.
        assert 0.5 < float(inside.float().mean()) < 0.8


class Spotted(Teacher):
    """Answers by the brightness of the middle alone; black borders bother it, or do not."""

    def __init__(self, spec, shy: bool) -> None:  # type: ignore[no-untyped-def]
        super().__init__(spec)
        self._shy = shy

    def _answer(self, images, *, batch_norm):  # type: ignore[no-untyped-def]
        from edgedafl.teachers.base import TeacherOutput

        score = images[..., 4:12, 4:12].mean((1, 2, 3)) - 0.5
        black = (images.amax((1, 3)) == 0).any(1) | (images.amax((1, 2)) == 0).any(1)
        score = torch.where(black, -score, score) if self._shy else score
        return TeacherOutput(torch.stack([score, -score, torch.full_like(score, -9)], 1))


@pytest.mark.parametrize(
    ("batch_norms", "side", "shy", "border"),
    [(3, 16, False, (0.0,)), (3, 16, True, None), (0, 16, False, None), (3, 96, False, None)],
)
def test_small_images_are_shifted_as_networks_with_batch_norm_were_trained(
    batch_norms: int, side: int, shy: bool, border: tuple[float, ...] | None, bn_teacher: Teacher
) -> None:
    spec = replace(bn_teacher.spec, batch_norms=batch_norms, input_shape=(1, side, side))
    teacher = Spotted(spec, shy)
    dark = torch.rand(300, 1, 1, 1) < 0.5
    images = torch.where(dark, torch.tensor(0.2), torch.tensor(0.8)).expand(300, 1, side, side).contiguous()
    found = choose_augmentation(teacher, images, teacher.scores(images))
    assert (found.shift, found.border) == (side // 8, border)


def test_a_student_waits_for_images_that_teach_and_starts_on_the_newest(bn_teacher: Teacher) -> None:
    run = distiller(bn_teacher, "fast", 20)  # begins at 0.1: two steps of 64 generated and 64 procedural images
    before = [p.clone() for p in run.trainer.student.parameters()]
    rows = []
    for step in range(3):
        batch = run._synthesize(step / 20)
        run.trainer.learn(batch, step / 20)
        rows.append(run.trainer.shown)
        changed = any(not torch.equal(a, b) for a, b in zip(before, run.trainer.student.parameters(), strict=True))
        assert changed is (step == 2)
    assert rows == [0, 0, 6 * 64]
    assert len(run.trainer.pool) == 3 * 128 // 3


def test_a_pool_keeps_its_newest_images_in_order(bn_teacher: Teacher) -> None:
    pool = Pool(5, (1, 2, 2), 3, bn_teacher.spec.preprocess)
    values = torch.arange(8) / 255
    pool.add(values[:4].reshape(4, 1, 1, 1).expand(4, 1, 2, 2), torch.zeros(4, 3))
    pool.add(values[4:].reshape(4, 1, 1, 1).expand(4, 1, 2, 2), torch.ones(4, 3))
    pool.keep_newest(3)
    assert pool.pixels()[:, 0, 0, 0].tolist() == [5, 6, 7]
    pool.add(values[:1].reshape(1, 1, 1, 1).expand(1, 1, 2, 2), torch.zeros(1, 3))
    pool.keep_newest(2)
    assert pool.pixels()[:, 0, 0, 0].tolist() == [7, 0]
    assert pool.logits()[:, 0].tolist() == [1, 0]


def test_a_run_interrupted_while_the_student_waits_goes_on_the_same(bn_teacher: Teacher) -> None:
    run = distiller(bn_teacher, "fast", 10)
    run.trainer.learn(run._synthesize(0.0), 0.0)
    state = run.trainer.state_dict()
    assert (state["begun"], state["varied"]) == (False, True)
    again = distiller(bn_teacher, "fast", 10)
    again.trainer.load_state_dict(state)
    assert again.synthesizer.augmentation == run.synthesizer.augmentation


def test_the_entropy_weight_rises_while_classes_are_missing_and_falls_when_images_blur() -> None:
    weight = EntropyWeight(5.0, 10)
    for _ in range(10):
        up = weight(torch.tensor(-0.6), torch.tensor(0.5))
    assert float(up) == pytest.approx(5 * 1.05**10, rel=1e-4)
    for step in range(60):
        down = weight(torch.tensor(-0.999), torch.tensor(0.5 + 0.05 * step))
    assert float(down) < 2
    again = EntropyWeight(5.0, 10)
    again.load_state_dict(weight.state_dict())
    assert torch.equal(again(torch.tensor(-0.97), torch.tensor(0.0)), weight(torch.tensor(-0.97), torch.tensor(0.0)))


def test_the_pool_fits_its_memory() -> None:
    recipe = AdversarialSettings().recipe
    assert capacity_of(recipe, (3, 224, 224), 1000, 1 << 30) == (1 << 30) // (3 * 224 * 224 + 4004)
    assert capacity_of(recipe, (1, 28, 28), 10, 2 << 30) == 100_000


def test_students_whose_training_would_crash_channels_last_stay_as_they_are() -> None:
    narrow = build_student("resnet8:0.5", (1, 32, 32), 10).module
    assert training_format(narrow, "cpu") is torch.contiguous_format
    assert training_format(narrow, "cuda") is torch.channels_last
    assert training_format(build_student("resnet8", (3, 32, 32), 10).module, "cpu") is torch.channels_last

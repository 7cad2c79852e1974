"""Distillation of teachers that only answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgedafl.distill import (
    BlackBoxSettings,
    BlackBoxSynthesizer,
    Budget,
    Distiller,
    ZerothOrderTeacher,
    make_synthesizer,
    with_estimated_gradients,
)
from edgedafl.distill.synthesizers.priors import FAMILIES, noise_fields
from edgedafl.distill.synthesizers.zeroth_order import estimated_gradient
from edgedafl.errors import InterruptedRunError, UnsupportedModelError, UsageError
from edgedafl.students import build_student
from edgedafl.teachers import QueryBudgetError, TeacherOptions, load_onnx_teacher, load_teacher

SMALL = BlackBoxSettings(
    batch=64,
    channels=8,
    latent=16,
    recipe=replace(BlackBoxSettings().recipe, student_steps=4, student_batch=64),
)


def teacher_of(path: Path, access: str, limit: int | None = 4000):
    return load_teacher(str(path), TeacherOptions(input_range=(0.0, 1.0), access=access, max_queries=limit))


def distiller(teacher, steps: int = 90, **arguments) -> Distiller:
    torch.manual_seed(0)
    student = build_student("lenet5", (1, 16, 16), 3)
    synthesizer = BlackBoxSynthesizer(teacher, settings=SMALL)
    return Distiller(teacher, student, synthesizer, budget=Budget(steps=steps), **arguments)


@pytest.mark.parametrize(("access", "least"), [("scores", 0.7), ("labels", 0.6)])
def test_a_student_learns_from_answers_alone(tiny_onnx: Path, access: str, least: float) -> None:
    teacher = teacher_of(tiny_onnx, access)
    outcome = distiller(teacher).run()
    images = noise_fields(1000, (1, 16, 16), torch.Generator().manual_seed(9))
    judge = load_onnx_teacher(tiny_onnx, TeacherOptions(input_range=(0.0, 1.0)))
    same = outcome.student(images).argmax(1) == judge.scores(images).argmax(1)
    assert float(same.float().mean()) > least
    assert 3000 < outcome.queries <= 4000
    assert outcome.queries == teacher.queries
    assert len(outcome.pool) <= outcome.queries


@pytest.mark.parametrize("limit", [150, 1000])
def test_the_query_limit_is_never_exceeded(tiny_onnx: Path, limit: int) -> None:
    teacher = teacher_of(tiny_onnx, "scores", limit)
    outcome = distiller(teacher, steps=30).run()
    assert outcome.queries <= limit
    assert outcome.steps == 30
    with pytest.raises(QueryBudgetError):
        teacher.scores(torch.rand(limit + 1, 1, 16, 16))


def test_no_gradient_is_asked_for(tiny_onnx: Path) -> None:
    teacher = teacher_of(tiny_onnx, "scores")
    with pytest.raises(UnsupportedModelError, match="gradient access"):
        teacher(torch.rand(1, 1, 16, 16))
    with pytest.raises(UsageError, match="needs the teacher's gradients"):
        make_synthesizer("adversarial", teacher)
    assert make_synthesizer("auto", teacher)[0] == "blackbox"


def test_an_interrupted_run_asks_nothing_twice(tiny_onnx: Path, tmp_path: Path) -> None:
    whole = distiller(teacher_of(tiny_onnx, "scores"), steps=60).run()
    stops = []

    def stop(progress) -> None:
        if not stops:
            stops.append(progress.step)
            raise KeyboardInterrupt

    file = tmp_path / "state.pt"
    with pytest.raises(InterruptedRunError):
        distiller(teacher_of(tiny_onnx, "scores"), steps=60, checkpoint=file, on_progress=stop).run()
    teacher = teacher_of(tiny_onnx, "scores")
    resumed = distiller(teacher, steps=60, checkpoint=file).run(resume=True)
    assert 0 < stops[0] < 60
    assert resumed.queries == whole.queries
    a, b = whole.student.state_dict(), resumed.student.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_estimated_gradients_turn_to_the_true_ones_with_more_directions(tiny_onnx: Path) -> None:
    teacher = load_onnx_teacher(tiny_onnx, TeacherOptions(input_range=(0.0, 1.0)))
    images = torch.rand(4, 1, 16, 16, requires_grad=True)
    logits = teacher(images).logits
    upstream = torch.randn_like(logits)
    (true,) = torch.autograd.grad((logits * upstream).sum(), images)
    cosines = []
    for directions in (1, 20, 1000):
        found = estimated_gradient(
            teacher, images.detach(), upstream, directions=directions, step=1e-2, logits=logits.detach()
        )
        cosines.append(float(torch.cosine_similarity(found.flatten(1), true.flatten(1)).mean()))
    # About sqrt(m / (m + d)) with d = 256 pixels: 0.06, 0.27, 0.89.
    assert cosines[0] < cosines[1] < cosines[2]
    assert cosines[1] == pytest.approx(0.27, abs=0.12)
    assert cosines[2] > 0.8


def test_zeroth_order_is_offered_for_scores_and_paid_in_queries(tiny_onnx: Path) -> None:
    inner = teacher_of(tiny_onnx, "scores", None)
    teacher = with_estimated_gradients("zeroth-order", inner)
    assert isinstance(teacher, ZerothOrderTeacher)
    name, synthesizer = make_synthesizer("zeroth-order", teacher)
    before = teacher.queries
    student = build_student("lenet5", (1, 16, 16), 3).module
    synthesizer.step(teacher, student, 0.0)
    s = synthesizer.settings  # type: ignore[attr-defined]
    assert name == "zeroth-order"
    assert before < teacher.queries <= before + len(FAMILIES) * s.prior_trial + 2 * s.batch + s.priors
    with pytest.raises(UsageError, match="labels only"):
        with_estimated_gradients("zeroth-order", teacher_of(tiny_onnx, "labels"))

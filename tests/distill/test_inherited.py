"""Students with something to lose: small steps, and every layer held to its teacher's."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from edgedafl.distill import Budget, Distiller, make_synthesizer
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.stages import pruner_of
from edgedafl.students import Student, build_student
from edgedafl.teachers import Teacher, load_onnx_teacher


def distiller(teacher: Teacher, student: Student, method: str = "adversarial", steps: int = 3) -> Distiller:
    torch.manual_seed(0)
    return Distiller(teacher, student, make_synthesizer(method, teacher)[1], budget=Budget(steps=steps))


def test_the_whole_teacher_has_nothing_to_learn(tiny_teacher: Teacher) -> None:
    student = pruner_of(tiny_teacher).student("pruned:1")
    images = torch.rand(6, 1, 16, 16)
    student.module.train()(images)
    assert student.layers is not None
    assert (
        float(student.layers.distance(student.layers.teacher_features(images), student.layers.take_features())) < 1e-8
    )


def test_the_distance_counts_kept_channels_in_units_of_the_teachers_variance(tiny_teacher: Teacher) -> None:
    student = pruner_of(tiny_teacher).student("pruned:0.5")
    images = torch.rand(6, 1, 16, 16)
    student.module.train()(images)
    assert student.layers is not None
    seen, wanted = student.layers.take_features(), student.layers.teacher_features(images)
    assert student.layers.take_features() == {}
    before = float(student.layers.distance(wanted, seen))
    assert before > 1e-3
    # The first layer of all reads the image, so what the first convolution writes is still exact.
    first = next(name for name in seen if name in student.layers._kept)  # type: ignore[attr-defined]
    alone = {name: value.detach() for name, value in seen.items()}
    alone[first] = alone[first] + 1.0
    assert float(student.layers.distance(wanted, alone)) > before + 0.1


def test_steps_are_shares_of_a_weights_own_size(tiny_teacher: Teacher) -> None:
    student = pruner_of(tiny_teacher).student("pruned:0.5")
    start = copy.deepcopy(student.module.state_dict())
    run = distiller(tiny_teacher, student, steps=1)
    scales = [group["scale"] for group in run.trainer._optimizer.param_groups]
    assert len(scales) == len(list(student.module.parameters())) and len(set(scales)) > 2
    run.run()
    steps = run.trainer.recipe.student_steps
    for name, value in run.trainer.student.state_dict().items():
        size = max(1e-2, float(start[name].square().mean().sqrt()))
        # Adam moves a weight by its rate at most, a little more in its first steps.
        assert float((value - start[name]).abs().max()) <= 1.5 * steps * run.trainer.recipe.student_rate * size, name


def test_students_of_another_make_learn_as_before(tiny_teacher: Teacher) -> None:
    run = distiller(tiny_teacher, build_student("lenet5", (1, 16, 16), 3))
    assert [group["scale"] for group in run.trainer._optimizer.param_groups] == [1.0]
    assert run.trainer.recipe is run.synthesizer.recipe


def test_a_limit_on_queries_leaves_the_layers_alone(tiny_teacher: Teacher) -> None:
    tiny_teacher.max_queries = 100_000
    student = pruner_of(tiny_teacher).student("pruned:0.5")
    run = distiller(tiny_teacher, student, steps=1)
    assert not run.trainer._step.compares
    assert isinstance(run.trainer, StudentTrainer)
    assert run.run().steps == 1


def test_a_cut_teacher_with_batch_norms_teaches_by_moved_values(bn_onnx: Path) -> None:
    teacher = load_onnx_teacher(bn_onnx)
    pruner = pruner_of(teacher)
    student = pruner.student("pruned:0.5")
    torch.manual_seed(0)
    _, synthesizer = make_synthesizer("procedural", teacher, inherited=True)
    assert pruner.movements
    run = Distiller(teacher, student, synthesizer, budget=Budget(steps=3))
    recipe = run.trainer.recipe
    assert (recipe.student_batch, recipe.layers, recipe.mixes) == (48, 20.0, True)
    images = synthesizer.sample(200)
    before = float(student.layers.distance(student.layers.teacher_features(images), _seen(student, images)))  # type: ignore[union-attr]
    outcome = run.run()
    assert outcome.steps == 3 and not outcome.recoveries
    after = float(student.layers.distance(student.layers.teacher_features(images), _seen(student, images)))  # type: ignore[union-attr]
    assert after < before


def test_under_a_limit_on_queries_nothing_is_moved(bn_onnx: Path) -> None:
    teacher = load_onnx_teacher(bn_onnx)
    student = pruner_of(teacher).student("pruned:0.5")
    teacher.max_queries = 100_000
    images = torch.rand(8, *teacher.spec.input_shape)
    with torch.no_grad():
        moved = student.module.train()(images)
        run = distiller(teacher, student, "procedural", steps=1)
        assert not run.trainer._step.moves
        held = student.module.train()(images)
        torch.testing.assert_close(held, student.module.eval()(images))
    assert (moved - held).abs().max() > 1e-3


def _seen(student: Student, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        student.module.train()(images)
    assert student.layers is not None
    return student.layers.take_features()

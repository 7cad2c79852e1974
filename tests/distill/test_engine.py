"""The engine on a teacher that is learned within seconds."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from pathlib import Path

import pytest
import torch

from edgedafl.distill import (
    AdversarialSettings,
    AdversarialSynthesizer,
    Budget,
    Distiller,
    make_synthesizer,
)
from edgedafl.distill.distributed import DistributedContext
from edgedafl.distill.methods import choose_method
from edgedafl.distill.monitoring.health import KINDS, HealthMonitor
from edgedafl.distill.monitoring.probes import ProbePlan, ProbeSets
from edgedafl.distill.monitoring.reporter import Reporter, RunState
from edgedafl.distill.monitoring.samples import class_sheet
from edgedafl.distill.synthesizers.priors import FAMILIES
from edgedafl.distill.training.budget import Clock
from edgedafl.distill.training.checkpoint import load_checkpoint, save_checkpoint
from edgedafl.distill.training.pool import Pool
from edgedafl.errors import DistillationError, InterruptedRunError, UsageError
from edgedafl.preprocess import Preprocess
from edgedafl.runs import AgreementReport, Progress
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_onnx_teacher

SMALL = AdversarialSettings(
    lives=1,
    adversarial=1.0,
    every=1,
    priors=16,
    prior_trial=20,
    batch=32,
    channels=8,
    latent=16,
    recipe=dataclasses.replace(AdversarialSettings().recipe, student_steps=4, student_batch=64, pool=2000, newest=200),
)
UNIT = Preprocess.from_range(0, 1, 1)


def distiller(
    path: Path, *, steps: int, checkpoint: Path | None = None, on_progress=lambda p: None, seed: int = 0
) -> Distiller:
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0)))
    torch.manual_seed(seed)
    student = build_student("lenet5", (1, 16, 16), 3)
    synthesizer = AdversarialSynthesizer(teacher, settings=SMALL)
    return Distiller(
        teacher, student, synthesizer, budget=Budget(steps=steps), checkpoint=checkpoint, on_progress=on_progress
    )


def test_a_student_learns_its_teacher(tiny_onnx: Path) -> None:
    untrained = distiller(tiny_onnx, steps=1).run().agreement.generated
    outcome = distiller(tiny_onnx, steps=120).run()
    assert outcome.steps == 120
    assert outcome.agreement.generated > 0.7 > untrained
    assert set(outcome.agreement.sets) == {
        "priors",
        "generated at 28%",
        "generated at 53%",
        "generated at 78%",
        "generated at 90%",
    }
    assert len(outcome.pool) == 4000
    assert outcome.pool.added == 120 * 48
    assert outcome.queries == distiller_queries(120)
    assert outcome.images_per_second == pytest.approx(120 * 4 * 64 / outcome.seconds, rel=0.01)
    assert outcome.bare_images_per_second > outcome.images_per_second


def distiller_queries(steps: int) -> int:
    """All families on trial, fresh and procedural images, and five probe sets of 1,000."""
    return len(FAMILIES) * 20 + (32 + 16) * steps + 5 * 1000


def test_the_same_seed_gives_the_same_student(tiny_onnx: Path) -> None:
    a, b = (distiller(tiny_onnx, steps=15).run().student.state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)


class Stop:
    """Interrupts a run as Ctrl-C does, at a given call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_stopped(tiny_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    whole = distiller(tiny_onnx, steps=60).run()
    with pytest.raises(InterruptedRunError, match="saved") as caught:
        interrupted = distiller(tiny_onnx, steps=60, checkpoint=file, on_progress=Stop(1))
        interrupted.run()
    assert caught.value.exit_code == 130
    state = load_checkpoint(file)
    assert 0 < state["step"] < 60
    resumed = distiller(tiny_onnx, steps=60, checkpoint=file, seed=1).run(resume=True)
    assert resumed.steps == 60
    assert resumed.queries == whole.queries
    a, b = whole.student.state_dict(), resumed.student.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_nan_is_recovered(tiny_onnx: Path) -> None:
    run = distiller(tiny_onnx, steps=200)
    poisoned = []

    def poison(progress: Progress) -> None:
        if not poisoned:
            poisoned.append(progress.step)
            with torch.no_grad():
                next(run.trainer.student.parameters()).fill_(math.nan)

    run._on_progress = poison
    outcome = run.run()
    assert poisoned
    assert len(outcome.recoveries) >= 1
    assert all(torch.isfinite(p).all() for p in outcome.student.parameters())


def test_a_student_that_diverges_goes_back_and_keeps_its_images(tiny_onnx: Path) -> None:
    run = distiller(tiny_onnx, steps=100)
    images = []

    def blow_up(progress: Progress) -> None:
        if progress.step > 30 and not images:
            images.append(len(run.trainer.pool))
            with torch.no_grad():
                for weight in run.trainer.student.parameters():
                    weight.mul_(1e4)

    run._on_progress = blow_up
    outcome = run.run()
    (recovery,) = outcome.recoveries
    assert "has grown to" in recovery and "healthy weights" in recovery
    assert len(outcome.pool) > images[0] > 0
    assert outcome.agreement.generated > 0.8


def test_all_processes_do_what_the_first_one_needs(tiny_onnx: Path) -> None:
    class SecondOfTwo(DistributedContext):
        def broadcast(self, *values: float) -> tuple[float, ...]:
            return (float(KINDS.index("divergence")),)

    run = distiller(tiny_onnx, steps=10)
    before = copy.deepcopy(run.trainer.student.state_dict())
    generator = run.synthesizer.generator  # type: ignore[attr-defined]
    with torch.no_grad():
        next(run.trainer.student.parameters()).add_(1)
    run.recovery._world = SecondOfTwo()
    run.recovery.check(0, 0.1)
    assert run.synthesizer.generator is generator  # type: ignore[attr-defined]  # to begin anew would wait for the first process
    assert all(torch.equal(value, before[name]) for name, value in run.trainer.student.state_dict().items())


def test_weights_that_are_no_numbers_are_never_remembered_as_healthy(tiny_onnx: Path) -> None:
    trainer = distiller(tiny_onnx, steps=1).trainer
    before = copy.deepcopy(trainer.student.state_dict())
    with torch.no_grad():
        next(trainer.student.parameters()).fill_(math.nan)
    trainer.keep()
    trainer.go_back()
    assert trainer.is_finite
    assert all(torch.equal(value, before[name]) for name, value in trainer.student.state_dict().items())


def test_nan_since_the_last_look_is_not_what_is_kept(tiny_onnx: Path) -> None:
    run = distiller(tiny_onnx, steps=25)
    assert run.run().recoveries == ()
    with torch.no_grad():
        next(run.best.parameters()).fill_(math.nan)
    outcome = run._finish()
    assert "not finite at the end" in outcome.recoveries[0]
    assert all(torch.isfinite(p).all() for p in outcome.student.parameters())


def test_what_cannot_be_recovered_stops_with_advice(tiny_onnx: Path) -> None:
    run = distiller(tiny_onnx, steps=10)
    with pytest.raises(DistillationError) as caught:
        for _ in range(10):
            run.recovery.check(0, math.nan)
    assert "Distillation failed 4 times" in caught.value.message
    assert "--input-range" in caught.value.hint


def test_a_generator_that_collapses_again_and_again_is_given_up_and_procedural_images_go_on(tiny_onnx: Path) -> None:
    run, one_class = distiller(tiny_onnx, steps=10), torch.tensor([[5.0, 0, 0]]).repeat(100, 1)
    for _ in range(100):
        run.recovery.watch(one_class, one_class)
        run.recovery.check(0, 0.1)
    assert [note.rpartition("; ")[2] for note in run.recovery.notes] == ["restarted the generator"] * 3 + [
        "goes on without the generator"
    ]
    assert "100% of the newest images are of one class" in run.recovery.notes[-1]
    generator = run.synthesizer.generator  # type: ignore[attr-defined]
    state = copy.deepcopy(generator.state_dict())
    outcome = run.run()
    assert outcome.steps == 10 and len(outcome.pool) >= 400
    assert run.synthesizer.generator is generator  # type: ignore[attr-defined]
    weights = {name for name, _ in generator.named_parameters()}
    assert all(torch.equal(value, state[name]) for name, value in generator.state_dict().items() if name in weights)


def test_health_is_patient_with_swings() -> None:
    monitor = HealthMonitor()
    noise = torch.randn(2100, 3)
    collapsed, healthy = torch.eye(3)[[0] * 2100] * 9 + noise, torch.eye(3)[[0, 1, 2] * 700] * 9 + noise

    def see(logits: torch.Tensor, loss: float = 1.0):
        monitor.watch(logits)  # fills the window
        return monitor.check(loss)

    assert see(collapsed) is None
    assert see(healthy) is None
    assert see(collapsed) is None
    assert see(collapsed) is None
    assert see(collapsed).kind == "collapse"
    assert see(healthy, math.nan).kind == "nan"
    assert see(healthy, 5e3) is None
    assert see(healthy, 5e4).kind == "divergence"


def test_a_loss_is_judged_by_the_size_of_logits_where_no_generator_makes_images() -> None:
    monitor = HealthMonitor()
    monitor.watch(torch.zeros(0, 3), 9 * torch.eye(3))
    assert monitor.check(5e3) is None
    symptom = monitor.check(5e4)
    assert symptom is not None and symptom.kind == "divergence"


def test_sameness_and_lost_classes_are_seen_late_and_are_not_grave() -> None:
    alike = torch.eye(4)[[0, 1, 2, 3] * 550] * 9
    lacking = torch.eye(4)[[0, 1, 2, 0] * 550] * 9 + torch.randn(2200, 4)
    for logits, kind, patience, words in ((alike, "sameness", 5, "all alike"), (lacking, "lost classes", 40, "1 of 4")):
        monitor = HealthMonitor()
        found = []
        for _ in range(patience):
            monitor.watch(logits)
            found.append(monitor.check(1.0))
        assert found[:-1] == [None] * (patience - 1)
        assert found[-1] is not None and found[-1].kind == kind
        assert words in found[-1].text
        assert not found[-1].is_fatal


def test_labels_that_are_alike_are_no_symptom() -> None:
    monitor = HealthMonitor(labels_only=True)
    for _ in range(10):
        monitor.watch(torch.eye(4)[[0, 1, 2, 3] * 550] * 9)
        assert monitor.check(1.0) is None


def test_what_is_not_grave_never_ends_a_run(tiny_onnx: Path) -> None:
    run, alike = distiller(tiny_onnx, steps=10), torch.eye(3)[[0, 1, 2] * 700] * 9
    for _ in range(30):
        run.recovery.watch(alike, alike)
        run.recovery.check(0, 0.1)
    assert len(run.recovery.notes) == 3
    assert "all alike" in run.recovery.notes[0]


@pytest.mark.parametrize("slow_part", ["nothing", "student", "images"])
def test_time_budgets_are_kept_within_a_twentieth(tiny_onnx: Path, slow_part: str) -> None:
    run = distiller(tiny_onnx, steps=1)
    run.budget = Budget(seconds=4.0)
    if slow_part == "images":  # a step of 0.9 s: where it does not fit, the student learns on
        step = run.synthesizer.step
        run.synthesizer.step = lambda *a: (time.sleep(0.9), step(*a))[1]  # type: ignore[method-assign]
    if slow_part == "student":  # 400 student steps in one go: broken off in the middle
        recipe = dataclasses.replace(run.synthesizer.recipe, student_steps=100_000)
        run.synthesizer.recipe = recipe
    outcome = run.run()
    assert 3.8 <= outcome.seconds <= 4.2


class StoppedClock(Clock):
    """Shows what it is set to."""

    now = 0.0

    @property
    def elapsed(self) -> float:
        return self.now


def test_asking_the_probes_takes_a_fiftieth_of_the_time_and_is_left_time_at_the_end() -> None:
    clock, asked = StoppedClock(Budget(seconds=1000.0)), []

    def agreement() -> AgreementReport:
        asked.append(clock.now)
        clock.now += 4
        return AgreementReport({}, 0.5, 0.5)

    reporter = Reporter(clock, lambda progress: None, agreement)
    while not clock.is_over:
        clock.now += 2
        reporter.report({}, torch.tensor(0.1), RunState(1, 0.5, 0))
    assert asked == [6, 206, 406, 606, 806]
    assert clock.now == 996
    assert clock.fraction(0) == 1
    assert not clock.overruns(30)
    assert clock.overruns(40)
    clock.leave(300)
    clock.now = 949
    assert not clock.is_over
    clock.now = 950
    assert clock.is_over


def test_writing_checkpoints_takes_a_small_part_of_the_time() -> None:
    clock = StoppedClock(Budget(steps=1))
    reporter, saved = Reporter(clock, lambda progress: None, lambda: AgreementReport({}, 0, 0)), []
    while clock.now < 1000:
        clock.now += 1
        if reporter.must_save:
            saved.append(clock.now)
            clock.now += 0.1 if len(saved) < 3 else 6  # the pool has grown
            reporter.saved(saved[-1])
    assert [round(at) for at in saved] == [30, 60, 90, 290, 490, 690, 890]


@pytest.mark.parametrize(("macs", "rows"), [(40_000_000, 1000), (400_000_000, 500), (4_000_000_000, 200)])
def test_probe_sets_are_smaller_where_the_teacher_is_slow(tiny_onnx: Path, macs: int, rows: int) -> None:
    run = distiller(tiny_onnx, steps=1)
    run.teacher.spec = dataclasses.replace(run.teacher.spec, macs=macs)
    sets = ProbeSets(UNIT)
    ProbePlan(sets, run.teacher, run.synthesizer).begin()
    assert len(sets.classes("priors")) == rows


def test_published_dafl_runs_in_the_same_engine(tiny_onnx: Path) -> None:
    teacher = load_onnx_teacher(tiny_onnx, TeacherOptions(mean=(0.5,), std=(0.25,)))
    name, synthesizer = make_synthesizer("dafl", teacher)
    student = build_student("lenet5", (1, 16, 16), 3)
    outcome = Distiller(teacher, student, synthesizer, budget=Budget(steps=2)).run()
    assert (name, outcome.steps) == ("dafl", 2)
    assert outcome.student is student.module


def test_auto_takes_the_most_that_a_teacher_allows(tiny_onnx: Path, bn_onnx: Path) -> None:
    assert make_synthesizer("auto", load_onnx_teacher(tiny_onnx))[0] == "adversarial"
    small = load_onnx_teacher(bn_onnx)
    name, synthesizer = make_synthesizer("auto", small)
    assert (name, small.spec.batch_norms) == ("adversarial", 2)
    assert isinstance(synthesizer, AdversarialSynthesizer)
    assert (synthesizer.settings.batch_norm, synthesizer.settings.every) == (10.0, 1)
    large = dataclasses.replace(small.spec, macs=50_000_000)
    assert choose_method(large, gradient=True) == "fast"
    colour = dataclasses.replace(large, input_shape=(3, 16, 16), batch_norms=0)
    assert choose_method(colour, gradient=True, inherited=True) == "procedural"
    assert choose_method(small.spec, gradient=True, inherited=True) == "adversarial"  # grey
    assert choose_method(dataclasses.replace(large, batch_norms=0), gradient=True) == "adversarial"
    assert choose_method(large, gradient=False) == "blackbox"


def test_the_pool_keeps_the_newest_and_their_answers() -> None:
    pool = Pool(10, (1, 2, 2), 3, UNIT)
    for value in range(4):
        pool.add(torch.full((4, 1, 2, 2), value / 10), torch.full((4, 3), float(value)))
    assert (len(pool), pool.added) == (10, 16)
    images, logits = pool.draw(200)
    # Rounded to pixels, each image still carries its own answer.
    torch.testing.assert_close(images[:, 0, 0, 0], logits[:, 0] / 10, atol=0.51 / 255, rtol=0)
    assert set(logits[:, 0].tolist()) == {1.0, 2.0, 3.0}
    assert pool.recent(4)[:, 0].tolist() == [3.0] * 4
    newest = pool.draw(100, newest=4)[1][:50, 0]
    assert set(newest.tolist()) == {3.0}


def test_pool_and_probes_survive_a_checkpoint(tmp_path: Path) -> None:
    pool, probes = Pool(10, (1, 2, 2), 3, UNIT), ProbeSets(UNIT)
    pool.add(torch.rand(7, 1, 2, 2), torch.rand(7, 3))
    probes.add("priors", torch.rand(5, 1, 2, 2), lambda x: x.flatten(1))
    save_checkpoint(tmp_path / "c.pt", {"pool": pool.state_dict(), "probes": probes.state_dict()})
    state = load_checkpoint(tmp_path / "c.pt")
    other, again = Pool(10, (1, 2, 2), 3, UNIT), ProbeSets(UNIT)
    other.load_state_dict(state["pool"])
    again.load_state_dict(state["probes"])
    assert torch.equal(other.pixels(), pool.pixels())
    assert torch.equal(again.classes("priors"), probes.classes("priors"))
    assert again.agreement(lambda x: x.flatten(1)).generated == 1.0


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="damaged"):
        load_checkpoint(tmp_path / "bad.pt")


def test_the_picture_has_a_row_per_class() -> None:
    pixels = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    logits = torch.eye(4).repeat(15, 1) * 5
    picture = class_sheet(pixels, logits, columns=5)
    cells_wide, cells_high = 5 * 10 + 2, 4 * 10 + 2
    assert picture.width / picture.height == pytest.approx(cells_wide / cells_high, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 64), (2, 33, 47), (3, 224, 224)])
def test_the_generator_makes_any_size_within_the_range(shape: tuple[int, int, int]) -> None:
    from edgedafl.distill.synthesizers.generators.slim import SlimGenerator
    from edgedafl.distill.synthesizers.generators.tone import tone_of

    preprocess = Preprocess.from_range(-1, 1, shape[0])
    images = SlimGenerator(shape, preprocess, tone_of(preprocess), channels=8)(torch.randn(4, 64))
    assert images.shape == (4, *shape)
    assert float(images.min()) >= -1 and float(images.max()) <= 1
    assert float(images.std()) > 0.1


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.batch = 3  # type: ignore[misc]


def test_a_used_up_query_budget_ends_asking_and_not_learning(tiny_onnx: Path) -> None:
    run = distiller(tiny_onnx, steps=100)
    run.teacher.max_queries = 3000
    outcome = run.run()
    assert outcome.steps == 100
    assert 2900 < outcome.queries <= 3000
    assert outcome.agreement.generated > 0.6


def test_a_checkpoint_holds_what_a_pool_is_filled_with_not_its_capacity(tmp_path: Path) -> None:
    pool = Pool(4000, (3, 32, 32), 3, Preprocess.from_range(0, 1, 3))
    pool.add(torch.rand(10, 3, 32, 32), torch.rand(10, 3))
    save_checkpoint(tmp_path / "c.pt", {"pool": pool.state_dict()})
    assert (tmp_path / "c.pt").stat().st_size < 100_000  # 12 MB with all of its rows
    assert torch.equal(load_checkpoint(tmp_path / "c.pt")["pool"]["pixels"], pool.pixels())

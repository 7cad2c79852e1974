"""What changes on a GPU: the same tests run on the CPU, in both precisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgedafl.distill import METHODS, Budget, Distiller, DistributedContext, settings_of
from edgedafl.distill.synthesizers import Batch, FastSettings, FastSynthesizer
from edgedafl.distill.synthesizers.inner_step import InnerStep, Weights
from edgedafl.distill.training import compute
from edgedafl.distill.training.augment import Augmentation
from edgedafl.distill.training.compute import Compute
from edgedafl.distill.training.cuda_graph import CudaGraphStep
from edgedafl.distill.training.trainer import StudentTrainer
from edgedafl.students import HintLoss, build_student
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher, load_torch_teacher

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")],
)
SMALL: dict[str, dict[str, object]] = {
    "adversarial": {"channels": 8, "batch": 32, "priors": 32, "prior_trial": 20},
    "fast": {"channels": 8, "batch": 32, "latent": 16, "priors": 16, "prior_trial": 20},
    "inversion": {"batch": 16, "iterations": 6, "per_step": 2},
    "dafl": {"channels": 8, "batch": 32},
    "dfad": {"channels": 8, "batch": 32},
}


def plain_net() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 3))
    net(torch.rand(64, 1, 16, 16))
    return net.eval()


def plain_module() -> Teacher:
    """A teacher that is a PyTorch module, so that its own layers run in the precision asked for."""
    options = TeacherOptions(input_shape=(1, 16, 16), input_range=(0.0, 1.0))
    return load_torch_teacher("tests.distill.test_gpu:plain_net", options)


def distiller(
    path: Path | None, method: str, device: str, compute: Compute, checkpoint: Path | None = None
) -> Distiller:
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0))) if path else plain_module()
    torch.manual_seed(0)
    student = build_student("lenet5", (1, 16, 16), 3)
    _, default = settings_of(method, teacher)
    recipe = replace(default.recipe, student_steps=3, student_batch=16, begin=min(default.recipe.begin, 16))
    settings = replace(default, recipe=replace(recipe, pool=min(recipe.pool, 4000)), **SMALL[method])
    where = torch.device(device)
    synthesizer = METHODS[method].build(teacher, settings=settings, device=where)
    return Distiller(
        teacher, student, synthesizer, budget=Budget(steps=8), world=DistributedContext(device=where), compute=compute,
        checkpoint=checkpoint,
    )  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize("interface", ["onnx", "module"])
@pytest.mark.parametrize("method", SMALL)
def test_every_method_runs_in_either_precision(
    method: str, interface: str, low_precision: bool, device: str, bn_onnx: Path
) -> None:
    path = bn_onnx if interface == "onnx" else None
    outcome = distiller(path, method, device, Compute(device, low_precision)).run()
    assert outcome.steps == 8
    weights = outcome.student.state_dict().values()
    assert all(w.dtype == torch.float32 and w.device.type == device for w in weights if w.is_floating_point())
    assert all(bool(torch.isfinite(w).all()) for w in weights)
    assert outcome.pool.pixels().dtype == torch.uint8
    assert outcome.pool.pixels().device.type == device


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_checkpoint_goes_from_the_gpu_to_the_cpu(device: str, bn_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    distiller(bn_onnx, "adversarial", device, Compute.of(device), file).run()
    run = distiller(bn_onnx, "adversarial", "cpu", Compute.of("cpu"), file)
    run.budget = Budget(steps=10)
    outcome = run.run(resume=True)
    assert outcome.steps == 10
    assert all(bool(torch.isfinite(w).all()) for w in outcome.student.state_dict().values())


@pytest.mark.parametrize(
    ("capability", "macs", "pays", "low"), [
        ("avx512_bf16", 40_000_000, True, True), ("avx512_bf16", 400_000, True, False),
        ("amx_bf16", 40_000_000, True, True), ("avx512_f", 40_000_000, True, False),
        ("avx512_bf16", 40_000_000, False, False),
    ],
)  # fmt: skip
def test_cpus_use_bfloat16_where_it_is_faster_and_the_teacher_is_large(
    capability: str, macs: int, pays: bool, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    monkeypatch.setattr(compute, "_bfloat16_pays", lambda: pays)
    assert Compute.of("cpu", macs).low_precision is low
    assert not Compute.of("cpu", macs).compiled


def test_answers_are_float32_in_low_precision() -> None:
    """Losses see the statistics of a bfloat16 network with all digits, and so does the pool."""
    teacher, images = plain_module(), torch.rand(64, 1, 16, 16)
    exact = teacher(images, batch_norm=True)
    with Compute("cpu", low_precision=True).autocast():
        answer, scores = teacher(images, batch_norm=True), teacher.scores(images)
    assert {scores.dtype, answer.logits.dtype, *(s.mean.dtype for s in answer.batch_norm)} == {torch.float32}
    assert (scores - exact.logits).abs().max() < 0.02
    for found, wanted in zip(answer.batch_norm, exact.batch_norm, strict=True):
        assert (found.mean - wanted.mean).abs().max() < 5e-3


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_low_precision_follows_weights_that_change_between_two_calls(device: str) -> None:
    """A generator is fitted to a batch in several steps within one context."""
    layer, x = nn.Linear(4, 4, bias=False).to(device), torch.ones(2, 4, device=device)
    with Compute(device, low_precision=True).autocast():
        before = layer(x).detach()
        with torch.no_grad():
            layer.weight += 1
        torch.testing.assert_close(layer(x).float(), before.float() + 4, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("low_precision", [False, True])
def test_every_step_of_a_batch_sees_the_weights_that_the_one_before_has_left(low_precision: bool, device: str) -> None:
    inner = inner_step(plain_module().to(device), device, records=False)
    codes, classes = torch.randn(8, 16, device=device), torch.zeros(8, dtype=torch.int64, device=device)
    with Compute(device, low_precision).autocast():
        first = inner(codes, classes, None)
        with torch.no_grad():
            for parameter in inner.generator.parameters():
                parameter += 0.1
        assert (inner(codes, classes, None).images - first.images).abs().max() > 0.01


def inner_step(teacher: Teacher, device: str, *, records: bool) -> InnerStep:
    torch.manual_seed(0)
    synthesizer = FastSynthesizer(teacher, settings=replace(FastSettings(), channels=8, latent=16, priors=0))
    student = build_student("lenet5", (1, 16, 16), 3).module.to(device)
    weights = Weights(10.0, 0.9, 0.5, 1.0)
    return InnerStep(synthesizer.generator.to(device), teacher, student, weights, Augmentation(), records=records)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_recorded_inner_step_finds_what_one_that_is_not_finds() -> None:
    """Also after the generator, the student, the codes and the earlier moments have changed."""
    teacher = plain_module().to("cuda")
    eager, recorded = (inner_step(teacher, "cuda", records=r) for r in (False, True))
    classes, earlier = torch.randint(3, (8,), device="cuda"), torch.rand(32, device="cuda")
    for turn in range(4):
        codes, earlier = torch.randn(8, 16, device="cuda"), earlier + 0.1
        with Compute("cuda", low_precision=True).autocast():
            queries = teacher.queries
            mine = eager(codes, classes, earlier)
            theirs = recorded(codes, classes, earlier)
            assert teacher.queries == queries + 16
        for found, wanted in [(theirs.images, mine.images), (theirs.moments, mine.moments), (theirs.total, mine.total)]:
            torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
        torch.testing.assert_close(theirs.codes, mine.codes, rtol=0.05, atol=0.02)
        gradients = zip(eager.generator.parameters(), recorded.generator.parameters(), strict=True)
        for one, other in gradients:
            torch.testing.assert_close(other.grad, one.grad, rtol=0.05, atol=0.05)
        with torch.no_grad():
            for step in (eager, recorded):
                for parameter in [*step.generator.parameters(), *step._student.parameters()]:
                    parameter += 0.02 * (turn + 1)
    assert recorded._step._graph is not None  # type: ignore[attr-defined]


def learned(recorded: bool, student_name: str, path: Path, layers: bool) -> StudentTrainer:
    """A student after three steps on the GPU."""
    teacher = load_onnx_teacher(path, TeacherOptions(input_range=(0.0, 1.0))).to("cuda")
    torch.manual_seed(0)
    student = build_student(student_name, (1, 16, 16), 3)
    if layers:
        student = replace(student, layers=HintLoss(teacher.network(), student.module, (1, 16, 16)))
    default = FastSettings()
    recipe = replace(default.recipe, student_steps=3, student_batch=16, begin=1, begin_at=0.0, augment=False)
    synthesizer = FastSynthesizer(teacher, settings=replace(default, recipe=recipe), device="cuda")
    compute = Compute("cuda", recorded=recorded)
    trainer = StudentTrainer(
        student, teacher, synthesizer, DistributedContext(device=torch.device("cuda")), compute, 1 << 24
    )
    torch.manual_seed(1)
    trainer.pool.add(torch.rand(64, 1, 16, 16, device="cuda"), torch.randn(64, 3, device="cuda"))
    synthesizer.augmentation = Augmentation(2, True)
    torch.manual_seed(2)
    trainer.learn(Batch.nothing(teacher.spec, "cuda"), 0.5)
    return trainer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("layers", [False, True])
def test_a_recorded_student_learns_as_one_that_is_not(layers: bool, bn_onnx: Path) -> None:
    """The same images give the same weights and BatchNorm statistics, and the teacher's queries are counted."""
    step_by_step, recorded = (learned(r, "resnet8", bn_onnx, layers) for r in (False, True))
    assert isinstance(recorded._step_with_teacher, CudaGraphStep) and recorded._step_with_teacher._graph is not None
    # Beside its layers the teacher answers as many images as memory allows, and then all of them.
    rows = recorded._step.rows_asked(16, asks=True)
    assert recorded._teacher.queries == step_by_step._teacher.queries == 3 * rows
    mine, theirs = step_by_step.student.state_dict(), recorded.student.state_dict()
    start = build_student("resnet8", (1, 16, 16), 3).module.state_dict()
    for name, value in mine.items():
        if value.is_floating_point():
            torch.testing.assert_close(theirs[name], value, rtol=0.02, atol=0.02)
        else:
            assert int(theirs[name]) == int(value) == 3  # batches seen
    assert any(not torch.equal(value.cpu(), start[name]) for name, value in mine.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("fault", ["waits", "refuses"])
def test_what_cannot_be_recorded_runs_as_ever(fault: str) -> None:
    module = nn.Linear(4, 1).cuda()

    def step(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if fault == "waits":
            x = x * float(x.sum())
        elif torch.cuda.is_current_stream_capturing():
            torch.rand(1, device="cuda")
            raise RuntimeError("not now")
        module.zero_grad(set_to_none=True)
        loss = module(x).sum()
        loss.backward()
        return (loss.detach(),)

    recorded = CudaGraphStep(step, module)
    for _ in range(3):
        x = torch.rand(3, 4, device="cuda")  # random numbers are to be had after a failed recording
        (loss,) = recorded(x)
        wanted = x * x.sum() if fault == "waits" else x
        torch.testing.assert_close(loss, module(wanted).sum().detach())
        assert module.weight.grad is not None
        torch.testing.assert_close(module.weight.grad, wanted.sum(0, keepdim=True))
    assert recorded._graph is None


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_images_varied_one_by_one_are_their_own_shifted_and_mirrored(device: str) -> None:
    images = torch.rand(64, 3, 8, 10, device=device)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    windows = [padded[:, :, t : t + 8, x : x + 10] for t in range(5) for x in range(5)]
    candidates = torch.stack([*windows, *(w.flip(3) for w in windows)])
    varied = Augmentation(shift=2, mirror=True)._each(images)
    found = (candidates == varied).flatten(2).all(2)
    assert bool(found.any(0).all())
    assert len({int(row) for row in found.int().argmax(0)}) > 20  # not all alike
    images.requires_grad_()
    Augmentation(shift=2, mirror=True, border=(0.0, 0.5, 1.0))._each(images).sum().backward()
    assert images.grad is not None and float(images.grad.max()) == 1.0

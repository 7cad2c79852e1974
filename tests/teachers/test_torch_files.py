"""PyTorch models in one file: refused without trust, equal to their source with it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.teachers import OpaqueTeacher, TeacherOptions, load_teacher
from tests.conftest import TinyNet

SHAPE = (1, 16, 16)


def saved(form: str, folder: Path, *, batch: int | None = None) -> tuple[Path, torch.nn.Module]:
    module = TinyNet().eval()
    example = torch.rand(batch or 2, *SHAPE)
    path = folder / {"exported": "net.pt2", "script": "net.ts", "pickle": "net.pt"}[form]
    if form == "exported":
        shapes = None if batch else ({0: torch.export.Dim("n")},)
        torch.export.save(torch.export.export(module, (example,), dynamic_shapes=shapes), path)
    elif form == "script":
        torch.jit.trace(module, example).save(str(path))
    else:
        torch.save(module, path)
    return path, module


@pytest.mark.parametrize("form", ["exported", "script", "pickle"])
def test_whole_models_need_trust_and_then_answer_like_their_source(form: str, tmp_path: Path) -> None:
    path, module = saved(form, tmp_path)
    with pytest.raises(UsageError, match="can run code") as caught:
        load_teacher(str(path), TeacherOptions(input_shape=SHAPE))
    assert "--trust" in caught.value.hint and "torch.onnx.export" in caught.value.hint
    teacher = load_teacher(str(path), TeacherOptions(input_shape=SHAPE, trust=True, input_range=(0.0, 1.0)))
    x = torch.rand(5, *SHAPE)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(teacher(ours).logits, module(theirs), rtol=1e-5, atol=1e-6)
    teacher(ours).logits.sum().backward()
    module(theirs).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert teacher.spec.num_classes == 3


def test_an_exported_program_of_a_fixed_batch_takes_any(tmp_path: Path) -> None:
    path, module = saved("exported", tmp_path, batch=2)
    teacher = load_teacher(str(path), TeacherOptions(input_shape=SHAPE, trust=True, input_range=(0.0, 1.0)))
    x = torch.rand(5, *SHAPE)
    torch.testing.assert_close(teacher.scores(x), module(x).detach(), rtol=1e-5, atol=1e-6)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_pickle_bomb_is_refused_without_running(container: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "bomb.pt"
    if container == "torch":
        torch.save(Bomb(marker), path)
    else:
        path.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(UsageError, match="can run code"):
        load_teacher(str(path), TeacherOptions(input_shape=SHAPE))
    assert not marker.exists()


def test_bare_weights_are_recognised(tmp_path: Path) -> None:
    torch.save(TinyNet().state_dict(), tmp_path / "w.pt")
    with pytest.raises(UnsupportedModelError, match="weights without the model") as caught:
        load_teacher(str(tmp_path / "w.pt"), TeacherOptions(input_shape=SHAPE, trust=True))
    assert "--weights w.pt" in caught.value.hint


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(b"\x80\x05garbage")
    with pytest.raises(UnsupportedModelError, match="not a readable PyTorch file"):
        load_teacher(str(tmp_path / "bad.pt"), TeacherOptions(input_shape=SHAPE, trust=True))
    with pytest.raises(UsageError, match="does not exist"):
        load_teacher(str(tmp_path / "none.pt2"), TeacherOptions(input_shape=SHAPE))
    path, _ = saved("script", tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises((UnsupportedModelError, UsageError)):
        load_teacher(str(path), TeacherOptions(input_shape=SHAPE, trust=True))


def test_training_mode_exports_are_refused(tmp_path: Path) -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(784, 3)
    )
    program = torch.export.export(module.train(), (torch.rand(4, *SHAPE),))
    torch.export.save(program, tmp_path / "train.pt2")
    with pytest.raises(UnsupportedModelError, match="training mode"):
        load_teacher(str(tmp_path / "train.pt2"), TeacherOptions(input_shape=SHAPE, trust=True))


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_a_module_can_be_treated_as_a_black_box(access: str) -> None:
    options = TeacherOptions(input_shape=SHAPE, access=access, input_range=(0.0, 1.0))
    teacher = load_teacher("tests.conftest:TinyNet", options)
    assert isinstance(teacher, OpaqueTeacher)
    assert teacher.spec.access == access
    logits = teacher.scores(torch.rand(4, *SHAPE))
    assert logits.shape == (4, 3)
    if access == "labels":
        assert sorted(set(torch.softmax(logits, 1).flatten().tolist()))[-1] == pytest.approx(0.9, abs=1e-4)

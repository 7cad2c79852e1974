"""Teachers from a Python factory."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_teacher

FACTORY = "tests.conftest:TinyNet"
SHAPE = (1, 16, 16)


def weights(tmp_path: Path, kind: str) -> Path:
    from tests.conftest import TinyNet

    state = TinyNet().state_dict()
    if kind == "safetensors":
        save_file(state, path := tmp_path / "w.safetensors")
    elif kind == "data-parallel":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path := tmp_path / "w.th")
    else:
        torch.save(state, path := tmp_path / "w.pt")
    return path


@pytest.mark.parametrize("kind", ["state-dict", "safetensors", "data-parallel"])
def test_weights_are_loaded_in_every_plain_form(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(5)
    teacher = load_teacher(FACTORY, TeacherOptions(input_shape=SHAPE, weights=weights(tmp_path, kind)))
    assert teacher.spec.num_classes == 3
    x = torch.rand(2, *SHAPE, requires_grad=True)
    answer = teacher(x)
    answer.logits.sum().backward()
    assert answer.features.shape == (2, 128)
    assert x.grad.abs().max() > 0


def test_batch_norm_statistics_are_read(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from edgedafl.students import build_student\n"
        "def make():\n    return build_student('resnet8:0.5', (3, 32, 32), 4).module\n"
    )
    import sys

    sys.path.insert(0, str(tmp_path))
    teacher = load_teacher("net:make", TeacherOptions(input_shape=(3, 32, 32)))
    x = torch.rand(4, 3, 32, 32)
    statistics = teacher.batch_norm_statistics(x)
    assert len(statistics) == teacher.spec.batch_norms == 9
    module = build_student("resnet8:0.5", (3, 32, 32), 4).module
    assert statistics[0].mean.shape == module.stem[1].running_mean.shape


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (__import__, ("this_would_have_run_code",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UnsupportedModelError, match="run code"):
        load_teacher(FACTORY, TeacherOptions(input_shape=SHAPE, weights=path))


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UnsupportedModelError, match="does not fit"):
        load_teacher(FACTORY, TeacherOptions(input_shape=SHAPE, weights=path))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("no.such.module:f", "cannot be imported"),
        ("tests.conftest:nothing", "cannot be imported"),
        ("tests.conftest:edgedafl_none", "cannot be imported"),
    ],
)
def test_a_missing_factory_is_a_usage_error(source: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load_teacher(source, TeacherOptions(input_shape=SHAPE))


def test_the_image_size_must_be_given() -> None:
    with pytest.raises(UsageError) as caught:
        load_teacher(FACTORY)
    assert "--input-shape" in caught.value.hint


class Labels(nn.Module):
    """What some wrappers answer: the class, in a column of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :5].argmax(1, keepdim=True)


def test_labels_instead_of_scores_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="whole numbers") as caught:
        load_teacher(f"{__name__}:Labels", TeacherOptions(input_shape=(1, 16, 16)))
    assert "arg-max" in caught.value.hint

"""Tasks: one form of logits for single-label, binary and multi-label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgedafl.distill.training.losses import (
    balanced_classes,
    distillation_loss,
    information_entropy_loss,
    one_hot_loss,
)
from edgedafl.distill.training.sampling import SamplingWeights
from edgedafl.errors import UsageError
from edgedafl.evaluate import accuracy
from edgedafl.files.labelled_arrays import LabelledData, read_labelled
from edgedafl.preprocess import Preprocess
from edgedafl.tasks import agreement, predictions, states


def test_a_sigmoid_is_a_softmax_over_off_and_on() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    share = torch.softmax(states(logits, "multi-label"), -1)
    torch.testing.assert_close(share[..., 1], torch.sigmoid(logits))
    assert states(logits, "single-label") is logits


def test_predictions_and_agreement() -> None:
    assert predictions(np.array([[1.0, 3.0]]), "single-label").tolist() == [1]
    first = predictions(np.array([[1.0, -3.0], [2.0, 2.0]]), "multi-label")
    assert first.tolist() == [[1, 0], [1, 1]]
    assert agreement(first, np.array([[1, 0], [0, 1]])) == 0.75


def test_binary_losses_are_those_of_a_sigmoid() -> None:
    teacher, student = torch.randn(6, 1), torch.randn(6, 1)
    p, q = torch.sigmoid(teacher / 2), torch.sigmoid(student / 2)
    expected = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    found = distillation_loss(states(student, "binary"), states(teacher, "binary"), 2.0)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    even = states(torch.zeros(4, 1), "binary")
    assert float(information_entropy_loss(even)) == pytest.approx(-math.log10(2), abs=1e-5)
    sure = states(torch.full((4, 1), 9.0), "binary")
    assert float(information_entropy_loss(sure)) == pytest.approx(0, abs=1e-3)
    assert float(one_hot_loss(sure)) == pytest.approx(math.log1p(math.exp(-9)), rel=1e-3)


def test_every_label_is_aimed_at_on_and_off() -> None:
    logits = torch.randn(100, 3) + torch.tensor([4.0, 0.0, -4.0])
    chosen = balanced_classes(states(logits, "multi-label"))
    assert chosen.shape == (100, 3)
    assert ((chosen.float().mean(0) > 0.2) & (chosen.float().mean(0) < 0.8)).all()


def test_rare_and_sure_images_are_worth_more() -> None:
    logits = torch.cat([torch.tensor([[50.0, 0]]).repeat(90, 1), torch.tensor([[0, 50.0]]).repeat(10, 1)])
    worth = SamplingWeights("single-label")
    worth.fit(logits)
    weights = worth.of(logits)
    assert float(weights[95] / weights[0]) == pytest.approx(9, rel=1e-3)
    unsure, sure = worth.of(torch.tensor([[0.0, 0.4], [0.0, 9.0]])).tolist()
    assert sure > 3 * unsure
    labels = SamplingWeights("multi-label").of(torch.randn(7, 4))
    assert labels.shape == (7,) and bool((labels > 0).all())


def test_accuracy_of_several_labels(tmp_path) -> None:
    images = np.zeros((2, 1, 4, 4), np.uint8)
    data = LabelledData(images, np.array([[1, 0], [1, 1]]))
    scores = np.array([[3.0, -1.0], [-2.0, 5.0]], np.float32)
    unit = Preprocess.from_range(0, 1, 1)
    assert accuracy(data, unit, lambda x: scores, task="multi-label") == 0.75
    np.savez(tmp_path / "bad.npz", images=images, labels=np.array([[1, 2], [0, 0]]))
    with pytest.raises(UsageError, match="do not fit"):
        read_labelled(tmp_path / "bad.npz", (1, 4, 4), 2, task="multi-label")

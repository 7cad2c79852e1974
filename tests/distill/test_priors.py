"""Procedural images, and how their families are chosen."""

from __future__ import annotations

import math

import pytest
import torch

from edgedafl.distill.synthesizers.priors import FAMILIES, PriorMixture, collages, information, noise_fields, pen_lines


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 48, 64), (2, 33, 47)])
def test_families_are_varied_in_range_and_repeatable(name: str, shape: tuple[int, int, int]) -> None:
    images = FAMILIES[name](40, shape, torch.Generator().manual_seed(0))
    assert images.shape == (40, *shape)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert float(images.std((1, 2, 3)).mean()) > 0.03
    assert torch.equal(images, FAMILIES[name](40, shape, torch.Generator().manual_seed(0)))
    assert FAMILIES[name](0, shape, torch.Generator()).shape == (0, *shape)


def test_lines_are_bright_on_black_at_every_size() -> None:
    for size in ((28, 28), (224, 160)):
        ink = pen_lines(50, size, torch.Generator().manual_seed(0))
        assert ink.shape == (50, 1, *size)
        assert 0.05 < float(ink.mean()) < 0.35
        assert float((ink > 0.9).flatten(1).any(1).float().mean()) > 0.5


def test_information_is_that_between_image_and_class() -> None:
    clear = torch.eye(4).repeat(5, 1) * 50
    assert information(clear) == pytest.approx(math.log(4), rel=1e-4)
    assert information(torch.zeros(9, 4)) == pytest.approx(0, abs=1e-6)
    assert information(torch.tensor([[50.0, 0, 0]]).repeat(9, 1)) == pytest.approx(0, abs=1e-6)


def test_the_family_that_tells_most_is_drawn_most() -> None:
    def teacher(unit: torch.Tensor) -> torch.Tensor:
        """Sees classes only in images that are mostly black, as a digit classifier does."""
        dark = (unit < 0.1).float().mean((1, 2, 3)) > 0.5
        classes = (unit.sum((1, 2, 3)) * 3).long() % 4
        logits = torch.zeros(len(unit), 4)
        logits[torch.arange(len(unit)), classes] = dark.float() * 20
        return logits

    mixture = PriorMixture((1, 28, 28), seed=0)
    found = mixture.tune(teacher, 100)
    assert max(found, key=found.__getitem__) in ("dark strokes", "silhouettes")
    assert mixture.shares["dark strokes"] > 5 * mixture.shares["light strokes"]
    assert sum(mixture.shares.values()) == pytest.approx(1)
    assert min(mixture.shares.values()) >= 0.019
    again = PriorMixture((1, 28, 28), seed=5)
    again.load_state_dict(mixture.state_dict())
    assert torch.equal(again.draw(20), mixture.draw(20))


def test_fields_and_collages_have_structure_and_colour() -> None:
    fields, cut = (f(100, (3, 32, 32), torch.Generator().manual_seed(0)) for f in (noise_fields, collages))
    for images in (fields, cut):
        assert float(images.mean((2, 3)).std(0).min()) > 0.05
        assert float((images[:, 0] - images[:, 1]).abs().mean()) > 0.02

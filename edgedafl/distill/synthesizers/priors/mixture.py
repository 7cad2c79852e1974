"""A mixture of image families that sets its own shares by asking the teacher.

Which procedural images are worth a teacher's answer depends on what it was trained on. A family is
worth much when the teacher sees many different classes in it and is sure of each: the mutual
information between image and class, H(mean p) - mean H(p). No label and no image of the user's is
needed for that.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgedafl.distill.synthesizers.priors.fields import collages, noise_fields
from edgedafl.distill.synthesizers.priors.figures import composites, profiles
from edgedafl.distill.synthesizers.priors.leaves import dead_leaves, spectra
from edgedafl.distill.synthesizers.priors.strokes import pen_lines

__all__ = ["FAMILIES", "NATURAL", "PICTURES", "Family", "PriorMixture", "information"]

Family = Callable[[int, tuple[int, int, int], torch.Generator], Tensor]

# No family is left out: the trial is small, and variety helps. The best get most.
_LEAST = 0.02
_SHARPNESS = 3.0
_PICTURES = 0.6
NATURAL = {"leaves": 2 / 3, "spectra": 1 / 3}
"""Shares of the families with the statistics of photographs, among themselves."""


def _dark_strokes(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Bright lines on black."""
    return pen_lines(count, shape[1:], generator).expand(count, *shape).clone()


def _light_strokes(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Dark lines on white."""
    return 1 - _dark_strokes(count, shape, generator)


def _outlined(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Coloured lines over a field."""
    ground = noise_fields(count, shape, generator) * torch.rand(count, 1, 1, 1, generator=generator)
    colour = torch.rand(count, shape[0], 1, 1, generator=generator)
    ink = pen_lines(count, shape[1:], generator)
    return ink * colour + (1 - ink) * ground


def _silhouettes(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """One textured figure on black."""
    outline = noise_fields(count, (1, *shape[1:]), generator)
    rows = torch.linspace(-1, 1, shape[1]).reshape(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, shape[2]).reshape(1, 1, 1, -1)
    spread = 0.4 + 0.6 * torch.rand(2, count, 1, 1, 1, generator=generator)
    hill = 1 - (rows / spread[0]).abs() ** 3 - (columns / spread[1]).abs() ** 3
    mask = torch.sigmoid(12 * (hill + outline - 0.7))
    brightness = 0.3 + 0.7 * torch.rand(count, 1, 1, 1, generator=generator)
    texture = 1 - 0.8 * torch.rand(count, 1, 1, 1, generator=generator) * noise_fields(count, shape, generator)
    return mask * brightness * texture


FAMILIES: dict[str, Family] = {
    "fields": noise_fields,
    "collages": collages,
    "dark strokes": _dark_strokes,
    "light strokes": _light_strokes,
    "outlined": _outlined,
    "silhouettes": _silhouettes,
    "profiles": profiles,
    "composites": composites,
    "leaves": dead_leaves,
    "spectra": spectra,
}


PICTURES = "pictures"
"""Name of the family of the user's own pictures."""

_MOST_AT_ONCE = 64


def information(logits: Tensor) -> float:
    """Mutual information in nats between image and class, from logits (N, ..., K).

    Examples:
        >>> round(information(20 * torch.eye(10)), 3), information(torch.zeros(10, 10))  # ln 10, and nothing
        (2.303, 0.0)
    """
    share = torch.softmax(logits, -1)
    mean = share.mean(0)
    whole = -(mean * mean.clamp_min(1e-12).log()).sum(-1).mean()
    each = -(share * share.clamp_min(1e-12).log()).sum(-1).mean()
    return max(0.0, float(whole - each))


class PriorMixture:
    """Draws procedural images of every family in set shares.

    Args:
        input_shape: (C, H, W).
        seed: Of all images.
        shares: By family; equal when None.
        pictures: Draws the user's own pictures: a family beside the procedural ones.

    Examples:
        >>> mixture = PriorMixture((3, 32, 32), seed=0)
        >>> mixture.draw(5).shape, round(sum(mixture.shares.values()), 6)
        (torch.Size([5, 3, 32, 32]), 1.0)
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        seed: int,
        shares: dict[str, float] | None = None,
        pictures: Family | None = None,
    ) -> None:
        self.input_shape = input_shape
        self._families = dict(FAMILIES) if pictures is None else {**FAMILIES, PICTURES: pictures}
        self.shares = shares or dict.fromkeys(self._families, 1 / len(self._families))
        self._generator = torch.Generator().manual_seed(seed)

    def with_natural(self, share: float) -> PriorMixture:
        """A mixture of which a share has the statistics of photographs; it draws other images than this one.

        Args:
            share: In [0, 1].
        """
        shares = {name: own * (1 - share) for name, own in self.shares.items()}
        for name, own in NATURAL.items():
            shares[name] = shares.get(name, 0.0) + share * own
        seed = int(torch.randint(2**31, (), generator=self._generator))
        return PriorMixture(self.input_shape, seed=seed, shares=shares, pictures=self._families.get(PICTURES))

    def draw(self, count: int) -> Tensor:
        """Images (count, C, H, W) in [0, 1], families in random order."""
        if not count:
            return torch.zeros(0, *self.input_shape)
        order = torch.multinomial(
            torch.tensor(list(self.shares.values())), count, replacement=True, generator=self._generator
        )
        images = torch.empty(count, *self.input_shape)
        for index, name in enumerate(self.shares):
            for rows in (order == index).nonzero()[:, 0].split(_MOST_AT_ONCE):
                if len(rows):
                    images[rows] = self._families[name](len(rows), self.input_shape, self._generator)
        return images

    def family(self, name: str, count: int) -> Tensor:
        """Images of one family (count, C, H, W) in [0, 1]."""
        images = torch.empty(count, *self.input_shape)
        for part in images.split(_MOST_AT_ONCE):
            if len(part):
                part.copy_(self._families[name](len(part), self.input_shape, self._generator))
        return images

    def tune(self, logits_of: Callable[[Tensor], Tensor], rows: int) -> dict[str, float]:
        """Set the shares by each family's information; returns it in nats by family.

        Args:
            logits_of: Pixels (N,C,H,W) in [0, 1] to the teacher's logits (N, ..., K), see `tasks.states`.
            rows: Images per family; at least a few per class make the estimate fair.
        """
        found = {name: information(logits_of(self.family(name, rows))) for name in self.shares}
        weights = {name: value**_SHARPNESS for name, value in found.items()}
        total = sum(weights.values())
        if total > 0:
            rest = 1 - _LEAST * len(weights)
            self.shares = {name: _LEAST + rest * weight / total for name, weight in weights.items()}
        if PICTURES in self.shares:  # what real pictures tell no trial can show: they get half at least
            own = max(_PICTURES, self.shares[PICTURES])
            others = 1 - self.shares[PICTURES]
            self.shares = {name: share * (1 - own) / others for name, share in self.shares.items()} | {PICTURES: own}
        return found

    def state_dict(self) -> dict[str, object]:
        """Everything needed to go on later."""
        return {"shares": dict(self.shares), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Inverse of `state_dict`."""
        shares, generator = state["shares"], state["generator"]
        assert isinstance(shares, dict) and isinstance(generator, Tensor)
        self.shares = {str(name): float(share) for name, share in shares.items()}
        self._generator.set_state(generator)

"""Teachers that only answer: no gradient, no features.

Images are rounded to pixels before they are asked about, so that the same picture always has the
same bytes; each is asked about once and its answer kept.
"""

from __future__ import annotations

import abc
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgedafl.errors import UnsupportedModelError
from edgedafl.tasks import Access
from edgedafl.teachers.base import Teacher, TeacherOutput, TeacherSpec
from edgedafl.teachers.decode import as_labels, to_logits

__all__ = ["ForwardTeacher", "OpaqueTeacher"]

_KEY_BYTES = 16
_AT_ONCE = 1024


class ForwardTeacher(Teacher):
    """A teacher behind an interface that takes images and gives scores or labels.

    Args:
        spec: What is known of it; `access` is `scores` or `labels`.
        max_queries: Most rows it may ever be asked about; None for no limit.
    """

    def __init__(self, spec: TeacherSpec, *, max_queries: int | None = None) -> None:
        super().__init__(spec, max_queries=max_queries)
        self._answers: dict[bytes, np.ndarray] = {}
        self._device = torch.device("cpu")

    @property
    def _at_once(self) -> int:
        """Most images of one request."""
        return _AT_ONCE

    @abc.abstractmethod
    def _forward(self, images: np.ndarray) -> np.ndarray:
        """Raw answers to images (N,C,H,W) in model space, float32: (N, K) or labels (N,)."""

    def to(self, device: torch.device | str) -> ForwardTeacher:
        """Answers will lie on this device; the teacher itself stays where it is."""
        self._device = torch.device(device)
        return self

    def _answer(self, images: Tensor, *, batch_norm: bool) -> TeacherOutput:
        raise UnsupportedModelError(
            f"{self.spec.source} gives {self.spec.access} only; gradients and features need gradient access.",
            "Use --method blackbox, or zeroth-order.",
        )

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N,C,H,W); only rows never seen before are asked and counted."""
        pixels = self.spec.preprocess.to_pixels(images).cpu()
        keys = [hashlib.blake2b(row.tobytes(), digest_size=_KEY_BYTES).digest() for row in pixels.numpy()]
        new = {key: row for row, key in enumerate(keys) if key not in self._answers}
        self._check_budget(len(new))
        fresh, size = list(new.items()), self._at_once
        # Answers are kept piece by piece: what a server has answered before it fails is not lost.
        for start in range(0, len(fresh), size):
            piece = fresh[start : start + size]
            exact = self.spec.preprocess.from_pixels(pixels[[row for _, row in piece]]).numpy()
            logits = self._logits(self._forward(exact))
            self.queries += len(piece)
            self._answers.update(zip((key for key, _ in piece), logits, strict=True))
        return torch.from_numpy(np.stack([self._answers[key] for key in keys])).to(self._device)

    def _logits(self, answers: np.ndarray) -> np.ndarray:
        spec = self.spec
        logits = to_logits(answers, spec.output, spec.task, spec.num_classes)
        return as_labels(logits, spec.task) if spec.access == "labels" else logits

    def state_dict(self) -> dict[str, Any]:
        """Every answer so far: a resumed run asks nothing twice."""
        if not self._answers:
            return {}
        keys = np.frombuffer(b"".join(self._answers), np.uint8).reshape(-1, _KEY_BYTES)
        return {"keys": torch.from_numpy(keys.copy()), "answers": torch.from_numpy(np.stack([*self._answers.values()]))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        if state:
            keys, answers = state["keys"].numpy(), state["answers"].numpy()
            self._answers |= {key.tobytes(): answer for key, answer in zip(keys, answers, strict=True)}


class OpaqueTeacher(ForwardTeacher):
    """Any teacher of this process, of which only the answers may be used."""

    def __init__(self, inner: Teacher, access: Access, *, max_queries: int | None = None) -> None:
        spec = replace(inner.spec, access=access, output="logits", has_features=False, batch_norms=0)
        super().__init__(spec, max_queries=max_queries)
        self._inner = inner

    def _forward(self, images: np.ndarray) -> np.ndarray:
        return self._inner.scores(torch.from_numpy(images)).cpu().numpy()

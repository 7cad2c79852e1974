"""A first look at a teacher, before an hour is spent on it."""

from __future__ import annotations

import torch

from edgedafl.distill.synthesizers.priors import noise_fields
from edgedafl.distill.training.budget import rows_within_budget
from edgedafl.distill.training.losses import entropy_share
from edgedafl.errors import UsageError
from edgedafl.runs import Preflight
from edgedafl.tasks import states
from edgedafl.teachers.base import Teacher

__all__ = ["check_teacher"]

_ROWS = (24, 400)
_UNKNOWN_ROWS = 96  # of a teacher whose arithmetic is not known: a server may take a tenth of a second for each
_EFFORT = 8e9  # multiply-accumulates: a second or two on a few cores
_CHUNK = 24
# Under a query limit the look takes at most 1/100 of it.
_SHARE = 100
# One class for more than this share of such varied images: suspicious.
_SUSPICIOUS = 0.97


def check_teacher(teacher: Teacher) -> Preflight:
    """Ask a teacher about varied procedural images.

    Raises:
        UsageError: If its answers do not depend on the image: the input range must be wrong.

    Examples:
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> check_teacher(teacher).classes_seen
        10
    """
    spec = teacher.spec
    most = _ROWS[1] if spec.macs else _UNKNOWN_ROWS
    rows = rows_within_budget(spec.macs, effort=_EFFORT, fewest=_ROWS[0], most=most)
    rows = rows if teacher.max_queries is None else max(2, min(rows, teacher.max_queries // _SHARE))
    unit = noise_fields(rows, spec.input_shape, torch.Generator().manual_seed(7))
    images = spec.preprocess.to_model(unit)
    logits = torch.cat([teacher.scores(x) for x in torch.split(images, _CHUNK)])
    origin = spec.preprocess.origin
    low, high = spec.preprocess.low[0], spec.preprocess.high[0]
    range_text = f"pixels as {low:.4g} to {high:.4g} ({origin})"
    advice = "Declare the range: --preprocess NAME, --input-range LOW,HIGH, or --input-mean and --input-std."
    spread = float(logits.std(0).max() / logits.abs().max().clamp_min(1e-12))
    if not bool(torch.isfinite(logits).all()) or spread < 1e-4:
        raise UsageError(f"The teacher gives the same answer to every image, fed {range_text}.", advice)
    scores = states(logits, spec.task)
    # Of several labels the first stands for all.
    classes = scores.argmax(-1).reshape(len(logits), -1)[:, 0]
    counts = torch.bincount(classes, minlength=scores.shape[-1]).float()
    share = float(counts.max() / counts.sum())
    confidence = float(torch.softmax(scores, -1).amax(-1).mean())
    warning = ""
    if share > _SUSPICIOUS:
        warning = (
            f"the teacher answers class {int(counts.argmax())} to {share:.0%} of varied test images, fed {range_text}. "
            "Either its other classes are rare: pictures of them help (--images). Or that range is wrong, and nothing "
            f"useful will be learned. {advice}"
            if spec.preprocess.is_guess
            else f"the teacher answers class {int(counts.argmax())} to {share:.0%} of varied test images. Its other "
            "classes hardly occur among synthetic images, so little is known of how well they are kept. Your own "
            f"pictures of them help: --images. (It is fed {range_text}.)"
        )
    elif spec.preprocess.is_guess:
        warning = (
            f"how the model takes pixels is not declared, and the model does not show it: {range_text}. "
            "A wrong range costs accuracy silently. "
            "Declare it: --preprocess imagenet, tf (-1 to 1), unit (0 to 1) or raw (0 to 255); "
            "labelled images decide as well (--eval)."
        )
    return Preflight(
        classes_seen=int((counts > 0).sum()),
        most_common=share,
        entropy=entropy_share(counts / counts.sum()),
        confidence=confidence,
        warning=warning,
    )

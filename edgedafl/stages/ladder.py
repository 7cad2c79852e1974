"""The ladder: ever smaller forms of one teacher, and the smallest that is predicted to be faithful enough.

It begins with the teacher itself in integers, so that nobody ends with less than quantizing gives. Below
that come widths chosen by what a weight costs, and, where a latency is asked for, smaller images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import onnx

from edgedafl.config import CompressConfig
from edgedafl.errors import UsageError
from edgedafl.export import student_to_onnx
from edgedafl.graph.edit import fix_batch, model_bytes
from edgedafl.graph.peak_memory import peak_memory
from edgedafl.latency import estimate_latency
from edgedafl.quantize import ROUNDING_IMAGES, integer_model, with_remainder
from edgedafl.runs import Band, Candidate
from edgedafl.stages.calibrations import calibration_of
from edgedafl.stages.fitting import fits, none_fits
from edgedafl.stages.graphs import for_target
from edgedafl.stages.students import BYTES_PER_WEIGHT, StudentBuilder
from edgedafl.stages.study import Study, resized
from edgedafl.stages.training_gain import after_training, student_steps
from edgedafl.students import KEPT, modest_share, module_layers
from edgedafl.targets import Target
from edgedafl.units import format_bytes

__all__ = ["Ladder", "build_ladder"]

_SHARES = (0.25, 0.35, 0.45, 0.6, 0.75, 0.85, 0.95, 1.0)
_SIDES = (0.86, 0.72, 0.58)  # 192, 160 and 128 of 224
_SMALLEST_SIDE = 96
_STEP_OF_SIDES = 16
# Where a candidate takes longer than this, only those are judged that the search for the smallest one needs.
_SLOW = 4.0
# Below this heads go. On synthetic images what is left looks better than it is: a transformer of 60 % of its
# weights was promised 99 % and kept 94.5.
_LEAST_OF_ATTENTION = 0.7
_DIGITS = 3  # of expected fidelities that count as the same


@dataclass(frozen=True)
class Ladder:
    """All candidates that were considered.

    Attributes:
        candidates: Smallest first.
        chosen: Place of the one to begin with; larger ones are for when it does not do.
    """

    candidates: tuple[Candidate, ...]
    chosen: int


class _Rungs:
    """Builds and judges candidates of one teacher.

    Args:
        build: Makes students; its teacher can be cut.
        study: Of the teacher.
        target: Of the artifact.
        precision: Of the artifact.
        config: Limits and time.
    """

    def __init__(
        self, build: StudentBuilder, study: Study, target: Target, precision: str, config: CompressConfig
    ) -> None:
        assert build.pruner is not None
        self._build, self._study, self._target, self._precision = build, study, target, precision
        self._config, self._pruner = config, build.pruner
        self._model = calibration_of(config.device, target)
        self._whole = build(f"{KEPT}:1")
        self._memory_share = BYTES_PER_WEIGHT[precision] / BYTES_PER_WEIGHT["fp32"]
        self._artifact = self._of_whole()
        self.slowest = 0.0

    def _memory_of(self, graph: onnx.ModelProto) -> int:
        return peak_memory(graph, architecture=self._target.architecture, runtime=self._target.runtime).peak

    def _of_whole(self) -> tuple[int, Band | None]:
        """Bytes and fidelity of the uncut teacher in the artifact's precision."""
        spec = self._study.teacher.spec
        model = student_to_onnx(self._whole.module, spec.input_shape)
        if self._precision != "int8":
            size = int(len(model_bytes(model)) * BYTES_PER_WEIGHT[self._precision] / BYTES_PER_WEIGHT["fp32"])
            return size, self._study.band(self._study.teacher.scores, whole=True)
        fixed, scheme = fix_batch(for_target(model, self._target), 1), self._target.scheme
        # Float16 beside integers is slow on CPUs: it counts for the size alone.
        plain = replace(scheme, remainder="float32")
        ranging, rounding = self._study.ranging_images, self._pruner.images[:ROUNDING_IMAGES]
        integer = integer_model(fixed, plain, ranging.numpy(), rounding.numpy())
        if self._config.max_ram is not None:  # kernels of integers need more than a quarter
            self._memory_share = self._memory_of(integer) / self._memory_of(fixed)
        return len(model_bytes(with_remainder(integer, scheme))), self._study.band_of_graph(integer, whole=True)

    def outline(self, name: str) -> Candidate:
        """A candidate's size and cost, without building it."""
        cut, _, side = name.partition("@")
        share = float(cut.partition(":")[2])
        place = self._pruner.widths(share)
        whole = self._pruner.path[0]
        channels = sum(place.counts) / max(1, sum(whole.counts))
        spec = self._study.teacher.spec
        shape = spec.input_shape if not side else self._smaller(side)
        area = (shape[1] * shape[2]) / (spec.input_shape[1] * spec.input_shape[2])
        bytes_each = BYTES_PER_WEIGHT[self._precision]
        overhead = max(0.0, self._artifact[0] - whole.parameters * bytes_each)
        size = int(place.parameters * bytes_each + overhead * channels)
        macs = int(self._whole.spec.macs * place.macs / max(whole.macs, 1) * area)
        return Candidate(name, place.parameters / whole.parameters, shape, int(place.parameters), macs, size, None)

    def _smaller(self, side: str) -> tuple[int, int, int]:
        channels, height, width = self._study.teacher.spec.input_shape
        return channels, int(side), round(int(side) * width / height)

    def with_costs(self, candidate: Candidate) -> Candidate:
        """With the latency and the working memory on the target, where they are limited."""
        student = self._pruner.student(candidate.name.partition("@")[0], fitted=False)
        if self._config.max_latency is not None:
            layers = module_layers(student.module, candidate.input_shape)
            seconds = estimate_latency(layers, self._target, self._precision, self._model).median / 1e9
            candidate = replace(candidate, latency=seconds)
        if self._config.max_ram is not None:
            graph = fix_batch(student_to_onnx(student.module, candidate.input_shape), 1)
            candidate = replace(candidate, memory=int(self._memory_share * self._memory_of(graph)))
        return candidate

    def judged(self, candidate: Candidate) -> Candidate:
        """With its fidelity: of the refitted student, less what the uncut teacher loses in integers."""
        started = time.monotonic()
        whole = self._artifact[1]
        if candidate.share >= 1 and "@" not in candidate.name:
            return replace(candidate, untrained=whole, expected=whole)
        student = self._build(candidate.name)
        module = student.module.eval()
        sides = candidate.input_shape[1:]
        band = self._study.band(lambda x: module(resized(x, (sides[0], sides[1]))))
        self.slowest = max(self.slowest, time.monotonic() - started)
        untrained = _less(band, whole)
        trains = "@" not in candidate.name
        steps = student_steps(self._config.seconds, self._study, candidate.macs / max(self._whole.spec.macs, 1))
        return replace(
            candidate,
            parameters=student.spec.parameters,
            macs=student.spec.macs,
            untrained=untrained,
            expected=after_training(untrained, steps) if trains else untrained,
        )

    def sides(self) -> Iterator[int]:
        """Smaller sides that the network can be fed."""
        height = min(self._study.teacher.spec.input_shape[1:])
        for share in _SIDES:
            side = round(height * share / _STEP_OF_SIDES) * _STEP_OF_SIDES
            if not _SMALLEST_SIDE <= side < height:
                continue
            try:
                self._build(f"{KEPT}:1@{side}")
            except UsageError:
                return
            yield side

    def names_for_costs(self) -> list[str]:
        """Widths, sides, and both together."""
        sides = ["", *(f"@{side}" for side in self.sides())]
        return [f"{KEPT}:{share:g}{side}" for side in sides for share in self.shares]

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the weights that are worth a look; only all of them where nothing can be cut."""
        return _SHARES if self._pruner.cuts else (1.0,)

    def name_for_size(self, size: int) -> str:
        """The largest candidate below a size."""
        whole = self._pruner.path[0].parameters
        for place in self._pruner.path:
            name = f"{KEPT}:{place.parameters / whole:.6g}"
            if self.outline(name).size <= size:
                return name
        smallest = self.outline(f"{KEPT}:{self._pruner.path[-1].parameters / whole:.6g}")
        raise UsageError(
            f"No student fits --max-size {format_bytes(size)}: the smallest student needs about "
            f"{format_bytes(smallest.size)}.",
            "Raise the limit to at least that, or name a --student from scratch.",
        )

    def shares_from_least(self) -> list[float]:
        """Shares that are tried where no size is asked for, the smallest first."""
        if not self._pruner.cuts:
            return [*self.shares]
        least = modest_share(self._whole.spec.parameters, BYTES_PER_WEIGHT[self._precision])
        if any(node.op_type == "Softmax" for node in self._pruner.graph.graph.node):  # inside: attention
            least = max(least, _LEAST_OF_ATTENTION)
        return [least, *(share for share in self.shares if share > least)]


def build_ladder(
    build: StudentBuilder,
    study: Study,
    target: Target,
    precision: str,
    config: CompressConfig,
) -> Ladder:
    """Candidates for a teacher that can be cut, and the one to begin with.

    Without a limit that is the smallest whose expected fidelity holds. Within limits on size or latency it
    is the one with the highest.

    Args:
        build: Makes students.
        study: Of the teacher.
        target: Of the artifact.
        precision: Of the artifact.
        config: Limits, floor and time.

    Raises:
        UsageError: If no candidate fits the limits; the message says what the smallest needs.

    Examples:
        >>> from edgedafl.stages.students import builder
        >>> from edgedafl.stages.study import study_teacher
        >>> from edgedafl.targets import find_target
        >>> from edgedafl.teachers import TeacherOptions, load_teacher
        >>> teacher = load_teacher("examples/mnist/teacher.onnx", TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        >>> config, target, study = CompressConfig(max_size="40KB"), find_target("rpi4"), study_teacher(teacher)
        >>> ladder = build_ladder(builder(config, teacher, study, target), study, target, "int8", config)
        >>> ladder.candidates[ladder.chosen].size <= 40_000
        True
    """
    rungs = _Rungs(build, study, target, precision, config)
    if config.max_latency is not None or config.max_ram is not None:
        return _within_costs(rungs, config)
    if config.max_size is not None:
        chosen = rungs.judged(rungs.outline(rungs.name_for_size(config.max_size)))
        return Ladder((chosen,), 0)
    outlines = [rungs.outline(f"{KEPT}:{share:g}") for share in rungs.shares_from_least()]
    return _smallest_that_holds(rungs, outlines, config.min_fidelity)


def _smallest_that_holds(rungs: _Rungs, outlines: list[Candidate], floor: float) -> Ladder:
    """Go down in growing steps while they hold, then halve what is left; judge all of them where that is quick."""
    found = dict(enumerate(outlines))
    last = len(outlines) - 1
    found[last] = rungs.judged(found[last])

    def holds(place: int) -> bool:
        if found[place].untrained is None:
            found[place] = rungs.judged(found[place])
        expected = found[place].expected
        return expected is not None and expected.cautious >= floor

    low, high, step = -1, last, 1  # what is too small, and what holds or is the last resort
    while high > 0 and holds(max(0, high - step)):
        high, step = max(0, high - step), 2 * step
    if high > 0:
        low = max(0, high - step)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    if rungs.slowest <= _SLOW:
        for place in range(last):
            holds(place)
    return Ladder(tuple(found.values()), high)


def _within_costs(rungs: _Rungs, config: CompressConfig) -> Ladder:
    """Of all widths and sizes of images, those within limits on latency, working memory and size."""
    costed = [rungs.with_costs(rungs.outline(name)) for name in rungs.names_for_costs()]
    fitting = [c for c in costed if fits(c, config)]
    if not fitting:
        raise none_fits(costed, config)
    # Of every size of images the widest that fits: narrower ones answer worse and gain nothing.
    widest: dict[str, Candidate] = {}
    for candidate in sorted(fitting, key=lambda c: c.share):
        widest[candidate.name.partition("@")[2]] = candidate
    judged = [rungs.judged(candidate) for candidate in widest.values()]
    return Ladder(tuple(sorted(judged, key=_promise)), len(judged) - 1)


def _promise(candidate: Candidate) -> tuple[float, float, float]:
    """What is expected; where that is the same, as below all that predictions know, weights and arithmetic tell."""
    expected = candidate.expected.fidelity if candidate.expected else 0.0
    return round(expected, _DIGITS), candidate.share, candidate.macs


def _less(band: Band | None, whole: Band | None) -> Band | None:
    """A float student's fidelity less what integers cost its teacher."""
    if band is None or whole is None:
        return band
    lost = 1 - whole.fidelity
    return band.mapped(lambda share: max(0.0, share - lost))

"""`edgedafl inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.options import common, merged_config, teacher_options
from edgedafl.cli.render import print_json, print_table
from edgedafl.cli.sections import Sectioned

if TYPE_CHECKING:
    from edgedafl.graph.facts import GraphFacts

__all__ = ["command"]


@click.command("inspect", cls=Sectioned)
@teacher_options
@common
def command(teacher: str, as_json: bool, quiet: bool, **flags: Any) -> int:
    """What TEACHER is, and whether it can be a teacher; exit 5 when it cannot.

    \b
    Example:
      edgedafl inspect teacher.onnx --preprocess imagenet
    """
    from edgedafl import pipeline
    from edgedafl.stages import options_of
    from edgedafl.tasks import MULTI_LABEL
    from edgedafl.units import format_bytes, format_count

    config = merged_config(teacher, flags)
    found = pipeline.inspect(teacher, options_of(config))
    spec, preflight, graph = found.spec, found.preflight, _graph_rows(found.graph)
    if as_json:
        print_json({"teacher": spec.to_dict(), "preflight": vars(preflight), "graph": graph})
        return 0
    c, h, w = spec.input_shape
    low, high = spec.preprocess.low, spec.preprocess.high
    rows = [
        ["access", f"{spec.access}: can be a teacher"],
        ["input", f"{c}x{h}x{w} {spec.layout} {spec.dtype.lower()}, batch {spec.batch or 'free'}"],
        ["input range", f"{low[0]:.4g} to {high[0]:.4g} ({spec.preprocess.origin})"],
        [
            "task",
            spec.task
            if config.task or spec.task != MULTI_LABEL
            else f"{spec.task} (a guess; else --task single-label)",
        ],
        ["output", f"{spec.num_classes} {'classes' if spec.task == 'single-label' else 'labels'}, {spec.output}"],
        ["penultimate features", "found" if spec.has_features else "not found"],
        ["BatchNorm layers", f"{spec.batch_norms} with statistics"],
        ["parameters", format_count(spec.parameters) if spec.parameters else "not known"],
        ["MACs per image", format_count(spec.macs) if spec.macs else "not known"],
        ["file size", format_bytes(spec.size) if spec.size else "not known"],
        [
            "varied test images",
            f"{preflight.classes_seen} classes seen, most common {preflight.most_common:.0%}, "
            f"confidence {preflight.confidence:.2f}",
        ],
        *([name, str(value)] for name, value in graph.items()),
    ]
    print_table(["", ""], [[name, value] for name, value in rows])
    if preflight.warning:
        click.echo(f"Warning: {preflight.warning}", err=True)
    return 0


def _graph_rows(facts: GraphFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    operators = ", ".join(f"{name} {count}" for name, count in facts.operators.items())
    return {
        "producer": facts.producer,
        "opset": facts.opset,
        "IR version": facts.ir_version,
        "operators": operators,
    }

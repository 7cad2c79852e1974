"""`edgedafl inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.options import common, numbers, one_teacher
from edgedafl.cli.render import print_json, print_table

if TYPE_CHECKING:
    from edgedafl.graph.facts import GraphFacts

__all__ = ["command"]


@click.command("inspect")
@click.argument("model", required=False)
@click.option("--teacher-url", help="A served model instead: https://host/v2/models/NAME.")
@click.option("--token-env", help="Environment variable with the server's bearer token.")
@click.option("--access", help="What of it to use: auto, gradient, scores or labels.")
@click.option("--classes", type=int, help="How many, for a model that answers class indices only.")
@click.option("--task", help="single-label, binary or multi-label, where the guess is wrong.")
@click.option("--trust", is_flag=True, help="Open model files that can run code.")
@click.option("--preprocess", help="How pixels go in: imagenet, tf (-1 to 1), unit (0 to 1), raw or caffe (BGR).")
@click.option("--input-mean", help="Mean of (pixel/255 - mean)/std.")
@click.option("--input-std", help="Deviation of the same.")
@click.option("--input-range", help="Pixels scaled to LOW,HIGH.")
@click.option("--input-shape", help="C,H,W where the model leaves it free.")
@click.option("--input-name", help="Image input, where there are several.")
@click.option("--output-name", help="Score output, where there are several.")
@click.option("--layout", help="NCHW or NHWC, where the guess is wrong.")
@common
def command(
    model: str | None,
    teacher_url: str | None,
    as_json: bool,
    quiet: bool,
    input_name: str | None,
    output_name: str | None,
    layout: str | None,
    preprocess: str | None,
    token_env: str | None,
    access: str | None,
    classes: int | None,
    task: str | None,
    trust: bool,
    **flags: Any,
) -> int:
    """What MODEL is, and whether it can be a teacher; exit 5 when it cannot."""
    from edgedafl import pipeline
    from edgedafl.tasks import MULTI_LABEL
    from edgedafl.teachers import TeacherOptions
    from edgedafl.units import format_bytes, format_count

    parsed = {k: numbers(v, f"--{k.replace('_', '-')}") for k, v in flags.items() if v is not None}
    shape = parsed.get("input_shape")
    options = TeacherOptions(
        access=None if access == "auto" else access,
        classes=classes,
        task=task,
        trust=trust,
        token_variable=token_env,
        input_name=input_name,
        output_name=output_name,
        layout=layout,
        convention=preprocess,
        input_shape=(int(shape[0]), int(shape[1]), int(shape[2])) if shape and len(shape) == 3 else None,
        input_range=(parsed["input_range"][0], parsed["input_range"][-1]) if "input_range" in parsed else None,
        mean=parsed.get("input_mean", ()),
        std=parsed.get("input_std", ()),
    )
    found = pipeline.inspect(one_teacher(model, teacher_url), options)
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
        ["task", spec.task if task or spec.task != MULTI_LABEL else f"{spec.task} (a guess; else --task single-label)"],
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

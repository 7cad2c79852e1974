"""`edgedafl verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgedafl.cli.options import common, run_directory
from edgedafl.cli.render import print_json
from edgedafl.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgedafl.files.labelled import LabelledSource

__all__ = ["command"]


@click.command("verify")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path), required=False)
@click.option("--target", help="Of a run: for which target; its own by default.")
@click.option(
    "--eval", "labelled", type=click.Path(path_type=Path), help="Labelled pictures: class folders, CSV or .npz."
)
@click.option("--classes-file", type=click.Path(path_type=Path), help="Names of the classes, one per line.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="calibration.npz whose probe images to compare on."
)
@click.option("--min-agreement", default="99%", show_default=True, help="Fail below this share of equal classes.")
@click.option(
    "--trust", is_flag=True, help="Open a run's teacher for --eval even if it can run code or is on a server."
)
@click.option("--max-error", type=float, help="Fail above this relative error.")
@common
def command(
    a: Path,
    b: Path | None,
    target: str | None,
    labelled: Path | None,
    classes_file: Path | None,
    calibration: Path | None,
    min_agreement: str,
    trust: bool,
    max_error: float | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Compare the ONNX models A and B, or what a run directory A holds.

    \b
    Examples:
      edgedafl verify runs/teacher-rpi4 --eval labelled/
      edgedafl verify before.onnx after.onnx --max-error 1e-4
    """
    if b is None:
        from edgedafl.files.labelled import LabelledSource

        source = None if labelled is None else LabelledSource(labelled, classes_file)
        return _verify_run(a, target, source, trust, as_json)
    from edgedafl.graph.image_input import find_image_input
    from edgedafl.graph.load import load_onnx
    from edgedafl.stages import compare_models
    from edgedafl.units import parse_share

    first, second = load_onnx(a).model, load_onnx(b).model
    shapes = {find_image_input(m).image_shape for m in (first, second)}
    if len(shapes) != 1:
        raise UsageError(f"{a} and {b} take images of different shapes: {' and '.join(map(str, shapes))}.")
    images, what = _images(calibration, next(iter(shapes)))
    parity = compare_models(first, second, images, what).parity
    floor = parse_share(min_agreement)
    if as_json:
        print_json(vars(parity))
    else:
        click.echo(
            f"same class {100 * parity.same_class:.2f} % of {parity.rows} {what}; "
            f"relative error {parity.relative_error:.2g}"
        )
    if parity.same_class < floor:
        raise CheckFailedError(
            f"Agreement {100 * parity.same_class:.2f} % is below {100 * floor:g} %.", "See --min-agreement."
        )
    if max_error is not None and parity.relative_error > max_error:
        raise CheckFailedError(
            f"Relative error {parity.relative_error:.2g} is above {max_error:g}.", "See --max-error."
        )
    return 0


def _images(calibration: Path | None, shape: tuple[int, int, int]) -> tuple[np.ndarray, str]:
    if calibration is not None:
        from edgedafl.quantize import CalibrationSet

        return CalibrationSet.load(calibration).probe_images(), "probe images"
    import torch

    from edgedafl.distill.synthesizers.priors import noise_fields

    return noise_fields(256, shape, torch.Generator().manual_seed(3)).numpy(), "procedural images"


def _verify_run(path: Path, target: str | None, labelled: LabelledSource | None, trust: bool, as_json: bool) -> int:
    directory = run_directory(path)
    from edgedafl import pipeline
    from edgedafl.runs import result_to_dict
    from edgedafl.targets import find_target

    chosen = find_target(target) if target else pipeline.run_target(directory)
    result = pipeline.verify(directory, target=chosen, labelled=labelled, trust=trust)
    if as_json:
        print_json(result_to_dict(result))
        return 0
    for name, share in result.agreement.items():
        click.echo(f"{name}: synthetic agreement with the teacher {100 * share:.2f} %")
    for name, share in result.accuracy.items():
        click.echo(f"{name}: accuracy {100 * share:.2f} %")
    for name, parity in result.parity.items():
        click.echo(f"{name}: relative error {parity.relative_error:.2g}, same class {100 * parity.same_class:.1f} %")
    return 0

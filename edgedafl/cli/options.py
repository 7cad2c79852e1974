"""Flags that several commands share, and their merge with the project file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgedafl.cli.sections import in_section
from edgedafl.errors import UsageError

if TYPE_CHECKING:
    from edgedafl.config import CompressConfig
    from edgedafl.runs import RunDirectory

__all__ = [
    "common",
    "is_verbose",
    "merged_config",
    "numbers",
    "one_teacher",
    "run_directory",
    "setup_verbosity",
    "teacher_options",
    "training",
]

Command = Callable[..., Any]


def setup_verbosity(quiet: bool, verbose: bool) -> None:
    """Set the package's log level.

    Examples:
        >>> setup_verbosity(quiet=False, verbose=False)
        >>> is_verbose()
        False
    """
    import logging

    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
    logging.getLogger("edgedafl").setLevel(level)


def is_verbose() -> bool:
    """Whether more detail was asked for.

    Examples:
        >>> is_verbose()
        False
    """
    import logging

    return logging.getLogger("edgedafl").isEnabledFor(logging.DEBUG)


def common(function: Command) -> Command:
    """`--json`, `-q`, `-v` for every command.

    Examples:
        >>> import click
        >>> command = click.command("hello")(common(lambda as_json, quiet: 0))
        >>> sorted(option.name for option in command.params)
        ['as_json', 'quiet', 'verbose']
    """

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress, errors only.")
    @click.option("-v", "--verbose", is_flag=True, help="More detail.")
    @functools.wraps(function)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        setup_verbosity(quiet, verbose)
        return function(*args, quiet=quiet, **kwargs)

    return wrapped


_teacher, _student, _target = in_section("Teacher"), in_section("Student"), in_section("Target")
_training, _server, _output = in_section("Training"), in_section("Server"), in_section("Output")
_path = click.Path(path_type=Path)

_TEACHER = [
    _teacher("--preprocess", help="How pixels go in: imagenet, tf (-1 to 1), unit (0 to 1), raw or caffe (BGR)."),
    _teacher("--input-mean", help="Mean of (pixel/255 - mean)/std, e.g. 0.485,0.456,0.406."),
    _teacher("--input-std", help="Deviation of the same."),
    _teacher("--input-range", help="Pixels scaled to LOW,HIGH, e.g. 0,1 or -1,1."),
    _teacher("--input-shape", help="C,H,W where the model leaves it free."),
    _teacher("--input-name", help="Image input, where there are several."),
    _teacher("--output-name", help="Score output, where there are several."),
    _teacher("--layout", help="NCHW or NHWC, where the guess is wrong."),
    _teacher("--task", help="single-label, binary or multi-label, where the guess is wrong."),
    _teacher("--weights", type=_path, help="Weights of a PyTorch factory."),
    _teacher("--trust", is_flag=True, default=None, help="Open model files that can run code."),
    _server("--teacher-url", help="A served model instead of a file: https://host/v2/models/NAME."),
    _server("--token-env", help="Environment variable with the server's bearer token."),
    _server("--timeout", help="Longest wait for one answer, e.g. 30s."),
    _server("--access", help="What of the teacher to use: auto, gradient, scores or labels."),
    _server("--max-queries", type=int, help="Most images the teacher may ever be asked about."),
    _server("--classes", type=int, help="How many, for a teacher that answers class indices only."),
]  # fmt: skip
"""What is declared about a teacher; the same for every command that opens one."""

_COMPRESSING = [
    _student("--student", help="auto, kept:0.5 (of the teacher's weights), pruned:0.5, resnet8:0.5, my.py:build."),
    _student("--min-fidelity", help="Share of real inputs that must get the teacher's class; 95% by default."),
    _student("--max-size", help="Largest artifact, e.g. 1MB."),
    _student("--max-latency", help="Slowest artifact on the target, e.g. 5ms."),
    _student("--max-ram", help="Most working memory of the artifact, e.g. 512KB."),
    _target("--target", help="Deployment target: a name of `edgedafl targets`, or a .toml file."),
    _target("--precision", help="auto, int8, fp16 or fp32."),
    _target("--weight-bits", type=float, help="Mean bits of a weight in an int8 file, 3.5 to 8."),
    _target("--max-drop", help="Agreement that int8 may lose against fp32, e.g. 0.5%."),
    _target("--device", help="Where to profile: local, none, a named device, ssh://user@host or adb:SERIAL."),
    _target("--quick", is_flag=True, default=None, help="Shorter latency measurement, marked so."),
    _training("--images", type=_path, help="Your own unlabelled pictures: a folder or .npz."),
    _training("--method", help="auto, adversarial, fast, inversion, dafl, dfad, zskt, dfq, blackbox, zeroth-order."),
    _training("--preset", help="quick (1 min), default (3 min) or extensive (20 min)."),
    _training("--time-budget", help="Time to distill, e.g. 10m."),
    _training("--steps", type=int, help="Generator steps instead of a time."),
    _training("--seed", type=int, help="Seed of everything random."),
    _training("--threads", type=int, help="CPU threads for training; 0 takes all."),
    _training("--accelerator", help="Where to train: auto, cpu or cuda."),
    _training("--pool-memory", help="Most memory for generated images, e.g. 512MB."),
    _output("-o", "--output", type=_path, help="Run directory."),
    _output("--eval", "eval", type=_path, help="Labelled pictures for the report: folders, CSV or .npz."),
    _output("--classes-file", type=_path, help="Names of the classes, one per line."),
    _output("--config", type=_path, help="edgedafl.toml to read."),
    _output("--resume", is_flag=True, help="Go on from an interrupted run."),
    _output("--force", is_flag=True, help="Replace another run in the same directory."),
    _output("--dry-run", is_flag=True, help="Look at the teacher, print the plan, and stop."),
]  # fmt: skip


def teacher_options(function: Command) -> Command:
    """TEACHER and what may be declared about it.

    Examples:
        >>> import click
        >>> command = click.command("hello")(teacher_options(lambda **flags: 0))
        >>> "input_mean" in [option.name for option in command.params]
        True
    """

    @click.argument("teacher", required=False)
    @functools.wraps(function)
    def wrapped(teacher: str | None, teacher_url: str | None, **flags: Any) -> Any:
        return function(teacher=one_teacher(teacher, teacher_url), **flags)

    return _with(wrapped, _TEACHER)


def training(function: Command) -> Command:
    """TEACHER and the flags of `compress`, `quantize`, `distill` and `search`.

    Examples:
        >>> import click
        >>> command = click.command("hello")(training(lambda **flags: 0))
        >>> "time_budget" in [option.name for option in command.params]
        True
    """
    return teacher_options(_with(function, _COMPRESSING))


def _with(function: Command, options: list[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        function = option(function)
    return function


def one_teacher(teacher: str | None, url: str | None) -> str:
    """TEACHER or the address of `--teacher-url`, not both.

    Raises:
        UsageError: If none or both are given.

    Examples:
        >>> one_teacher("model.onnx", None)
        'model.onnx'
    """
    if (teacher is None) == (url is None):
        found = "none is given" if teacher is None else "TEACHER and --teacher-url are both given"
        raise UsageError(f"One teacher is needed; {found}.", "Name a file, package.module:factory, or --teacher-url.")
    return teacher or url or ""


def numbers(text: str, flag: str) -> tuple[float, ...]:
    """Comma-separated numbers.

    Raises:
        UsageError: If a part is not a number.

    Examples:
        >>> numbers("0.485, 0.456, 0.406", "--mean")
        (0.485, 0.456, 0.406)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{flag} {text!r} is not a list of numbers.", "Separate numbers by commas, e.g. 0.5,0.5,0.5."
        ) from error


def merged_config(source: str, flags: dict[str, Any]) -> CompressConfig:
    """Flags over the project file over defaults, validated.

    Raises:
        UsageError: If a value is bad; the flag or the file and key are named.

    Examples:
        >>> merged_config("model.onnx", {"target": "rpi4", "min_fidelity": "97%"}).min_fidelity
        0.97
    """
    from edgedafl.config import CompressConfig, default_output, read_project, validated

    project = read_project(flags.pop("config", None))
    given = {name: value for name, value in flags.items() if value is not None}
    for name in ("input_mean", "input_std", "input_range"):
        if name in given:
            given[name] = numbers(given[name], f"--{name.replace('_', '-')}")
    if "input_shape" in given:
        given["input_shape"] = tuple(int(v) for v in numbers(given["input_shape"], "--input-shape"))
    for name, length in (("input_range", 2), ("input_shape", 3)):
        if name in given and len(given[name]) != length:
            raise UsageError(f"--{name.replace('_', '-')} takes {length} numbers; found {len(given[name])}.")
    merged = {**project.compress, **given}
    if "output" not in merged:
        merged["output"] = default_output(source, merged.get("target"))
    where = "The command line" if project.path is None else f"The command line with {project.path}"
    return validated(CompressConfig, merged, where)


def run_directory(path: Path) -> RunDirectory:
    """A run directory that exists.

    Raises:
        UsageError: If it is not a run.

    Examples:
        >>> run_directory(Path("runs/teacher-rpi4")).record().student.name
        'kept:1'
    """
    from edgedafl.runs import RunDirectory

    run = RunDirectory(path)
    run.record()
    return run

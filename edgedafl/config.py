"""One validated schema behind the command line, `edgedafl.toml` and the Python API."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgedafl.errors import UsageError
from edgedafl.files.toml import read_toml
from edgedafl.tasks import Access, Layout, Task
from edgedafl.units import parse_bytes, parse_duration, parse_share

__all__ = [
    "AS_IT_IS",
    "DEFAULT_DROP",
    "DEFAULT_FIDELITY",
    "PRESETS",
    "CompressConfig",
    "GateConfig",
    "ProjectConfig",
    "default_output",
    "find_project_file",
    "read_project",
    "validated",
]

DEFAULT_DROP = 0.005
"""Half a point of agreement: what published eight-bit students lose at most."""

DEFAULT_FIDELITY = 0.95
"""int8 alone keeps 95.8 to 99 % of the answers of third-party MobileNets and ResNets."""

Seconds = Annotated[float, BeforeValidator(parse_duration)]
Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Share = Annotated[float, BeforeValidator(parse_share)]

PRESETS: dict[str, float] = {"quick": 60.0, "default": 180.0, "extensive": 1200.0}
"""Seconds of distillation per preset."""


_Schema = TypeVar("_Schema", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CompressConfig(_Strict):
    """Everything `edgedafl compress` decides by.

    Attributes:
        target: Target name or alias, or the path of a target's .toml file.
        output: Run directory.
        student: `auto`, `kept:SHARE` (the teacher with that share of its weights), `pruned:WIDTH` (with
            that share of every layer's channels), an architecture with an optional width, or `my.py:build`.
        method: `auto`, or one of the methods in `distill/methods.py`.
        precision: `int8`, `fp16`, `fp32`; `auto` takes the target's.
        preset: Sets the time budget where none is given.
        time_budget: Seconds of distillation.
        steps: Generator steps, instead of or beside a time budget.
        weight_bits: Mean bits of a weight in an int8 artifact's file, 3.5 to 8; None: eight, or as few as `max_size`
            asks for.
        max_size: Bytes of the artifact.
        max_latency: Seconds per image on the target.
        max_ram: Bytes of working memory while the artifact runs one image.
        preprocess: A common map from pixels by name.
        input_range: Pixels scaled to low,high.
        input_mean: Mean of `(pixel / 255 - mean) / std`.
        input_std: Deviation of the same.
        input_shape: (C, H, W) where the model leaves it free.
        input_name: Image input, where there are several.
        output_name: Score output, where there are several.
        layout: `NCHW` or `NHWC` where the guess is wrong.
        weights: Weights file for a PyTorch factory.
        access: What of the teacher may be used: `gradient`, `scores`, `labels`; `auto` takes all.
        task: `single-label`, `binary` or `multi-label`, where the guess is wrong.
        classes: How many, for a teacher that answers class indices only.
        max_queries: Most images the teacher may ever be asked about.
        trust: Whether model files that can run code may be opened.
        timeout: Seconds to wait for one answer of a server.
        token_env: Environment variable with a server's bearer token.
        eval: Labelled pictures for the report: a folder of class folders, a CSV of file and label, or an .npz.
        classes_file: The teacher's classes, one name per line: for labels that are names, and for the bundle.
        min_fidelity: Share of real inputs on which the artifact must give the teacher's class.
        images: Unlabelled pictures of the user's, a folder or an .npz.
        max_drop: Agreement with the teacher that int8 may lose against fp32.
        device: Where to profile: `local`, `none`, a named device, `ssh://user@host` or `adb:SERIAL`.
        seed: Of everything random.
        threads: CPU threads of torch; 0 takes all cores.
        accelerator: Where to train: `cpu`, `cuda`; `auto` takes a GPU where there is one.
        pool_memory: Most bytes of the replay pool.
        quick: Shorter latency measurement, marked as such.

    Raises:
        ValidationError: If a key is unknown or a value is bad; `validated` turns it into a sentence.

    Examples:
        >>> CompressConfig(target="phone", max_size="200KB", time_budget="90s").max_size
        200000
    """

    target: str = "x86-64-vnni"
    output: Path = Path("runs/latest")
    student: str = "auto"
    method: str = "auto"
    precision: Literal["auto", "int8", "fp16", "fp32"] = "auto"
    preset: Literal["quick", "default", "extensive"] = "default"
    time_budget: Seconds | None = None
    steps: int | None = Field(default=None, ge=1)
    weight_bits: float | None = Field(default=None, ge=3.5, le=8)
    max_size: Bytes | None = None
    max_latency: Seconds | None = None
    max_ram: Bytes | None = None
    preprocess: Literal["imagenet", "tf", "raw", "unit", "caffe"] | None = None
    input_range: tuple[float, float] | None = None
    input_mean: tuple[float, ...] = ()
    input_std: tuple[float, ...] = ()
    input_shape: tuple[int, int, int] | None = None
    input_name: str | None = None
    output_name: str | None = None
    layout: Layout | None = None
    weights: Path | None = None
    access: Access | Literal["auto"] = "auto"
    task: Task | None = None
    classes: int | None = Field(default=None, ge=2)
    max_queries: int | None = Field(default=None, ge=100)
    trust: bool = False
    timeout: Seconds = 60.0
    token_env: str | None = None
    eval: Path | None = None
    classes_file: Path | None = None
    min_fidelity: Share = DEFAULT_FIDELITY
    images: Path | None = None
    max_drop: Share = DEFAULT_DROP
    device: str = "local"
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=0, ge=0)
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    pool_memory: Bytes = 2 << 30
    quick: bool = False

    @property
    def seconds(self) -> float | None:
        """Time budget in force: the given one, else the preset's unless steps are given."""
        if self.time_budget is not None:
            return self.time_budget
        return None if self.steps is not None else PRESETS[self.preset]


AS_IT_IS = {"student": "kept:1", "device": "none"}
"""Settings of `quantize`: all of the teacher stays, and latency is estimated."""


class GateConfig(_Strict):
    """Limits that CI holds a run or a model to; absent ones are not checked.

    Attributes:
        max_size: Bytes of the artifact; `max_flash` is the same by another name.
        max_parameters: Weights.
        max_macs: Multiply-accumulates per image.
        max_ram: Bytes of working memory, see `graph.peak_memory`.
        min_agreement: Least agreement on generated images.
        min_accuracy: Least accuracy on labelled data.
        max_accuracy_drop: Most accuracy below the teacher's.
        max_latency: Seconds, measured.
        min_fidelity: Least fidelity, predicted or measured.
        max_size_growth: Of the file over the baseline's, as a share.
        max_slowdown: Of the median latency over the baseline's, as a share.
        max_fidelity_loss: Below the baseline's.
        baseline: What relative limits compare with.

    Examples:
        >>> GateConfig(max_size="1MB", min_fidelity="95%").min_fidelity
        0.95

    `max_size_growth`, `max_slowdown` and `max_fidelity_loss` are relative to `baseline`: a run, a model, a .json that
    `gate --update-baseline` wrote, or `git:REF`.
    """

    max_size: Bytes | None = None
    max_parameters: int | None = Field(default=None, ge=0)
    max_macs: int | None = Field(default=None, ge=0)
    max_ram: Bytes | None = None
    max_flash: Bytes | None = None
    min_agreement: Share | None = None
    min_accuracy: Share | None = None
    max_accuracy_drop: Share | None = None
    max_latency: Seconds | None = None
    min_fidelity: Share | None = None
    max_size_growth: Share | None = None
    max_slowdown: Share | None = None
    max_fidelity_loss: Share | None = None
    baseline: str | None = None


class ProjectConfig(_Strict):
    """An `edgedafl.toml`, or `[tool.edgedafl]` of a `pyproject.toml`.

    Attributes:
        compress: Defaults for `compress` and `distill`; flags win.
        gate: Limits.
        path: Where it was read from; None for the defaults.

    Examples:
        >>> ProjectConfig(compress={"target": "rpi4"}).gate.max_size
    """

    compress: dict[str, Any] = Field(default_factory=dict)
    gate: GateConfig = Field(default_factory=GateConfig)
    path: Path | None = None


def default_output(source: str, target: str | None) -> Path:
    """Where a run goes by default: a folder named after teacher and target.

    Examples:
        >>> default_output("models/teacher.onnx", "jetson")
        PosixPath('runs/teacher-jetson')
    """
    stem = Path(source.replace(":", "-")).stem
    name = target or str(CompressConfig.model_fields["target"].default)
    return Path("runs") / f"{stem}-{Path(name).stem if name.endswith('.toml') else name}"


def find_project_file(start: Path | None = None) -> Path | None:
    """`edgedafl.toml`, or a `pyproject.toml` with `[tool.edgedafl]`, in this folder or above.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "edgedafl.toml").write_text("[gate]")
        >>> find_project_file(folder).name
        'edgedafl.toml'
    """
    folder = (start or Path.cwd()).resolve()
    for place in (folder, *folder.parents):
        own = place / "edgedafl.toml"
        if own.is_file():
            return own
        project = place / "pyproject.toml"
        if project.is_file():
            return project if _mentions_us(project) else None
    return None


def _mentions_us(project: Path) -> bool:
    """In whatever encoding: one that cannot be read is refused later, and not passed over."""
    blob = project.read_bytes()
    return any("[tool.edgedafl".encode(encoding) in blob for encoding in ("utf-8", "utf-16-le", "utf-16-be"))


def read_project(path: Path | None = None) -> ProjectConfig:
    """Read the project's settings.

    Args:
        path: The file; searched for where None.

    Raises:
        UsageError: If the file is missing or not TOML, or holds an unknown key or a bad value.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "edgedafl.toml"
        >>> _ = path.write_text("gate.max_size = '1MB'")
        >>> read_project(path).gate.max_size
        1000000
    """
    file = path or find_project_file()
    if file is None:
        return ProjectConfig()
    try:
        data = read_toml(file)
    except OSError as error:
        raise UsageError(
            f"The config file {str(file)!r} cannot be read: {error.strerror}.", "Correct --config."
        ) from error
    if file.name == "pyproject.toml":
        data = data.get("tool", {}).get("edgedafl", {})
    return ProjectConfig(**{**validated(ProjectConfig, data, str(file)).model_dump(), "path": file})


def validated(schema: type[_Schema], data: dict[str, Any], where: str) -> _Schema:
    """Build a settings object, turning the first problem into one sentence.

    Raises:
        UsageError: If a key is unknown or a value is bad.

    Examples:
        >>> validated(GateConfig, {"max_size": "1MB"}, "edgedafl.toml").max_size
        1000000
    """
    try:
        return schema(**data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            name = str(first["loc"][-1])
            near = difflib.get_close_matches(name, _known_names(schema), 1, 0.5)
            hint = f"Did you mean {near[0]!r}?" if near else "Remove it."
            raise UsageError(f"{where} has the unknown key {key!r}.", hint) from error
        raise UsageError(f"{where}: {key} = {first['input']!r}: {first['msg']}.", "Correct the value.") from error


def _known_names(schema: type[BaseModel]) -> list[str]:
    return [*schema.model_fields, *GateConfig.model_fields]

"""PyTorch models that come as one file: exported programs, TorchScript, pickled modules.

Reading any of the three can run code that somebody put into the file. So none is opened unless
the user vouches for it with `--trust`.
"""

from __future__ import annotations

import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgedafl.errors import UnsupportedModelError, UsageError, reason_of

__all__ = ["PYTORCH_FILES", "BlueFirst", "FirstTensor", "first_tensor", "load_torch_file"]

PYTORCH_FILES = {".pt2", ".pt", ".pth", ".ts", ".th", ".pkl", ".ckpt"}

_RECIPE = (
    "Export it to ONNX where you trust it (this keeps BatchNorm): torch.onnx.export(model.eval(), "
    "(x,), 'teacher.onnx', dynamo=False, do_constant_folding=False, "
    "training=torch.onnx.TrainingMode.PRESERVE, dynamic_axes={'x': {0: 'n'}}, input_names=['x'])"
)


def load_torch_file(path: Path, *, trust: bool) -> nn.Module:
    """Open a file that holds a whole model.

    Args:
        path: A `.pt2`, TorchScript or pickle file.
        trust: Whether code in the file may run.

    Raises:
        UsageError: If there is no such file, or it may run code and `trust` is not given.
        UnsupportedModelError: If it holds only weights, or cannot be read.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.pt"
        >>> torch.jit.trace(nn.Linear(4, 2), torch.zeros(1, 4)).save(path)
        >>> load_torch_file(path, trust=True)(torch.zeros(1, 4)).shape
        torch.Size([1, 2])
    """
    if not path.is_file():
        raise UsageError(f"The model file {str(path)!r} does not exist.", "Give the path of a model.")
    form = _form_of(path)
    if form == "weights":
        raise UnsupportedModelError(
            f"{path.name} holds weights without the model they belong to.",
            "Name the code that builds it: edgedafl compress package.module:factory --weights " + path.name,
        )
    if not trust:
        raise UsageError(
            f"{path.name} is {_TITLES[form]}; opening one can run code that is hidden in it: refused.",
            f"If you made it yourself, add --trust. {_RECIPE}",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _LOADERS[form](path)
    except UnsupportedModelError:
        raise
    except Exception as error:  # the three loaders share no base class
        raise UnsupportedModelError(
            f"{path.name} cannot be read as {_TITLES[form]}: {reason_of(error, 200)}", _RECIPE
        ) from error


_TITLES = {
    "exported": "an exported program (torch.export)",
    "script": "a TorchScript model",
    "pickle": "a pickled model",
}


def _form_of(path: Path) -> str:
    """`exported`, `script`, `pickle` or `weights`, told from names and opcodes; nothing is run."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(n.endswith(("serialized_exported_program.json", "models/model.json")) for n in names):
                return "exported"
            if any("/code/" in n or n.endswith("constants.pkl") for n in names):
                return "script"
            data = next((n for n in names if n.endswith("data.pkl")), None)
            if data is None:
                raise UnsupportedModelError(f"{path.name} is a zip archive that holds no PyTorch model.", _RECIPE)
            blob = archive.read(data)
    else:
        blob = path.read_bytes()
    return "weights" if _only_weights(path, blob) else "pickle"


def _only_weights(path: Path, blob: bytes) -> bool:
    """Whether a pickle names nothing but tensors and containers."""
    try:
        names = [str(argument) for code, argument, _ in pickletools.genops(blob) if code.name in ("GLOBAL", "INST")]
        strings = any(code.name == "STACK_GLOBAL" for code, _, _ in pickletools.genops(blob))
    except Exception as error:  # pickletools raises whatever the damage makes it raise
        raise UnsupportedModelError(
            f"{path.name} is not a readable PyTorch file ({path.stat().st_size} bytes).",
            "Check that the copy is complete.",
        ) from error
    plain = ("torch._utils ", "torch ", "collections OrderedDict", "torch.storage ", "numpy")
    return bool(names or not strings) and all(name.startswith(plain) for name in names) and not strings


class _Exported(nn.Module):
    """An exported program; where its batch is fixed, images pass one by one under vmap."""

    def __init__(self, module: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.module = module
        self._batch = batch

    def train(self, mode: bool = True) -> _Exported:
        """Exported programs have one mode only, the one that they were exported in."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Any:
        block = self._batch
        if block is None or len(images) == block:
            return self.module(images)
        missing = -len(images) % block
        padded = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
        pieces = padded.reshape(-1, block, *padded.shape[1:])
        answers = torch.vmap(lambda piece: first_tensor(self.module(piece)))(pieces)
        return answers.flatten(0, 1)[: len(images)]


def first_tensor(answer: Any) -> Tensor:
    """The scores in what a module returned: the first of a row, or what is called `logits`, or the only value.

    Examples:
        >>> first_tensor({"logits": torch.zeros(2, 10), "features": torch.zeros(2, 64)}).shape
        torch.Size([2, 10])
    """
    if isinstance(answer, Mapping):
        answer = answer["logits"] if "logits" in answer else next(iter(answer.values()), answer)
    elif not isinstance(answer, Tensor) and hasattr(answer, "logits"):
        answer = answer.logits
    scores: Tensor = answer[0] if isinstance(answer, tuple | list) and answer else answer
    return scores


class FirstTensor(nn.Module):
    """A module that answers more than scores, or in other wrapping, as one that answers scores.

    Examples:
        >>> FirstTensor(nn.Identity())({"logits": torch.zeros(2, 10)}).shape
        torch.Size([2, 10])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """The module's scores."""
        return first_tensor(self.module(images))


class BlueFirst(nn.Module):
    """A module that takes blue, green, red as one that takes images of red, green, blue.

    Examples:
        >>> BlueFirst(nn.Identity())(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)).flatten().tolist()
        [3.0, 2.0, 1.0]
    """

    order: Tensor

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("order", torch.tensor([2, 1, 0]), persistent=False)

    def forward(self, images: Tensor) -> Any:
        """What the module answers to RGB images (N,3,H,W)."""
        return self.module(images.index_select(1, self.order))


def _load_exported(path: Path) -> nn.Module:
    program = torch.export.load(str(path))
    names = program.graph_signature.user_inputs
    values = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise UnsupportedModelError(
            f"{path.name} takes {len(values)} inputs; a classifier of images takes one.", "Export it with one."
        )
    for node in program.graph.nodes:
        # aten.batch_norm(input, weight, bias, mean, var, training, ...)
        if "aten.batch_norm" in str(node.target) and node.args[5:6] == (True,):
            raise UnsupportedModelError(
                f"{path.name} was exported in training mode.", "Call model.eval() before torch.export.export."
            )
    first = values[0].shape[0]
    return _Exported(program.module(), first if isinstance(first, int) else None)


def _load_script(path: Path) -> nn.Module:
    return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return]


def _load_pickle(path: Path) -> nn.Module:
    found = torch.load(path, map_location="cpu", weights_only=False)
    found = found.get("model", found) if isinstance(found, dict) else found
    if not isinstance(found, nn.Module):
        raise UnsupportedModelError(f"{path.name} holds {type(found).__name__}; expected a torch.nn.Module.", _RECIPE)
    return found


_LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "exported": _load_exported,
    "script": _load_script,
    "pickle": _load_pickle,
}

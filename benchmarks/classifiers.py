"""Classifiers with labelled test images: third-party ones, and those that `benchmarks.train_teachers` trains.

What a table over "every classifier" means. Labels are for the final evaluation only.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.common import EXAMPLE
from benchmarks.data import DATASETS
from benchmarks.suites import TRAINED
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher

__all__ = ["CLASSIFIERS", "Classifier", "foreign_photographs", "photographs"]

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SYMMETRIC = {"input_range": (-1.0, 1.0)}
_UNIT = {"input_range": (0.0, 1.0)}
_FOREIGN = "efficientnet_lite0"


@dataclass(frozen=True)
class Classifier:
    """One teacher and its test images.

    Attributes:
        source: The teacher as the command line takes it, given the folder of third-party models.
        options: What is declared about it.
        test: Labelled test images, given the folders of datasets and of models.
        weights: Weights file, given the folder of models, for PyTorch factories.
        shape: (C, H, W) where the model leaves it free.
    """

    source: Callable[[Path], str]
    options: dict[str, object]
    test: Callable[[Path, Path], LabelledData]
    weights: Callable[[Path], Path] | None = None
    shape: tuple[int, int, int] | None = None

    def declared(self, models: Path) -> dict[str, object]:
        """What is declared, with the weights file."""
        known = dict(self.options)
        if self.weights is not None:
            known["weights"] = self.weights(models)
        if self.shape is not None:
            known["input_shape"] = self.shape
        return known

    def teacher(self, models: Path) -> Teacher:
        """Load it."""
        return load_teacher(self.source(models), TeacherOptions(**self.declared(models)))  # type: ignore[arg-type]


def photographs(path: Path) -> LabelledData:
    """JPEG images in one array of bytes with offsets, and their labels."""
    from PIL import Image

    pack = np.load(path)
    blob, offsets = pack["blob"].tobytes(), pack["offsets"]
    images = [np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB")) for a, b in pairwise(offsets)]
    return LabelledData(np.stack(images).transpose(0, 3, 1, 2), np.asarray(pack["labels"]).astype(np.int64))


def foreign_photographs(models: Path) -> np.ndarray:
    """Photographs of anything, uint8 (N,3,224,224): what a user of another teacher might have at hand."""
    return photographs(models / "photographs" / _FOREIGN / "test.npz").images


def _photograph(name: str, options: dict[str, object]) -> Classifier:
    return Classifier(
        lambda models: str(models / "photographs" / name / "model.onnx"),
        options,
        lambda data, models: photographs(models / "photographs" / name / "test.npz"),
    )


def _file(path: str, dataset: str, shape: tuple[int, int, int], options: dict[str, object]) -> Classifier:
    return Classifier(
        lambda models: str(models / path), options, lambda data, models: DATASETS[dataset](data, "test", shape)
    )


def _net(
    factory: str, dataset: str, shape: tuple[int, int, int], weights: Callable[[Path], Path], options: dict[str, object]
) -> Classifier:
    return Classifier(
        lambda models: f"benchmarks.nets:{factory}",
        options,
        lambda data, models: DATASETS[dataset](data, "test", shape),
        weights,
        shape,
    )


def _akamaster(name: str, file: str) -> Classifier:
    return _net(name, "cifar10", (3, 32, 32), lambda m: m / "akamaster_resnet_cifar10" / file, dict(_IMAGENET))


def _trained(name: str, dataset: str, shape: tuple[int, int, int], options: dict[str, object]) -> Classifier:
    return _net(name, dataset, shape, lambda models: TRAINED / f"{name}.safetensors", options)


def _exported(name: str) -> Classifier:
    return _file(str(TRAINED / f"{name}.onnx"), "fashion-mnist", (1, 28, 28), {"mean": (0.286,), "std": (0.353,)})


_MNIST: dict[str, object] = {"mean": (0.1307,), "std": (0.3081,)}

CLASSIFIERS: dict[str, Classifier] = {
    "efficientnet-lite0": _photograph("efficientnet_lite0", {"mean": (127 / 255,), "std": (128 / 255,)}),
    "trash-mobilenetv2": _photograph("trash_teachable_mnv2_035_224", dict(_SYMMETRIC)),
    "orientation-pplcnet": _photograph("orientation_pplcnet_224", dict(_IMAGENET)),
    "plant38-mobilenetv3": _photograph("plant38_mobilenetv3lite_224", dict(_IMAGENET)),
    "dogs19-mobilenetv2": _photograph("dogs19_mobilenetv2_160", dict(_SYMMETRIC)),
    "cifar10-resnet20": _akamaster("resnet20", "resnet20-12fca82f.th"),
    "cifar10-resnet32": _akamaster("resnet32", "resnet32-d509ac18.th"),
    "cifar10-resnet56": _akamaster("resnet56", "resnet56-4bfd9763.th"),
    "cifar10-nhwc": _file("nhwc_cifar/cifar10_small.onnx", "cifar10", (3, 32, 32), dict(_UNIT)),
    "mnist-foreign": _file("cntk_mnist_onnx/mnist.onnx", "mnist", (1, 28, 28), dict(_UNIT)),
    "fashion-cnn": _file("fashion_cnn/fashion_mnist.onnx", "fashion-mnist", (1, 28, 28), dict(_UNIT)),
    "mnist-lenet5": _file(str(EXAMPLE / "teacher.onnx"), "mnist", (1, 32, 32), dict(_MNIST)),
    "mnist-bn": _trained("DigitNet", "mnist", (1, 28, 28), dict(_MNIST)),
    "mnist-hinton": _trained("hinton_teacher", "mnist", (1, 28, 28), dict(_MNIST)),
    "smiles-face": _trained("FaceNet", "smiles", (1, 64, 64), {"mean": (0.5,), "std": (0.25,)}),
    "fashion-transformer": _exported("SmallTransformer"),
    "fashion-convnext": _exported("SmallConvNeXt"),
}
"""By name; the last five need `benchmarks.train_teachers`."""

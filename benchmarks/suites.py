"""What is distilled: a teacher, a student and the data they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import EXAMPLE
from benchmarks.data import DATASETS
from edgedafl.files.labelled_arrays import LabelledData
from edgedafl.teachers import Teacher, TeacherOptions, load_teacher

__all__ = ["SUITES", "Suite"]

TRAINED = Path(__file__).resolve().parent / "trained"
"""Where `benchmarks.train_teachers` leaves its weights; not kept in the repository."""

_NETS = Path(__file__).resolve().parent / "nets.py"
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
_CIFAR100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}
_MNIST = {"mean": (0.1307,), "std": (0.3081,)}
_GARMENTS = {"mean": (0.286,), "std": (0.353,)}
_FACES = {"mean": (0.5,), "std": (0.25,)}


@dataclass(frozen=True)
class Suite:
    """One row of the tables.

    Attributes:
        teacher: Loads the teacher, given the folder of third-party models.
        student: Student by name.
        dataset: Test set by name.
        seconds: Default budget.
        origin: Who made the teacher.
    """

    teacher: Callable[[Path], Teacher]
    student: str
    dataset: str
    seconds: float
    origin: str

    def data(self, folder: Path, split: str, shape: tuple[int, int, int]) -> LabelledData:
        """Labelled images, `train` or `test`."""
        return DATASETS[self.dataset](folder, split, shape)


def _file(path: str, **options: object) -> Callable[[Path], Teacher]:
    return lambda models: load_teacher(str(models / path), TeacherOptions(**options))  # type: ignore[arg-type]


def _net(
    factory: str, shape: tuple[int, int, int], weights: str | Path, **options: object
) -> Callable[[Path], Teacher]:
    def load(models: Path) -> Teacher:
        declared = TeacherOptions(input_shape=shape, weights=models / weights, **options)  # type: ignore[arg-type]
        return load_teacher(f"benchmarks.nets:{factory}", declared)

    return load


def _wide(student: str) -> Suite:
    teacher = _net("wrn40_2", (3, 32, 32), TRAINED / "wrn40_2.safetensors", **_CIFAR10)
    return Suite(teacher, f"{_NETS}:{student}", "cifar10", 600.0, "benchmarks.train_teachers")


def _residual(classes: int, options: dict[str, tuple[float, ...]]) -> Suite:
    name = f"resnet34_cifar{classes}"
    teacher = _net(name, (3, 32, 32), TRAINED / f"{name}.safetensors", **options)
    return Suite(teacher, "resnet18", f"cifar{classes}", 600.0, "benchmarks.train_teachers")


SUITES: dict[str, Suite] = {
    "mnist-lenet5": Suite(
        _file(str(EXAMPLE / "teacher.onnx"), **_MNIST), "lenet5-half", "mnist", 180.0, "examples/mnist"
    ),
    "mnist-foreign": Suite(
        _file("cntk_mnist_onnx/mnist.onnx", input_range=(0.0, 1.0)), "auto", "mnist", 180.0, "third party"
    ),
    "mnist-hinton": Suite(
        _net("hinton_teacher", (1, 28, 28), TRAINED / "hinton_teacher.safetensors", **_MNIST),
        f"{_NETS}:hinton_student",
        "mnist",
        180.0,
        "benchmarks.train_teachers",
    ),
    "mnist-bn": Suite(
        _net("DigitNet", (1, 28, 28), TRAINED / "DigitNet.safetensors", **_MNIST),
        "lenet5-half",
        "mnist",
        180.0,
        "benchmarks.train_teachers",
    ),
    "fashion-cnn": Suite(
        _file("fashion_cnn/fashion_mnist.onnx", input_range=(0.0, 1.0)),
        "auto",
        "fashion-mnist",
        600.0,
        "third party",
    ),
    "fashion-transformer": Suite(
        _file(str(TRAINED / "SmallTransformer.onnx"), **_GARMENTS),
        "kept:0.6",
        "fashion-mnist",
        180.0,
        "benchmarks.train_teachers",
    ),
    "fashion-convnext": Suite(
        _file(str(TRAINED / "SmallConvNeXt.onnx"), **_GARMENTS),
        "kept:0.6",
        "fashion-mnist",
        180.0,
        "benchmarks.train_teachers",
    ),
    "smiles-face": Suite(
        _net("FaceNet", (1, 64, 64), TRAINED / "FaceNet.safetensors", **_FACES),
        f"{_NETS}:HalfFaceNet",
        "smiles",
        300.0,
        "benchmarks.train_teachers",
    ),
    "smiles-folded": Suite(
        _file(str(TRAINED / "FaceNet.onnx"), **_FACES),
        f"{_NETS}:HalfFaceNet",
        "smiles",
        300.0,
        "benchmarks.train_teachers",
    ),
    "cifar10-nhwc": Suite(
        _file("nhwc_cifar/cifar10_small.onnx", input_range=(0.0, 1.0)), "auto", "cifar10", 180.0, "third party"
    ),
    "cifar10-resnet20": Suite(
        _net("resnet20", (3, 32, 32), "akamaster_resnet_cifar10/resnet20-12fca82f.th", **_IMAGENET),
        "resnet20",
        "cifar10",
        7200.0,
        "third party",
    ),
    "cifar10-resnet34-resnet18": _residual(10, _CIFAR10),
    "cifar100-resnet34-resnet18": _residual(100, _CIFAR100),
    "cifar10-wrn-16-1": _wide("wrn16_1"),
    "cifar10-wrn-40-1": _wide("wrn40_1"),
    "cifar10-wrn-16-2": _wide("wrn16_2"),
}

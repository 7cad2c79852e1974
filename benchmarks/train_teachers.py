"""Trains the teachers of the suites on labelled data: the only place that learns from labels.

    python -m benchmarks.train_teachers FaceNet hinton_teacher --data DIR
    python -m benchmarks.train_teachers resnet34_cifar10 wrn40_2 --data DIR --device cuda --seconds 200

Weights go to `benchmarks/trained/`; a finished teacher is not trained again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import nets, newer_nets
from benchmarks.common import print_rows, write_result
from benchmarks.data import DATASETS
from benchmarks.suites import TRAINED
from benchmarks.zoo import export
from edgedafl.distill.training.augment import Augmentation
from edgedafl.distill.training.cuda_graph import CudaGraphStep
from edgedafl.preprocess import Preprocess

__all__ = ["RECIPES", "Recipe", "train"]


@dataclass(frozen=True)
class Recipe:
    """How one teacher is trained.

    Attributes:
        build: Makes the untrained network.
        dataset: By name.
        shape: (C, H, W).
        mean: Of its input.
        std: Of its input.
        epochs: Over the training set.
        batch: Images per step.
        rate: Peak rate of SGD with momentum 0.9; of Adam where `adam`.
        adam: Adam without decay, for small networks.
        crop: Pixels of padding for random crops.
        flip: Whether images are mirrored at random.
        cutout: Side of a square that is blanked at a random place (arXiv 1708.04552), in pixels.
        form: Of the ONNX file that is written beside the weights, see `zoo.export`; none where empty.
        warm_up: Share of the training in which the rate rises (one-cycle, arXiv 1708.07120).
    """

    build: Callable[[], nn.Module]
    dataset: str
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    batch: int
    rate: float
    adam: bool = False
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    warm_up: float = 0.0
    form: str = ""


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_SHAPE = (3, 32, 32)


def _large(
    build: Callable[[], nn.Module], dataset: str, moments: tuple[tuple[float, ...], tuple[float, ...]]
) -> Recipe:
    """Residual networks: one cycle, crops, mirroring, cutout.

    Labels are not smoothed: students learn less from such teachers (arXiv 1906.02629).
    """
    return Recipe(build, dataset, _SHAPE, *moments, 200, 256, 0.2, crop=4, flip=True, cutout=8, warm_up=0.15)


def _newer(build: Callable[[], nn.Module], rate: float, form: str) -> Recipe:
    """Transformers and their kin on garments."""
    return Recipe(
        build,
        "fashion-mnist",
        (1, 28, 28),
        (0.286,),
        (0.353,),
        10,
        128,
        rate,
        adam=True,
        flip=True,
        warm_up=0.1,
        form=form,
    )


RECIPES: dict[str, Recipe] = {
    "FaceNet": Recipe(
        nets.FaceNet, "smiles", (1, 64, 64), (0.5,), (0.25,), 6, 128, 2e-3, adam=True, flip=True, form="dynamo"
    ),
    "SmallTransformer": _newer(newer_nets.SmallTransformer, 2e-3, "script"),
    "SmallConvNeXt": _newer(newer_nets.SmallConvNeXt, 3e-3, "dynamo"),
    "hinton_teacher": Recipe(nets.hinton_teacher, "mnist", (1, 28, 28), (0.1307,), (0.3081,), 10, 256, 1e-3, adam=True),
    "DigitNet": Recipe(nets.DigitNet, "mnist", (1, 28, 28), (0.1307,), (0.3081,), 4, 128, 2e-3, adam=True),
    "resnet34_cifar10": _large(nets.resnet34_cifar10, "cifar10", _CIFAR10),
    "resnet34_cifar100": _large(nets.resnet34_cifar100, "cifar100", _CIFAR100),
    "wrn40_2": _large(nets.wrn40_2, "cifar10", _CIFAR10),
}


def train(
    name: str, data: Path, *, device: str = "cpu", epochs: int | None = None, seconds: float | None = None
) -> dict[str, object]:
    """Train one teacher and write its weights, and an ONNX file where its recipe says so.

    Args:
        name: Of its recipe.
        data: Folder of the datasets.
        device: Where to train.
        epochs: Instead of the recipe's.
        seconds: Train as many epochs as fit instead; the schedule follows the clock.

    Returns:
        Test accuracy in percent, seconds and epochs.
    """
    recipe = RECIPES[name]
    torch.manual_seed(0)
    net = recipe.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = _load(recipe, data, "train", device)
    count = epochs or recipe.epochs
    steps = count * (len(images) // recipe.batch)
    optimizer = _optimizer(net, recipe)
    preprocess = Preprocess.from_mean_std(recipe.mean, recipe.std, recipe.shape[0])
    positive = None if labels.ndim == 1 else (1 - labels).sum(0) / labels.sum(0)

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            scores = net(images)
        loss = _loss(scores.float(), labels, positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return (loss.detach(),)

    step = gradients if device == "cpu" else CudaGraphStep(gradients, net)
    started, taken = time.monotonic(), 0
    net.train()
    while (fraction := _fraction(taken / steps, seconds, started)) < 1:
        order = torch.randperm(len(images), device=device)
        for rows in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            fraction = _fraction(taken / steps, seconds, started)
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * _one_cycle(min(1.0, fraction), recipe.warm_up)
            varied = _varied(preprocess.from_pixels(images[rows]), recipe)
            step(varied.contiguous(memory_format=torch.channels_last), labels[rows])
            optimizer.step()
            taken += 1
        epoch = taken // (len(images) // recipe.batch)
        if epoch % 10 == 0:
            print(f"{name} epoch {epoch}, {time.monotonic() - started:.0f} s", flush=True)
    count = taken // (len(images) // recipe.batch)
    TRAINED.mkdir(exist_ok=True)
    net = net.eval().float().cpu().to(memory_format=torch.contiguous_format)
    test_images, test_labels = _load(recipe, data, "test", "cpu")
    correct = _accuracy(net.to(device), preprocess, test_images.to(device), test_labels.to(device))
    net = net.cpu()
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, TRAINED / f"{name}.safetensors")
    if recipe.form:
        export(net, recipe.shape, recipe.form, TRAINED / f"{name}.onnx")
    return {"teacher": name, "accuracy": 100 * correct, "seconds": time.monotonic() - started, "epochs": count}


def _load(recipe: Recipe, data: Path, split: str, device: str) -> tuple[Tensor, Tensor]:
    found = DATASETS[recipe.dataset](data, split, recipe.shape)
    labels = torch.from_numpy(found.labels)
    return torch.from_numpy(found.images).to(device), (labels if labels.ndim == 1 else labels.float()).to(device)


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.adam:
        return torch.optim.Adam(net.parameters(), recipe.rate)
    return torch.optim.SGD(net.parameters(), recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def _fraction(of_steps: float, seconds: float | None, started: float) -> float:
    """Progress by steps, or by the clock where there is a limit in seconds."""
    return of_steps if seconds is None else (time.monotonic() - started) / seconds


def _one_cycle(fraction: float, warm_up: float) -> float:
    """Share of the peak rate: a line up, then a cosine down to zero."""
    if fraction < warm_up:
        return fraction / warm_up
    return 0.5 * (1 + math.cos(math.pi * (fraction - warm_up) / (1 - warm_up)))


def _blanked(images: Tensor, side: int) -> Tensor:
    """Images (N,C,H,W) with a square of zeros, the mean of model space, each at a place of its own."""
    count, _, height, width = images.shape
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    top, left = (torch.randint(1 - side, size, (count, 1), device=images.device) for size in (height, width))
    inside_rows = (rows >= top) & (rows < top + side)
    inside_columns = (columns >= left) & (columns < left + side)
    blank = inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)
    return images * ~blank.unsqueeze(1)


def _varied(images: Tensor, recipe: Recipe) -> Tensor:
    """Random crops and mirroring; on CPUs crops are drawn per quarter of a batch."""
    if recipe.cutout:
        images = _blanked(images, recipe.cutout)
    if images.is_cuda and recipe.crop:
        return Augmentation(recipe.crop, recipe.flip, (0.0,) * images.shape[1])(images)
    if recipe.crop:
        pieces = []
        for part in images.chunk(4):
            padded = F.pad(part, (recipe.crop,) * 4)
            top, left = (int(torch.randint(2 * recipe.crop + 1, ())) for _ in range(2))
            pieces.append(padded[:, :, top : top + part.shape[2], left : left + part.shape[3]])
        images = torch.cat(pieces)
    if recipe.flip:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return images


def _loss(scores: Tensor, labels: Tensor, positive: Tensor | None) -> Tensor:
    if positive is None:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels, pos_weight=positive)


@torch.no_grad()
def _accuracy(net: nn.Module, preprocess: Preprocess, images: Tensor, labels: Tensor) -> float:
    right = 0
    for start in range(0, len(images), 500):
        scores = net(preprocess.from_pixels(images[start : start + 500]))
        guess = scores.argmax(1) if labels.ndim == 1 else (scores > 0).float()
        right += int((guess == labels[start : start + 500]).sum())
    return right / labels.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teachers", nargs="+", choices=list(RECIPES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, help="fewer epochs than the recipe's")
    parser.add_argument("--seconds", type=float, help="as many epochs as fit, instead")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="train finished ones again")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.teachers:
        if args.force or not (TRAINED / f"{name}.safetensors").exists():
            rows.append(train(name, args.data, device=args.device, epochs=args.epochs, seconds=args.seconds))
            write_result(f"teacher-{name}", {"device": args.device, **rows[-1]})
    if rows:
        print_rows(
            ["teacher", "test accuracy, %", "epochs", "seconds"],
            [[str(r["teacher"]), f"{r['accuracy']:.2f}", str(r["epochs"]), f"{r['seconds']:.0f}"] for r in rows],
        )


if __name__ == "__main__":
    main()

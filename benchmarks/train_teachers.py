"""Trains the teachers of the suites on labelled data: the only place that learns from labels.

    python -m benchmarks.train_teachers FaceNet hinton_teacher --data DIR
    python -m benchmarks.train_teachers resnet34_cifar10 resnet34_cifar100 wrn40_2 --data DIR --device cuda

Weights go to `benchmarks/trained/`; a finished teacher is not trained again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import nets
from benchmarks.common import print_rows, write_result
from benchmarks.data import DATASETS
from benchmarks.suites import TRAINED
from benchmarks.zoo import export
from edgedafl.distill.augment import Augmentation
from edgedafl.distill.recorded import RecordedStep
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
        rate: Peak rate of SGD with momentum 0.9 on a cosine; of Adam where `adam`.
        adam: Adam without decay, for small networks.
        crop: Pixels of padding for random crops.
        flip: Whether images are mirrored at random.
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


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_SHAPE = (3, 32, 32)

RECIPES: dict[str, Recipe] = {
    "FaceNet": Recipe(nets.FaceNet, "smiles", (1, 64, 64), (0.5,), (0.25,), 6, 128, 2e-3, adam=True, flip=True),
    "hinton_teacher": Recipe(nets.hinton_teacher, "mnist", (1, 28, 28), (0.1307,), (0.3081,), 10, 256, 1e-3, adam=True),
    "DigitNet": Recipe(nets.DigitNet, "mnist", (1, 28, 28), (0.1307,), (0.3081,), 4, 128, 2e-3, adam=True),
    "resnet34_cifar10": Recipe(nets.resnet34_cifar10, "cifar10", _SHAPE, *_CIFAR10, 200, 128, 0.1, crop=4, flip=True),
    "resnet34_cifar100": Recipe(
        nets.resnet34_cifar100, "cifar100", _SHAPE, *_CIFAR100, 200, 128, 0.1, crop=4, flip=True
    ),
    "wrn40_2": Recipe(nets.wrn40_2, "cifar10", _SHAPE, *_CIFAR10, 200, 128, 0.1, crop=4, flip=True),
}


def train(name: str, data: Path, *, device: str = "cpu", epochs: int | None = None) -> dict[str, object]:
    """Train one teacher and write its weights (and an ONNX file of the face attribute's).

    Returns:
        Test accuracy in percent, seconds and epochs.
    """
    recipe = RECIPES[name]
    torch.manual_seed(0)
    started = time.monotonic()
    net = recipe.build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, labels = _load(recipe, data, "train", device)
    count = epochs or recipe.epochs
    steps = count * (len(images) // recipe.batch)
    optimizer = _optimizer(net, recipe)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    preprocess = Preprocess.from_mean_std(recipe.mean, recipe.std, recipe.shape[0])
    positive = None if labels.ndim == 1 else (1 - labels).sum(0) / labels.sum(0)

    def gradients(images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            scores = net(images)
        loss = _loss(scores.float(), labels, positive)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return (loss.detach(),)

    step = gradients if device == "cpu" else RecordedStep(gradients, net)
    for epoch in range(count):
        net.train()
        order = torch.randperm(len(images), device=device)
        for rows in order.split(recipe.batch):
            if len(rows) < recipe.batch:
                continue
            varied = _varied(preprocess.from_pixels(images[rows]), recipe)
            step(varied.contiguous(memory_format=torch.channels_last), labels[rows])
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"{name} epoch {epoch + 1} of {count}, {time.monotonic() - started:.0f} s", flush=True)
    TRAINED.mkdir(exist_ok=True)
    net = net.eval().float().cpu().to(memory_format=torch.contiguous_format)
    test_images, test_labels = _load(recipe, data, "test", "cpu")
    correct = _accuracy(net.to(device), preprocess, test_images.to(device), test_labels.to(device))
    net = net.cpu()
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, TRAINED / f"{name}.safetensors")
    if name == "FaceNet":
        export(net, recipe.shape, "dynamo", TRAINED / f"{name}.onnx")
    return {"teacher": name, "accuracy": 100 * correct, "seconds": time.monotonic() - started, "epochs": count}


def _load(recipe: Recipe, data: Path, split: str, device: str) -> tuple[Tensor, Tensor]:
    found = DATASETS[recipe.dataset](data, split, recipe.shape)
    labels = torch.from_numpy(found.labels)
    return torch.from_numpy(found.images).to(device), (labels if labels.ndim == 1 else labels.float()).to(device)


def _optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.adam:
        return torch.optim.Adam(net.parameters(), recipe.rate)
    return torch.optim.SGD(net.parameters(), recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def _varied(images: Tensor, recipe: Recipe) -> Tensor:
    """Random crops and mirroring; on CPUs crops are drawn per quarter of a batch."""
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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="train finished ones again")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.teachers:
        if args.force or not (TRAINED / f"{name}.safetensors").exists():
            rows.append(train(name, args.data, device=args.device, epochs=args.epochs))
            write_result(f"teacher-{name}", {"device": args.device, **rows[-1]})
    if rows:
        print_rows(
            ["teacher", "test accuracy, %", "epochs", "seconds"],
            [[str(r["teacher"]), f"{r['accuracy']:.2f}", str(r["epochs"]), f"{r['seconds']:.0f}"] for r in rows],
        )


if __name__ == "__main__":
    main()

"""Train the LeNet-5 teacher of the DAFL paper on MNIST and write it as ONNX.

    python examples/mnist/train_teacher.py --data DIR

The network is the one of arXiv 1904.01186 (1-6-16-120-84-10, 61,706 parameters) on digits
resized from 28x28 to 32x32. Its ONNX interface takes `(x / 255 - 0.1307) / 0.3081`, any batch.
Beside the model it writes a class-balanced sample of 1,000 test images with labels, for
`edgedafl ... --eval`. Needs torch, numpy and onnx; nothing of EdgeDAFL.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = 0.1307, 0.3081


class LeNet5(nn.Module):
    """LeNet-5: three 5x5 convolutions, two linear layers, ReLU and max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


def read_idx(path: Path) -> np.ndarray:
    """Read one of MNIST's gzip-compressed idx files as a uint8 array."""
    blob = gzip.decompress(path.read_bytes())
    rank = blob[3]
    shape = struct.unpack(f">{rank}I", blob[4 : 4 + 4 * rank])
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * rank).reshape(shape)


def resize(images: np.ndarray) -> torch.Tensor:
    """Resize (N,28,28) uint8 digits to (N,1,32,32) uint8, bilinear."""
    x = torch.from_numpy(images.copy()).unsqueeze(1).float()
    return F.interpolate(x, size=32, mode="bilinear", align_corners=False).round().to(torch.uint8)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 pixels to the space the teacher takes."""
    return (images.float() / 255 - MEAN) / STD


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int) -> LeNet5:
    """Adam with a cosine rate; every image moved by up to two pixels, as digits are in life."""
    model = LeNet5()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        for i in range(0, len(order) - batch + 1, batch):
            rows = order[i : i + batch]
            dy, dx = (int(v) for v in torch.randint(-2, 3, (2,)))
            x = normalize(torch.roll(images[rows], (dy, dx), (2, 3)))
            loss = F.cross_entropy(model(x), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs} loss {loss.item():.4f}", flush=True)
    return model.eval()


@torch.no_grad()
def accuracy(model: LeNet5, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Top-1 accuracy in percent."""
    predicted = torch.cat([model(normalize(x)).argmax(1) for x in images.split(1000)])
    return 100 * float((predicted == labels).float().mean())


def write_model(path: Path, proto: onnx.ModelProto) -> None:
    """Write the model without the source paths and stack traces that the exporter notes in it."""
    del proto.metadata_props[:]
    for item in [proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.value_info]:
        item.doc_string = ""
        del item.metadata_props[:]
    path.write_bytes(proto.SerializeToString())


def write_sample(path: Path, images: torch.Tensor, labels: torch.Tensor, per_class: int) -> None:
    """Write the first `per_class` test images of every class as uint8 NCHW with labels."""
    rows = torch.cat([torch.nonzero(labels == k).flatten()[:per_class] for k in range(10)])
    rows = rows.sort().values
    np.savez_compressed(path, images=images[rows].numpy(), labels=labels[rows].numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx .gz files")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)

    def split(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        images = resize(read_idx(args.data / f"{name}-images-idx3-ubyte.gz"))
        labels = read_idx(args.data / f"{name}-labels-idx1-ubyte.gz")
        return images, torch.from_numpy(labels.astype(np.int64))

    model = train(*split("train"), epochs=args.epochs, batch=256)
    test_images, test_labels = split("t10k")
    score = accuracy(model, test_images, test_labels)
    args.output.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 32, 32),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    write_model(args.output / "teacher.onnx", program.model_proto)
    write_sample(args.output / "sample.npz", test_images, test_labels, per_class=100)
    print(json.dumps({"test_accuracy_percent": round(score, 2), "seed": args.seed}))


if __name__ == "__main__":
    main()

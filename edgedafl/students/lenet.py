"""LeNet-5 in any width, for small images of one or three channels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LeNet"]


class LeNet(nn.Module):
    """LeNet-5 (6-16-120-84 channels at width 1); width 0.5 is the DAFL paper's student.

    The third kernel covers what is left of the image, up to 5x5, so that 28x28 works as 32x32
    does; larger maps are averaged.

    Args:
        input_shape: (C, H, W), each side at least 16.
        num_classes: K.
        width: Factor on every channel count.

    Examples:
        >>> import torch
        >>> LeNet((1, 28, 28), 10, 1.0)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, width: float) -> None:
        super().__init__()
        a, b, c, d = (max(1, int(n * width)) for n in (6, 16, 120, 84))
        sides = [((side - 4) // 2 - 4) // 2 for side in input_shape[1:]]
        kernel = (min(5, sides[0]), min(5, sides[1]))
        self.conv1 = nn.Conv2d(input_shape[0], a, 5)
        self.conv2 = nn.Conv2d(a, b, 5)
        self.conv3 = nn.Conv2d(b, c, kernel)
        self.pool = nn.Identity() if tuple(sides) == kernel else nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(c, d)
        self.fc2 = nn.Linear(d, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.pool(F.relu(self.conv3(x))).flatten(1)
        logits: Tensor = self.fc2(F.relu(self.fc1(x)))
        return logits

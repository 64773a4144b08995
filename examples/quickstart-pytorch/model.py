"""The network of PyTorch's CIFAR-10 tutorial: two convolutions and three linear layers, for 32x32 or 28x28 images."""

import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    """(n, channels, size, size) images to (n, 10) scores; 62,006 parameters at 3x32x32, 44,426 at 1x28x28."""

    def __init__(self, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2  # two 5x5 convolutions, each halved by a pool: 5 of 32, 4 of 28
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores before the softmax."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (n, 6, 14, 14) of 32
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (n, 16, 5, 5)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        x = F.relu(self.fc2(x))
        scores: torch.Tensor = self.fc3(x)
        return scores

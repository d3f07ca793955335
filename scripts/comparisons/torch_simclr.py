"""SimCLR in plain PyTorch: its network, loss and step."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int
) -> nn.Sequential:
    """Returns a convolution with batch normalization."""
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, bias=False
        ),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        """Makes the layers."""
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3, 1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = convolution(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the residual to the shortcut."""
        residual = self.second(functional.relu(self.first(x)))
        return functional.relu(residual + self.shortcut(x))


class Bottleneck(nn.Module):
    """A residual block of three convolutions, the last four times as wide."""

    def __init__(self, inputs: int, width: int, stride: int):
        """Makes the layers."""
        super().__init__()
        outputs = 4 * width
        self.residual = nn.Sequential(
            convolution(inputs, width, 1, 1),
            nn.ReLU(inplace=True),
            convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            convolution(width, outputs, 1, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = convolution(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the residual to the shortcut."""
        return functional.relu(
            self.residual(x) + self.shortcut(x), inplace=True
        )


def nano_blocks() -> list[nn.Module]:
    """Returns the stem and the blocks of `resnet_nano`."""
    return [
        convolution(3, 32, 3, 2),
        nn.ReLU(),
        Block(32, 32, 1),
        Block(32, 64, 2),
        Block(64, 128, 2),
    ]


def bottlenecks(width: int, counts: Sequence[int]) -> list[nn.Module]:
    """Returns the stem and the blocks of a ResNet whose stages are as wide."""
    blocks: list[nn.Module] = [convolution(3, width, 3, 2), nn.ReLU(True)]
    inputs = width
    for stage, count in enumerate(counts):
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(Bottleneck(inputs, width, stride))
            inputs = 4 * width
    return blocks


class SimCLR(nn.Module):
    """An encoder, by default `resnet_nano`, and a projector of two layers."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        blocks: Sequence[nn.Module] | None = None,
        features: int = 128,
        projection: int = 64,
    ) -> None:
        """Makes the layers.

        Args:
            blocks: the encoder before its pooling.
            features: int, the width of its last block.
            projection: int, the width of projections.
        """
        super().__init__()
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])
        self.encoder = nn.Sequential(
            *(nano_blocks() if blocks is None else blocks),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.projector = nn.Sequential(
            nn.Linear(features, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Linear(features, projection, bias=False),
            nn.BatchNorm1d(projection),
        )

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the features of images in [0, 1]."""
        return self.encoder((x - self.mean) / self.std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the projections of images in [0, 1]."""
        return self.projector(self.embed(x))


def initialize_as_keras(model: nn.Module) -> None:
    """Draws the weights anew from the distributions of kerassl's models."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            # Two standard deviations are cut off, and made up for.
            std = math.sqrt(2 / fan_in) / 0.87962566103423978
            nn.init.trunc_normal_(module.weight, 0, std, -2 * std, 2 * std)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def nt_xent(projections: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns the mean cross-entropy over the 2N projections."""
    count = len(projections)
    z = functional.normalize(projections)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(-math.inf)
    partners = (torch.arange(count) + count // 2) % count
    return functional.cross_entropy(logits, partners)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: tuple[torch.Tensor, torch.Tensor],
    temperature: float,
) -> float:
    """Takes one step and returns the loss."""
    loss = nt_xent(model(torch.cat(tuple(views))), temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """Makes a float tensor (N, C, H, W) in [0, 1] of uint8 images."""
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return tensor.float().div(255).contiguous()

"""IResNet, the residual network of ArcFace, with the names of InsightFace's arcface_torch.

The blocks are "BN-Conv-BN-PReLU-Conv-BN" with the stride in the second convolution, after Deng et
al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019, section 3.1 and
Han et al., "Deep Pyramidal Residual Networks", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from evalkit.backends.architectures.base import Architecture

WIDTHS = (64, 128, 256, 512)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """One residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = conv(outputs, outputs, 3, stride)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features of the block's input."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        out: torch.Tensor = y + self.downsample(x)
        return out


class Network(nn.Module):
    """The whole network: faces of shape (n, 3, 112, 112) to embeddings of shape (n, features).

    Parameters
    ----------
    blocks : tuple of int
        Residual blocks of each of the four stages; each stage halves the sides.
    features : int
        Size of the embedding.
    positions : int
        Places of the last feature map: 7 x 7 for faces of 112 x 112.
    """

    def __init__(self, blocks: tuple[int, ...], features: int, positions: int) -> None:
        super().__init__()
        self.conv1 = conv(3, WIDTHS[0], 3)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        inputs = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True), start=1):
            first = Block(inputs, width, stride=2)
            rest = (Block(width, width, stride=1) for _ in range(count - 1))
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            inputs = width
        self.bn2 = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout(p=0.0)
        self.fc = nn.Linear(inputs * positions, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the embeddings, norm kept."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        x = self.dropout(self.bn2(x).flatten(1))
        out: torch.Tensor = self.features(self.fc(x))
        return out


class IResNet(Architecture):
    """Common to all depths."""

    input_shape = (3, 112, 112)
    blocks: ClassVar[tuple[int, ...]]

    @classmethod
    def build(cls, weights: Mapping[str, torch.Tensor]) -> nn.Module:
        """See `Architecture.build`: the embedding's size is that of ``fc.weight``."""
        features, flat = weights["fc.weight"].shape
        return Network(cls.blocks, features, flat // WIDTHS[-1])


class IResNet18(IResNet):
    """18 layers."""

    blocks = (2, 2, 2, 2)


class IResNet34(IResNet):
    """34 layers."""

    blocks = (3, 4, 6, 3)


class IResNet50(IResNet):
    """50 layers."""

    blocks = (3, 4, 14, 3)


class IResNet100(IResNet):
    """100 layers."""

    blocks = (3, 13, 30, 3)


class IResNet200(IResNet):
    """200 layers."""

    blocks = (6, 26, 60, 6)

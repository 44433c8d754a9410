"""RetinaFace with the MobileNet backbone of width 0.25, for files that hold weights alone.

After Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild" (2019); the
names of modules are those of the public PyTorch weights (biubug6's ``mobilenet0.25``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalkit.backends.architectures.base import Architecture

_SLOPE = 0.1
_PRIORS = 2
_WIDTH = 64


def _conv(inside: int, outside: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    return nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)


def _unit(
    inside: int, outside: int, size: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = _conv(inside, outside, size, stride, groups)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.LeakyReLU(_SLOPE))


def _linear(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(_conv(inside, outside), nn.BatchNorm2d(outside))


def _separable(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        *_unit(inside, inside, 3, stride, groups=inside), *_unit(inside, outside, 1)
    )


class _Backbone(nn.Module):
    """MobileNet v1 at a quarter of its width; gives the maps of strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            _unit(3, 8, stride=2),
            _separable(8, 16),
            _separable(16, 32, 2),
            _separable(32, 32),
            _separable(32, 64, 2),
            _separable(64, 64),
        )
        self.stage2 = nn.Sequential(
            _separable(64, 128, 2), *(_separable(128, 128) for _ in range(5))
        )
        self.stage3 = nn.Sequential(_separable(128, 256, 2), _separable(256, 256))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.stage1(image)
        middle = self.stage2(fine)
        return fine, middle, self.stage3(middle)


class _Pyramid(nn.Module):
    """Feature pyramid: each map is enriched by the coarser one."""

    def __init__(self) -> None:
        super().__init__()
        self.output1 = _unit(64, _WIDTH, 1)
        self.output2 = _unit(128, _WIDTH, 1)
        self.output3 = _unit(256, _WIDTH, 1)
        self.merge1 = _unit(_WIDTH, _WIDTH)
        self.merge2 = _unit(_WIDTH, _WIDTH)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = self.output1(maps[0]), self.output2(maps[1]), self.output3(maps[2])
        middle = self.merge2(middle + functional.interpolate(coarse, size=middle.shape[2:]))
        fine = self.merge1(fine + functional.interpolate(middle, size=fine.shape[2:]))
        return fine, middle, coarse


class _Context(nn.Module):
    """SSH's context module: views of 3, 5 and 7 pixels side by side."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _WIDTH // 2, _WIDTH // 4
        self.conv3X3 = _linear(_WIDTH, half)
        self.conv5X5_1 = _unit(_WIDTH, quarter)
        self.conv5X5_2 = _linear(quarter, quarter)
        self.conv7X7_2 = _unit(quarter, quarter)
        self.conv7x7_3 = _linear(quarter, quarter)

    def forward(self, features: Tensor) -> Tensor:
        shared = self.conv5X5_1(features)
        wide = self.conv7x7_3(self.conv7X7_2(shared))
        parts = [self.conv3X3(features), self.conv5X5_2(shared), wide]
        return torch.relu(torch.cat(parts, dim=1))


class _Head(nn.Module):
    """A 1x1 convolution whose result is a row of `columns` for each prior."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.conv1x1 = nn.Conv2d(_WIDTH, _PRIORS * columns, 1)

    def forward(self, features: Tensor) -> Tensor:
        rows: Tensor = self.conv1x1(features).permute(0, 2, 3, 1)
        return rows.reshape(rows.shape[0], -1, self.columns)


class Network(nn.Module):
    """The whole detector.

    Its input is (batch, 3, height, width), BGR minus (104, 117, 123), of any size; its outputs
    are box offsets (batch, n, 4), class probabilities (batch, n, 2) and landmark offsets
    (batch, n, 10), as the head ``retinaface`` reads them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _Backbone()
        self.fpn = _Pyramid()
        self.ssh1 = _Context()
        self.ssh2 = _Context()
        self.ssh3 = _Context()
        self.ClassHead = nn.ModuleList(_Head(2) for _ in range(3))
        self.BboxHead = nn.ModuleList(_Head(4) for _ in range(3))
        self.LandmarkHead = nn.ModuleList(_Head(10) for _ in range(3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network; see the class."""
        fine, middle, coarse = self.fpn(self.body(image))
        levels = self.ssh1(fine), self.ssh2(middle), self.ssh3(coarse)
        boxes, scores, landmarks = (
            torch.cat([head(level) for head, level in zip(heads, levels, strict=True)], dim=1)
            for heads in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, scores.softmax(dim=2), landmarks


class RetinaFaceMobileNet025(Architecture):
    """The architecture ``retinaface-mobilenet025``."""

    input_shape: ClassVar[tuple[int | None, ...]] = (3, None, None)

    @classmethod
    def build(cls, weights: Mapping[str, Tensor]) -> nn.Module:
        """See `Architecture.build`; the network has one size, whatever the weights."""
        return Network()

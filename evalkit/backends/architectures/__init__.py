"""Architectures: networks in code, for files that hold weights alone."""

from __future__ import annotations

from evalkit.backends.architectures.base import Architecture
from evalkit.core.registry import Entry, Registry

_IRESNET = "evalkit.backends.architectures.iresnet:IResNet"

ARCHITECTURES: Registry[type[Architecture]] = Registry(
    "architecture",
    Architecture,
    {
        f"iresnet{depth}": Entry(f"{_IRESNET}{depth}", extra="torch")
        for depth in (18, 34, 50, 100, 200)
    }
    | {
        "retinaface-mobilenet025": Entry(
            "evalkit.backends.architectures.retinaface:RetinaFaceMobileNet025", extra="torch"
        )
    },
)

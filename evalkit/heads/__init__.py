"""Heads: from raw tensors to embeddings or detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evalkit.core.errors import InputError
from evalkit.core.registry import Entry, Registry
from evalkit.heads.detection import DetectionHead

HEADS: Registry[type[DetectionHead]] = Registry(
    "head",
    DetectionHead,
    {
        "retinaface": Entry("evalkit.heads.retinaface:RetinaFace"),
        "scrfd": Entry("evalkit.heads.scrfd:Scrfd"),
        "yunet": Entry("evalkit.heads.yunet:YuNet"),
        "yolo-face": Entry("evalkit.heads.yolo_face:YoloFace"),
        "ultraface": Entry("evalkit.heads.ultraface:UltraFace"),
        "boxes": Entry("evalkit.heads.boxes:Boxes"),
    },
)


def build_head(name: str, settings: Mapping[str, Any] | None = None) -> DetectionHead:
    """Build a registered detection head from settings as YAML gives them.

    Parameters
    ----------
    name : str
        Registered name, such as ``retinaface``.
    settings : mapping, optional
        Attributes of the head's class that differ from its defaults.

    Raises
    ------
    evalkit.core.errors.InputError
        The name or a setting is unknown, or a value does not fit.

    Examples
    --------
    >>> build_head("scrfd", {"anchors": 1})
    Scrfd(strides=(8, 16, 32), anchors=1)
    """
    kind = HEADS.get(name)
    try:
        head: DetectionHead = TypeAdapter(kind).validate_python(dict(settings or {}))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise InputError(f"Settings of the head {name!r}: {'; '.join(lines)}.") from error
    return head

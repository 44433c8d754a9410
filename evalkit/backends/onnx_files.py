"""Where an ONNX file keeps its weights, read without the onnx package and before any runtime.

A tensor may name a file of its own as ``location`` in its ``external_data`` [1]_. The name comes
from the model, so it is held to the model's folder before a runtime follows it.

References
----------
.. [1] https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from evalkit.errors import InputError

# Field numbers of onnx.proto3. Only messages on a way to a tensor are looked into.
_WAYS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEPTH = 64


@dataclass(frozen=True, slots=True)
class External:
    """A stretch of another file that holds a tensor: its name, start and length in bytes."""

    location: str
    offset: int = 0
    length: int = 0

    @property
    def inside(self) -> bool:
        """Whether it names a file below the model's folder."""
        path = PurePosixPath(self.location.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts
        drive = PureWindowsPath(self.location).drive
        return bool(path.name) and not outside and not drive and "\0" not in self.location

    def file(self, model: Path) -> Path:
        """Return its path, for a model."""
        return model.parent / self.location.replace("\\", "/")


def external_data(model: Path) -> list[External]:
    """List what the tensors of an ONNX file keep in other files; empty for what is no ONNX file."""
    return _read(model.read_bytes()) or []


def check_external_data(model: Path) -> None:
    """Refuse a model whose external data is missing, cut short, or outside its folder.

    Raises
    ------
    evalkit.errors.InputError
        Names the data's file.
    """
    content = model.read_bytes()
    found = _read(content)
    if found is None and b"location" in content:  # what cannot be checked is not loaded
        raise InputError(
            f"{model} keeps weights in other files, but is damaged: it cannot be read to its end. "
            "Fetch or export it again."
        )
    for data in dict.fromkeys(found or []):
        if not data.inside:
            raise InputError(
                f"{model} keeps weights in {data.location!r}, which is no path below its own "
                "folder. Take models only from those you trust; to mend one, load it with onnx "
                "and save it as one file."
            )
        file = data.file(model)
        if not file.is_file():
            raise InputError(
                f"{model} keeps weights in {data.location!r}, and {file} is missing. Put it beside "
                "the model, under just this name."
            )
        size = file.stat().st_size
        if size < data.offset + data.length:
            raise InputError(
                f"{model} keeps weights in {file} up to byte {data.offset + data.length:,}, but "
                f"that file has {size:,} bytes. Fetch or export it again."
            )


def _read(content: bytes) -> list[External] | None:
    """List the external data; None for what is not a protobuf, or is cut short."""
    try:
        return [_external(entries) for entries in _tensors(memoryview(content), "model")]
    except (ValueError, IndexError):
        return None


def _external(entries: dict[str, str]) -> External:
    return External(
        entries.get("location", ""), int(entries.get("offset", 0)), int(entries.get("length", 0))
    )


def _tensors(message: memoryview, kind: str, depth: int = 0) -> Iterator[dict[str, str]]:
    """Yield the external entries of every tensor in a message that has any."""
    if depth > _DEPTH:
        raise ValueError("messages nested too deep")
    entries: dict[str, str] = {}
    for number, value in _fields(message):
        way = _WAYS[kind].get(number)
        if way == "entry":
            pair = {field: bytes(text).decode("utf-8", "replace") for field, text in _fields(value)}
            entries[pair.get(1, "")] = pair.get(2, "")
        elif way is not None:
            yield from _tensors(value, way, depth + 1)
    if entries:
        yield entries


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of every length-delimited field; skip the others."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field reaches beyond its message")
            yield key >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError(f"no wire type {kind}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")

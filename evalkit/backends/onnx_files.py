"""The external data and the versions of an ONNX file, read before any runtime opens it.

The package onnx is optional, and not used here.

A tensor may keep its values in another file, named ``location`` in its ``external_data`` [1]_. The
name comes from the model, so it must lie inside the model's folder before a runtime follows it.

References
----------
.. [1] https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from evalkit.core.errors import InputError

# Field numbers of onnx.proto3. Only messages that can contain a tensor are read.
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
_IR_VERSION, _OPSETS = 1, 8  # fields of the model; of an opset: 1, its domain, and 2, its version


@dataclass(frozen=True, slots=True)
class External:
    """The part of another file that holds a tensor: the file's name, start and length in bytes."""

    location: str
    offset: int = 0
    length: int = 0

    @property
    def inside(self) -> bool:
        """Whether the file lies below the model's folder."""
        path = PurePosixPath(self.location.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts
        drive = PureWindowsPath(self.location).drive
        return bool(path.name) and not outside and not drive and "\0" not in self.location

    def file(self, model: Path) -> Path:
        """Return the file's path, for a model."""
        return model.parent / self.location.replace("\\", "/")


def external_data(model: Path) -> list[External]:
    """List the external data of an ONNX file's tensors; empty if it is no ONNX file."""
    return _read(model.read_bytes()) or []


def check_external_data(model: Path, content: bytes) -> None:
    """Check that a model's external data exists, is complete, and lies inside its folder.

    Parameters
    ----------
    model : Path
        The ONNX file.
    content : bytes
        Of that file.

    Raises
    ------
    evalkit.core.errors.InputError
        The message names the data's file.
    """
    external = _read(content)
    if external is None and b"location" in content:  # a model that cannot be checked is not loaded
        raise InputError(
            f"{model} keeps weights in other files, but is damaged: it cannot be read to its end. "
            "Fetch or export it again."
        )
    for data in dict.fromkeys(external or []):
        if not data.inside:
            raise InputError(
                f"{model} keeps weights in {data.location!r}, which is no path below its own "
                "folder. Do not use models from sources that you do not trust. To repair one, load "
                "it with onnx and save it as one file."
            )
        file = data.file(model)
        if not file.is_file():
            raise InputError(
                f"{model} keeps weights in {data.location!r}, and {file} is missing. Put it beside "
                "the model, under this name."
            )
        size = file.stat().st_size
        if size < data.offset + data.length:
            raise InputError(
                f"{model} keeps weights in {file} up to byte {data.offset + data.length:,}, but "
                f"that file has {size:,} bytes. Fetch or export it again."
            )


def check_versions(model: Path, content: bytes, runtime: str, *, opset: int, ir: int) -> None:
    """Check that a model is not too new, for a runtime that does not check by itself.

    Such a runtime runs its own newest operator of that name, which may compute something else.

    Parameters
    ----------
    model : Path
        The ONNX file; the runtime reports a damaged one.
    content : bytes
        Of that file.
    runtime : str
        Its name and version, for the message.
    opset, ir : int
        The newest opset of ONNX's own operators, and version of the file format, that it knows.

    Raises
    ------
    evalkit.core.errors.InputError
        The model is too new.
    """
    model_ir, model_opset = _versions(content)
    for name, version, newest in (("opset", model_opset, opset), ("IR version", model_ir, ir)):
        if version > newest:
            raise InputError(
                f"{model} is of ONNX {name} {version}, and {runtime} knows {name}s up to {newest}; "
                f"it would run the model with older operators. Export it with {name} {newest} or "
                "older, or choose another backend."
            )


def _versions(content: bytes) -> tuple[int, int]:
    """Read the version of the format and the opset of ONNX's own operators; 0 if there is none.

    Of several, the highest counts: runtimes differ in which they use.
    """
    ir = opset = 0
    try:
        for number, value in _all_fields(memoryview(content)):
            if number == _IR_VERSION and isinstance(value, int):
                ir = max(ir, value)
            elif number == _OPSETS and not isinstance(value, int):
                fields = dict(_all_fields(value))
                domain, version = fields.get(1, b""), fields.get(2, 0)
                if not isinstance(domain, int) and bytes(domain) in {b"", b"ai.onnx"}:
                    opset = max(opset, version if isinstance(version, int) else 0)
    except (ValueError, IndexError):
        return 0, 0
    return ir, opset


def _read(content: bytes) -> list[External] | None:
    """List the external data; None if the content is no protobuf, or is incomplete."""
    try:
        tensors = _tensors(memoryview(content), "model")
        return [
            External(t.get("location", ""), int(t.get("offset", 0)), int(t.get("length", 0)))
            for t in tensors
        ]
    except (ValueError, IndexError):
        return None


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
    for number, value in _all_fields(message):
        if not isinstance(value, int):
            yield number, value


def _all_fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield number and content of every field; skip numbers of fixed size."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        elif kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field extends beyond its message")
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

"""The inputs that a Caffe network's ``.prototxt`` declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from evalkit.core.errors import InputError

_MOST_DEPTH = 100
_TOKEN = re.compile(
    r"""\#[^\n]*|[\s,;]+|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<mark>[{}:<>\[\]])|(?P<word>[^\s,;{}:<>\[\]"'#]+)"""
)

Message: TypeAlias = "list[tuple[str, str | Message]]"


@dataclass(frozen=True, slots=True)
class InputShape:
    """An input's name and its dimensions, the batch first."""

    name: str
    shape: tuple[int, ...]


def read_inputs(file: Path) -> tuple[InputShape, ...]:
    """List a network's inputs: of ``input`` fields and of layers of type ``Input``.

    Parameters
    ----------
    file : Path
        A network in protobuf's text format.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is no such text.
    """
    try:
        text = file.read_text(encoding="utf-8")
        network = _message(_tokens(text))
        return (*_declared(network), *_layers(network))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no valid prototxt: {error}. Export it again.") from error


def _declared(network: Message) -> list[InputShape]:
    """Read ``input`` with ``input_shape`` or, older, four ``input_dim`` each."""
    names = [str(value) for key, value in network if key == "input"]
    dims = [int(str(value)) for key, value in network if key == "input_dim"]
    shapes = [_dims(value) for key, value in network if key == "input_shape"]
    shapes = shapes or [tuple(dims[at : at + 4]) for at in range(0, len(dims), 4)]
    if len(names) != len(shapes):
        raise ValueError(f"it names {len(names)} inputs and {len(shapes)} shapes")
    return [InputShape(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _layers(network: Message) -> list[InputShape]:
    inputs = []
    for key, layer in network:
        if key != "layer" or isinstance(layer, str) or ("type", "Input") not in layer:
            continue
        names = [str(value) for name, value in layer if name == "top"]
        shapes = [
            _dims(shape)
            for name, parameters in layer
            if name == "input_param" and not isinstance(parameters, str)
            for field, shape in parameters
            if field == "shape"
        ]
        # One shape serves every top.
        shapes = shapes * len(names) if len(shapes) == 1 else shapes
        if len(names) != len(shapes):
            raise ValueError(f"an Input layer has {len(names)} tops and {len(shapes)} shapes")
        inputs += [InputShape(name, shape) for name, shape in zip(names, shapes, strict=True)]
    return inputs


def _dims(shape: str | Message) -> tuple[int, ...]:
    if isinstance(shape, str):
        raise ValueError(f"{shape!r} stands where a shape is expected")
    return tuple(int(str(value)) for key, value in shape if key == "dim")


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise ValueError(f"line {line} holds {text[at : at + 20]!r}, which is no prototxt")
        at = match.end()
        if match["text"]:
            yield match["text"][1:-1]
        elif match["mark"] or match["word"]:
            yield match["mark"] or match["word"]


def _message(tokens: Iterator[str], depth: int = 0) -> Message:
    """Read fields up to the closing brace, or the end."""
    if depth > _MOST_DEPTH:
        raise ValueError("its messages are nested too deeply")
    fields: Message = []
    for key in tokens:
        if key in {"}", ">"}:
            if depth:
                return fields
            raise ValueError("a brace closes what none opened")
        value = next(tokens, "")
        if value == ":":
            value = next(tokens, "")
        if value in {"{", "<"}:
            fields.append((key, _message(tokens, depth + 1)))
        elif value == "[":
            fields += [(key, item) for item in iter(lambda: next(tokens, "]"), "]")]
        elif value:
            fields.append((key, value))
        else:
            raise ValueError(f"it ends after {key!r}")
    if depth:
        raise ValueError("a brace is not closed")
    return fields

"""The inputs that a Caffe network's ``.prototxt`` declares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from evalkit.backends.tensors import explained

_MOST_DEPTH = 100
_TOKEN = re.compile(
    r"""\#[^\n]*|[\s,;]+|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<mark>[{}:<>\[\]])|(?P<word>[^\s,;{}:<>\[\]"'#]+)"""
)

Message: TypeAlias = "dict[str, list[str | Message]]"


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
    with explained(f"{file} is no valid prototxt", "Export it again.", (OSError, ValueError)):
        network = _message(_tokens(file.read_text(encoding="utf-8")))
        return (*_declared(network), *_layers(network))


def _declared(network: Message) -> list[InputShape]:
    """Read ``input`` with ``input_shape`` or, in older files, four ``input_dim`` each."""
    dims = [int(value) for value in _texts(network, "input_dim")]
    shapes = [_dims(shape) for shape in _messages(network, "input_shape")]
    shapes = shapes or [tuple(dims[at : at + 4]) for at in range(0, len(dims), 4)]
    return _paired("it names {} inputs and {} shapes", _texts(network, "input"), shapes)


def _layers(network: Message) -> list[InputShape]:
    inputs = []
    for layer in _messages(network, "layer"):
        if "Input" in layer.get("type", ()):
            names = _texts(layer, "top")
            parameters = _messages(layer, "input_param")
            shapes = [_dims(shape) for item in parameters for shape in _messages(item, "shape")]
            # One shape serves every top.
            shapes = shapes * len(names) if len(shapes) == 1 else shapes
            inputs += _paired("an Input layer has {} tops and {} shapes", names, shapes)
    return inputs


def _paired(message: str, names: list[str], shapes: list[tuple[int, ...]]) -> list[InputShape]:
    if len(names) != len(shapes):
        raise ValueError(message.format(len(names), len(shapes)))
    return [InputShape(name, shape) for name, shape in zip(names, shapes, strict=True)]


def _dims(shape: Message) -> tuple[int, ...]:
    return tuple(int(value) for value in _texts(shape, "dim"))


def _texts(message: Message, key: str) -> list[str]:
    return [str(value) for value in message.get(key, ())]


def _messages(message: Message, key: str) -> list[Message]:
    return [value for value in message.get(key, ()) if not isinstance(value, str)]


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
    fields: Message = {}
    for key in tokens:
        if key in {"}", ">"}:
            if depth:
                return fields
            raise ValueError("a brace closes what none opened")
        value = next(tokens, "")
        if value == ":":
            value = next(tokens, "")
        if value in {"{", "<"}:
            fields.setdefault(key, []).append(_message(tokens, depth + 1))
        elif value == "[":
            fields.setdefault(key, []).extend(iter(lambda: next(tokens, "]"), "]"))
        elif value:
            fields.setdefault(key, []).append(value)
        else:
            raise ValueError(f"it ends after {key!r}")
    if depth:
        raise ValueError("a brace is not closed")
    return fields

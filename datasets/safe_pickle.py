"""Reads the pickles that hold face verification sets without unpickling them.

A pickle is a program. Here a small interpreter runs the few opcodes that such files need, on
plain values only. It never imports, never calls and never sets an attribute of any object: the
handful of functions that such files name (NumPy's array reconstruction, ``_codecs.encode``) are
stand-ins that this module computes itself. It refuses every other opcode by name, before it reads
what follows. The opcodes are counted and no argument is longer than the file, so memory is bounded.
"""

from __future__ import annotations

import codecs
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

from evalkit.datasets.errors import DatasetError

MAX_OPCODES: Final = 2_000_000
"""LFW has 30,000 (byte strings) to 500,000 (arrays, oldest protocol). So many opcodes cannot
allocate more than half a gigabyte."""
MAX_DEPTH: Final = 16
"""Of marks; these files need four."""
MAX_BITS: Final = 64
"""Of a number."""
HIGHEST_PROTOCOL: Final = 5

_REMEDY: Final = "Do not open it with other tools unless you trust where it comes from."
_TEXT_ESCAPES: Final = re.compile(rb"(?:[^\\]++|\\(?:[\\'\"abfnrtv]|x[0-9a-fA-F]{2}))*+", re.DOTALL)


class _Function(Enum):
    """What a file may name."""

    RECONSTRUCT = "_reconstruct"
    SCALAR = "scalar"
    FROM_BUFFER = "_frombuffer"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    ENCODE = "encode"


_GLOBALS: Final[Mapping[tuple[str, str], _Function]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Function.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _Function.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _Function.SCALAR,
    ("numpy._core.multiarray", "scalar"): _Function.SCALAR,
    ("numpy.core.numeric", "_frombuffer"): _Function.FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _Function.FROM_BUFFER,
    ("numpy", "ndarray"): _Function.NDARRAY,
    ("numpy", "dtype"): _Function.DTYPE,
    ("_codecs", "encode"): _Function.ENCODE,
}


class _Dtype(Enum):
    """The element types that a file may hold."""

    UINT8 = "u1"
    BOOL = "b1"


@dataclass(slots=True, eq=False)
class RawArray:
    """A NumPy array as the file holds it.

    Attributes
    ----------
    dtype : {'u1', 'b1', 'i1'}
        Bytes or booleans; ``i1`` is an array that the file makes but never fills.
    shape : tuple of int
    data : bytes
    """

    dtype: str = "i1"
    shape: tuple[int, ...] = (0,)
    data: bytes = b""


def load_plain(data: bytes, path: str | Path) -> object:
    """Return the value of a pickle that holds only plain data.

    Parameters
    ----------
    data : bytes
        The file.
    path : path-like
        Its name, for messages.

    Returns
    -------
    object
        Nested `list` and `tuple` of `bool`, `int`, `str`, None, `bytes` (byte strings of
        Python 2 and 3) and `RawArray`. NumPy's boolean and uint8 scalars become bool and int.

    Raises
    ------
    DatasetError
        The file names or does anything else, is cut off, or is not a pickle.

    Examples
    --------
    >>> import pickle
    >>> load_plain(pickle.dumps(([True], None)), "a.bin")
    ([True], None)
    >>> load_plain(pickle.dumps(print), "a.bin")
    Traceback (most recent call last):
    evalkit.datasets.errors.DatasetError: a.bin: The pickle names builtins.print, which no such \
file needs (byte 31), so it is refused and nothing was run. \
Do not open it with other tools unless you trust where it comes from.
    """
    return _Machine(data, path).run()


class _Machine:
    """The interpreter: a stack of stacks (one a mark), a memo, and a place in the file."""

    __slots__ = ("_encoded", "_memo", "_outer", "_path", "_size", "_stack", "_stream")

    def __init__(self, data: bytes, path: str | Path) -> None:
        self._stream = BytesIO(data)
        self._size = len(data)
        self._path = path
        self._stack: list[object] = []
        self._outer: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._encoded: dict[str, bytes] = {}

    def run(self) -> object:
        """Interpret the file up to its STOP."""
        for _ in range(MAX_OPCODES):
            code = self._stream.read(1)
            if code == pickle.STOP:
                return self._result()
            if not code:
                self._give_up("has no end")
            if code not in _OPCODES:
                self._refuse(f"uses {_name(code)}, which no such file needs")
            reader, action = _OPCODES[code]
            try:
                arguments = () if reader is None else (reader(self._stream),)
            except ValueError as error:
                self._give_up(f"has a malformed argument of {_name(code)} ({str(error)[:80]})")
            action(self, *arguments)
        return self._refuse(f"has more than {MAX_OPCODES:,} opcodes")

    def _result(self) -> object:
        value = self._pop()
        if self._stack or self._outer:
            self._refuse("ends with values left over")
        waiting, seen = [value], set()
        while waiting:
            item = waiting.pop()
            if isinstance(item, (_Function, _Dtype)):
                self._refuse("holds a function or a type among its values")
            if isinstance(item, (list, tuple)) and id(item) not in seen:
                seen.add(id(item))
                waiting += item
        return value

    def _refuse(self, problem: str) -> NoReturn:
        raise DatasetError(
            f"The pickle {problem} (byte {self._stream.tell()}), so it is refused and nothing was "
            "run",
            path=self._path,
            remedy=_REMEDY,
        )

    def _give_up(self, problem: str) -> NoReturn:
        raise DatasetError(
            f"The pickle {problem} (byte {self._stream.tell()}): the file is cut short, or damaged",
            path=self._path,
            remedy="Take the file from its source again.",
        )

    def _pop(self) -> object:
        if not self._stack:
            self._refuse("takes a value where there is none")
        return self._stack.pop()

    def pop_marked(self) -> list[object]:
        if not self._outer:
            self._refuse("closes what it never opened")
        items = self._stack
        self._stack = self._outer.pop()
        return items

    # --- opcodes ---

    def proto(self, protocol: int) -> None:
        if protocol > HIGHEST_PROTOCOL:
            self._refuse(f"has protocol {protocol}, the highest is {HIGHEST_PROTOCOL}")

    def frame(self, length: int) -> None:
        left = self._size - self._stream.tell()
        if length > left:
            self._give_up(f"claims a frame of {length:,} bytes where {left:,} are left")

    def mark(self) -> None:
        if len(self._outer) >= MAX_DEPTH:
            self._refuse(f"nests deeper than {MAX_DEPTH} levels")
        self._outer.append(self._stack)
        self._stack = []

    def push(self, value: object) -> None:
        self._stack.append(value)

    def number(self, value: int) -> None:
        if value.bit_length() > MAX_BITS:
            self._refuse(f"has a number of more than {MAX_BITS} bits")
        self._stack.append(value)

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def append(self) -> None:
        self._extend([self._pop()])

    def appends(self) -> None:
        self._extend(self.pop_marked())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, list):
            self._refuse("appends to a value that is not a list")
        target.extend(items)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def put(self, index: int) -> None:
        if not 0 <= index <= MAX_OPCODES:
            self._refuse(f"has a memo index of {index:,}")
        if not self._stack:
            self._refuse("remembers a value where there is none")
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        if index not in self._memo:
            self._refuse(f"recalls value {index:,}, which it never stored")
        self._stack.append(self._memo[index])

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            self._refuse("names a function by a value that is not text")
        self.function((module, name))

    def function(self, place: tuple[str, str]) -> None:
        if place not in _GLOBALS:
            shown = ".".join(place).encode("ascii", "backslashreplace").decode()
            shown = "".join(c if c.isprintable() else "?" for c in shown[:80])
            self._refuse(f"names {shown}, which no such file needs")
        self._stack.append(_GLOBALS[place])

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            self._refuse("calls with a value that is not a tuple")
        match function, arguments:
            case (_Function.ENCODE, (str(text), "latin1" | "latin-1")):
                value: object = self._encode(text)
            case (_Function.DTYPE, (str() | bytes() as name, *_)) if len(name) <= 5:
                value = self._dtype(name)
            case (_Function.RECONSTRUCT, (_Function.NDARRAY, (0,), "b" | b"b")):
                value = RawArray()
            case (_Function.SCALAR, (_Dtype() as dtype, bytes() as raw)) if len(raw) == 1:
                value = bool(raw[0]) if dtype is _Dtype.BOOL else raw[0]
            case (_Function.FROM_BUFFER, (bytes() as raw, _Dtype() as dtype, shape, "C" | "F")):
                value = self._filled(RawArray(), shape, dtype, raw)
            case _:
                self._refuse("calls a function in a way that no such file needs")
        self._stack.append(value)

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1] if self._stack else None
        match target, state:
            case (_Dtype(), (3, "|" | b"|", None, None, None, -1, -1, 0)):
                pass  # what every one-byte type says of itself
            case (RawArray(), (1, shape, _Dtype() as dtype, bool() | 0 | 1, bytes() as raw)):
                self._filled(target, shape, dtype, raw)
            case _:
                self._refuse("sets a state that no such file needs")

    def _encode(self, text: str) -> bytes:
        """Python 3 writes bytes so for Python 2; encoded once, however often it is recalled."""
        if text not in self._encoded:
            try:
                self._encoded[text] = text.encode("latin-1")
            except UnicodeEncodeError:
                self._refuse("has malformed bytes")
        return self._encoded[text]

    def _dtype(self, name: str | bytes) -> _Dtype:
        code = name if isinstance(name, str) else name.decode("latin-1")
        if code not in ("u1", "b1", "|u1", "|b1"):
            self._refuse(f"holds an array of type {code!a}, not of bytes or booleans")
        return _Dtype(code[-2:])

    def _filled(self, array: RawArray, shape: object, dtype: _Dtype, data: bytes) -> RawArray:
        if not (
            isinstance(shape, tuple)
            and len(shape) <= 4
            and all(isinstance(n, int) and 0 <= n <= self._size for n in shape)
            and sum(n > 1 for n in shape) <= 1  # so that the order of memory does not matter
            and prod(shape) == len(data)
        ):
            self._refuse(f"has an array whose shape does not fit its {len(data):,} bytes")
        array.dtype, array.shape, array.data = dtype.value, shape, data
        return array


_Reader: TypeAlias = Callable[[BytesIO], Any]


def _line(stream: BytesIO) -> bytes:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ValueError("it ends within a line of text")
    return line[:-1]


def _read_string(stream: BytesIO) -> bytes:
    """Read a quoted byte string; the reader of `pickletools` takes ASCII only."""
    line = _line(stream)
    quoted = len(line) >= 2 and line[0] == line[-1] and line[:1] in (b"'", b'"')
    if not quoted or not _TEXT_ESCAPES.fullmatch(line, 1, len(line) - 1):
        raise ValueError("its quotes or escapes are wrong")
    return codecs.escape_decode(line[1:-1])[0]


def _read_global(stream: BytesIO) -> tuple[str, str]:
    """Read a module and a name; the reader of `pickletools` undoes escapes, as pickle does not."""
    return _line(stream).decode("utf-8", "replace"), _line(stream).decode("utf-8", "replace")


def _name(code: bytes) -> str:
    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    name = names.get(code.decode("latin-1"))
    return f"the opcode {name}" if name else f"the unknown opcode 0x{code.hex()}"


_ACTIONS: Final[Mapping[str, Callable[..., None]]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "EMPTY_TUPLE": lambda machine: machine.push(()),
    "EMPTY_LIST": lambda machine: machine.push([]),
    **dict.fromkeys(("INT", "LONG", "LONG1"), _Machine.number),
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), _Machine.push),
    **dict.fromkeys(("STRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), _Machine.push),
    "SHORT_BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "BINSTRING": lambda machine, text: machine.push(text.encode("latin-1")),
    "BYTEARRAY8": lambda machine, data: machine.push(bytes(data)),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push),
    "LIST": lambda machine: machine.push(machine.pop_marked()),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "TUPLE": lambda machine: machine.push(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "MEMOIZE": _Machine.memoize,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.function,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
_READERS: Final[Mapping[str, _Reader | None]] = {"STRING": _read_string, "GLOBAL": _read_global}
_OPCODES: Final[Mapping[bytes, tuple[_Reader | None, Callable[..., None]]]] = {
    opcode.code.encode("latin-1"): (
        _READERS.get(opcode.name, opcode.arg.reader if opcode.arg else None),
        _ACTIONS[opcode.name],
    )
    for opcode in pickletools.opcodes
    if opcode.name in _ACTIONS
}
"""What reads an opcode's argument (None: it has none), and what carries the opcode out."""

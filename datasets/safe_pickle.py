"""Reads the pickles that hold face verification sets without unpickling them.

A pickle is a program. Here a small interpreter runs the few opcodes that such files need, on
plain values only: no import, no call and no attribute of any object ever happens, because the
handful of functions such files name (NumPy's array reconstruction, ``_codecs.encode``) are
stand-ins that this module computes itself. Everything else is refused at the opcode that asks
for it, with its name. Lengths are checked against the file before anything is allocated, and
opcodes are counted, so memory is bounded.
"""

from __future__ import annotations

import codecs
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Final, NoReturn

from evalkit.datasets.errors import DatasetError

MAX_OPCODES: Final = 2_000_000
"""LFW has 30,000 (byte strings) to 500,000 (arrays, oldest protocol); what so many can allocate
stays below half a gigabyte."""
MAX_DEPTH: Final = 16
"""Of marks; these files need four."""
MAX_NUMBER: Final = 32
"""Bytes of a number written as text."""
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
        The file names or does anything else, is cut off, or is no pickle.

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

    __slots__ = ("_at", "_data", "_encoded", "_memo", "_outer", "_path", "_stack")

    def __init__(self, data: bytes, path: str | Path) -> None:
        self._data = data
        self._path = path
        self._at = 0
        self._stack: list[object] = []
        self._outer: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._encoded: dict[str, bytes] = {}

    def run(self) -> object:
        """Interpret the file up to its STOP."""
        data, size = self._data, len(self._data)
        for _ in range(MAX_OPCODES):
            if self._at >= size:
                self._cut_short("The pickle has no end")
            code = data[self._at]
            self._at += 1
            if code == _STOP:
                return self._result()
            action = _ACTIONS.get(code)
            if action is None:
                self._refuse(f"The pickle uses {_name(code)}, which no such file needs")
            action(self)
        raise self._error(f"The pickle has more than {MAX_OPCODES:,} opcodes")

    def _result(self) -> object:
        value = self._pop()
        if self._stack or self._outer:
            self._refuse("The pickle ends with values left over")
        waiting, seen = [value], set()
        while waiting:
            item = waiting.pop()
            if isinstance(item, (_Function, _Dtype)):
                self._refuse("The pickle holds a function or a type among its values")
            if isinstance(item, (list, tuple)) and id(item) not in seen:
                seen.add(id(item))
                waiting += item
        return value

    # --- reading ---

    def _refuse(self, problem: str) -> NoReturn:
        raise self._error(problem)

    def _cut_short(self, problem: str) -> NoReturn:
        raise DatasetError(
            f"{problem} (byte {self._at}): the file is cut short, or damaged",
            path=self._path,
            remedy="Take the file from its source again.",
        )

    def _error(self, problem: str) -> DatasetError:
        return DatasetError(
            f"{problem} (byte {self._at}), so it is refused and nothing was run",
            path=self._path,
            remedy=_REMEDY,
        )

    def _take(self, count: int) -> bytes:
        start = self._at
        if count > len(self._data) - start:
            self._cut_short(
                f"The pickle claims {count:,} more bytes where {len(self._data) - start:,} are left"
            )
        self._at = start + count
        return self._data[start : self._at]

    def _unsigned(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            self._cut_short("The pickle ends within a line of text")
        line = self._data[self._at : end]
        self._at = end + 1
        return line

    def _number(self, line: bytes) -> int:
        try:
            if len(line) > MAX_NUMBER or b"_" in line:
                raise ValueError
            return int(line)
        except ValueError:
            self._refuse("The pickle has a malformed number")

    def _pop(self) -> object:
        if not self._stack:
            self._refuse("The pickle takes a value where there is none")
        return self._stack.pop()

    def _pop_marked(self) -> list[object]:
        if not self._outer:
            self._refuse("The pickle closes what it never opened")
        items = self._stack
        self._stack = self._outer.pop()
        return items

    # --- opcodes ---

    def mark(self) -> None:
        if len(self._outer) >= MAX_DEPTH:
            self._refuse(f"The pickle nests deeper than {MAX_DEPTH} levels")
        self._outer.append(self._stack)
        self._stack = []

    def proto(self) -> None:
        protocol = self._unsigned(1)
        if protocol > HIGHEST_PROTOCOL:
            self._refuse(f"The pickle has protocol {protocol}, the highest is {HIGHEST_PROTOCOL}")

    def frame(self) -> None:
        length = self._unsigned(8)
        left = len(self._data) - self._at
        if length > left:
            self._cut_short(
                f"The pickle claims a frame of {length:,} bytes where {left:,} are left"
            )

    def int_line(self) -> None:
        line = self._line()
        truth = {b"00": False, b"01": True}.get(line)
        self._stack.append(self._number(line) if truth is None else truth)

    def long_line(self) -> None:
        self._stack.append(self._number(self._line().removesuffix(b"L")))

    def long1(self) -> None:
        width = self._unsigned(1)
        if width > 8:
            self._refuse("The pickle has a number of more than 64 bits")
        self._stack.append(int.from_bytes(self._take(width), "little", signed=True))

    def binint(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def string_line(self) -> None:
        line = self._line()
        quoted = len(line) >= 2 and line[0] == line[-1] and line[:1] in (b"'", b'"')
        if not quoted or not _TEXT_ESCAPES.fullmatch(line, 1, len(line) - 1):
            self._refuse("The pickle has a malformed string")
        self._stack.append(codecs.escape_decode(line[1:-1])[0])

    def unicode_line(self) -> None:
        self._text(self._line(), "raw-unicode-escape")

    def unicode(self, width: int) -> None:
        self._text(self._take(self._unsigned(width)), "utf-8")

    def _text(self, raw: bytes, encoding: str) -> None:
        try:
            self._stack.append(str(raw, encoding))
        except UnicodeDecodeError:
            self._refuse("The pickle has malformed text")

    def append(self) -> None:
        self._extend([self._pop()])

    def appends(self) -> None:
        self._extend(self._pop_marked())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, list):
            self._refuse("The pickle appends to what is no list")
        target.extend(items)

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def put(self, index: int) -> None:
        if not 0 <= index <= MAX_OPCODES:
            self._refuse(f"The pickle has a memo index of {index:,}")
        if not self._stack:
            self._refuse("The pickle remembers a value where there is none")
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        if index not in self._memo:
            self._refuse(f"The pickle recalls value {index:,}, which it never stored")
        self._stack.append(self._memo[index])

    def global_line(self) -> None:
        module, name = self._line(), self._line()
        self._global(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            self._refuse("The pickle names a function by what is no text")
        self._global(module, name)

    def _global(self, module: str, name: str) -> None:
        function = _GLOBALS.get((module, name))
        if function is None:
            shown = f"{module}.{name}".encode("ascii", "backslashreplace").decode()
            shown = "".join(c if c.isprintable() else "?" for c in shown[:80])
            self._refuse(f"The pickle names {shown}, which no such file needs")
        self._stack.append(function)

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            self._refuse("The pickle calls with what is no tuple")
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
                self._refuse("The pickle calls a function in a way that no such file needs")
        self._stack.append(value)

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1] if self._stack else None
        match target, state:
            case (_Dtype(), (3, "|" | b"|", None, None, None, -1, -1, 0)):
                pass  # what every one-byte type says of itself
            case (RawArray(), (1, shape, _Dtype() as dtype, bool() | 0 | 1, bytes() as raw)):
                self._filled(target, shape, dtype, raw)
            case _:
                self._refuse("The pickle sets a state that no such file needs")

    def _encode(self, text: str) -> bytes:
        """Python 3 writes bytes so for Python 2; encoded once, however often it is recalled."""
        if text not in self._encoded:
            try:
                self._encoded[text] = text.encode("latin-1")
            except UnicodeEncodeError:
                self._refuse("The pickle has malformed bytes")
        return self._encoded[text]

    def _dtype(self, name: str | bytes) -> _Dtype:
        code = name if isinstance(name, str) else name.decode("latin-1")
        if code not in ("u1", "b1", "|u1", "|b1"):
            self._refuse(f"The pickle holds an array of type {code!a}, not of bytes or booleans")
        return _Dtype(code[-2:])

    def _filled(self, array: RawArray, shape: object, dtype: _Dtype, data: bytes) -> RawArray:
        if not (
            isinstance(shape, tuple)
            and len(shape) <= 4
            and all(isinstance(n, int) and 0 <= n <= len(self._data) for n in shape)
            and sum(n > 1 for n in shape) <= 1  # so that the order of memory does not matter
            and prod(shape) == len(data)
        ):
            self._refuse(
                f"The pickle has an array whose shape does not fit its {len(data):,} bytes"
            )
        array.dtype, array.shape, array.data = dtype.value, shape, data
        return array


_Action = Callable[[_Machine], None]


def _push(value: object) -> _Action:
    return lambda machine: machine._stack.append(value)


def _bytes(width: int) -> _Action:
    return lambda machine: machine._stack.append(machine._take(machine._unsigned(width)))


def _counted(action: Callable[[_Machine, int], None], width: int) -> _Action:
    return lambda machine: action(machine, machine._unsigned(width))


def _numbered(action: Callable[[_Machine, int], None]) -> _Action:
    return lambda machine: action(machine, machine._number(machine._line()))


def _tuple(count: int) -> _Action:
    return lambda machine: machine.tuple_of(count)


def _marked(kind: Callable[[list[object]], object]) -> _Action:
    def action(machine: _Machine) -> None:
        items = machine._pop_marked()
        machine._stack.append(kind(items))

    return action


def _name(code: int) -> str:
    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    name = names.get(chr(code))
    return f"the opcode {name}" if name else f"the unknown opcode 0x{code:02x}"


_STOP: Final = ord(".")
_BY_NAME: Final[Mapping[str, _Action]] = {
    "PROTO": _Machine.proto,
    "FRAME": _Machine.frame,
    "MARK": _Machine.mark,
    "NONE": _push(None),
    "NEWTRUE": _push(True),
    "NEWFALSE": _push(False),
    "INT": _Machine.int_line,
    "LONG": _Machine.long_line,
    "LONG1": _Machine.long1,
    "BININT": _Machine.binint,
    "BININT1": lambda machine: machine._stack.append(machine._unsigned(1)),
    "BININT2": lambda machine: machine._stack.append(machine._unsigned(2)),
    "STRING": _Machine.string_line,
    "SHORT_BINSTRING": _bytes(1),
    "BINSTRING": _bytes(4),
    "SHORT_BINBYTES": _bytes(1),
    "BINBYTES": _bytes(4),
    "BINBYTES8": _bytes(8),
    "BYTEARRAY8": _bytes(8),
    "UNICODE": _Machine.unicode_line,
    "SHORT_BINUNICODE": lambda machine: machine.unicode(1),
    "BINUNICODE": lambda machine: machine.unicode(4),
    "BINUNICODE8": lambda machine: machine.unicode(8),
    "EMPTY_LIST": lambda machine: machine._stack.append([]),
    "LIST": _marked(list),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "EMPTY_TUPLE": _push(()),
    "TUPLE": _marked(tuple),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "MEMOIZE": lambda machine: machine.put(len(machine._memo)),
    "PUT": _numbered(_Machine.put),
    "BINPUT": _counted(_Machine.put, 1),
    "LONG_BINPUT": _counted(_Machine.put, 4),
    "GET": _numbered(_Machine.get),
    "BINGET": _counted(_Machine.get, 1),
    "LONG_BINGET": _counted(_Machine.get, 4),
    "GLOBAL": _Machine.global_line,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
_ACTIONS: Final[Mapping[int, _Action]] = {
    ord(opcode.code): _BY_NAME[opcode.name]
    for opcode in pickletools.opcodes
    if opcode.name in _BY_NAME
}

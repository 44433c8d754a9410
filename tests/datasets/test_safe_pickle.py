"""The restricted reader of pickles: all valid files, no hostile one, and a fuzzer's."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.datasets import safe_pickle
from evalkit.datasets.errors import DatasetError
from evalkit.datasets.safe_pickle import RawArray, load_plain

IMAGE = bytes(range(256)) + b"\n'\"\\x00\\"


def plain(value):
    """What `load_plain` returns for a value, so that the two can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str[1:], value.shape, value.tobytes()
    if isinstance(value, RawArray):
        return value.dtype, value.shape, value.data
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def test_the_examples_in_the_docstring_hold():
    assert doctest.testmod(safe_pickle).failed == 0


# --- valid files -------------------------------------------------------------------------------

VALID = {
    "bytes": ([IMAGE, b"", IMAGE * 300], [True, False]),
    "arrays": ([np.frombuffer(IMAGE, np.uint8), np.ones((7, 1), np.uint8)], [True]),
    "fortran": [np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(6, 1))],
    "numpy_bools": (["text"], [np.True_, np.False_, np.uint8(7)]),
    "label_array": ([b"x"], np.array([True, False, True])),
    "numbers": [0, 1, -1, 255, 65535, 65536, -(2**31), 2**31, 2**62, True, False, None],
    "shared": [IMAGE] * 300,
    "empty": ([], (), [[]]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALID)
def test_every_protocol_gives_what_pickle_gives(name, protocol):
    if name == "bytes" and protocol < 3:
        VALID["bytes"][0][1] = b"-"  # empty bytes are written as a call of bytes() there
    data = pickle.dumps(VALID[name], protocol)
    assert plain(load_plain(data, "a.bin")) == plain(pickle.loads(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_names_of_older_numpy_are_known(protocol):
    data = pickle.dumps(([np.arange(9, dtype=np.uint8)], [np.True_]), protocol)
    older = data if protocol < 4 else data[:2] + data[11:]  # without the frame's length
    older = older.replace(b"numpy._core.", b"numpy.core.")
    for length in (19, 22):  # protocols 4 and 5 write the length of a name before it
        older = older.replace(
            bytes([0x8C, length]) + b"numpy.core", bytes([0x8C, length - 1]) + b"numpy.core"
        )
    assert plain(load_plain(older, "a.bin")) == plain(pickle.loads(data))


def python2(images, labels, protocol):
    """A pickle as Python 2 writes it: byte strings as STRING opcodes, positions from 1."""
    if protocol == 0:
        out, end = b"(lp1\n", b"a"
        quoted = [
            "'" + repr(i)[2:-1].replace("'", r"\'") + "'" if repr(i)[1] == '"' else repr(i)[1:]
            for i in images
        ]
        strings = [b"S" + q.encode() + b"\np%d\n" % (k + 2) for k, q in enumerate(quoted)]
        values = [b"I01\n" if label else b"I00\n" for label in labels]
        return (
            b"("
            + out
            + b"".join(s + end for s in strings)
            + b"(lp900\n"
            + b"".join(v + end for v in values)
            + b"tp901\n."
        )
    strings = [
        (b"U" + bytes([len(i)]) if len(i) < 256 else b"T" + struct.pack("<i", len(i)))
        + i
        + b"q\x05"
        for i in images
    ]
    values = [b"\x88" if label else b"\x89" for label in labels]
    return b"\x80\x02]q\x01(" + b"".join(strings) + b"e](" + b"".join(values) + b"e\x86."


@pytest.mark.parametrize("protocol", [0, 2])
def test_byte_strings_of_python_2_are_read(protocol):
    images, labels = [IMAGE, b"it's", b'"', b"\xff\xd8" * 200], [True, False]
    data = python2(images, labels, protocol)
    assert pickle.loads(data, encoding="bytes") == (images, labels)
    assert load_plain(data, "a.bin") == (images, labels)


PYTHON2_ARRAY = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
    b"(K\x01K\x03K\x01\x86cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x03\xff\xd8\xfftb."
)


def test_arrays_of_python_2_are_read():
    expected = pickle.loads(PYTHON2_ARRAY, encoding="bytes")
    assert (
        plain(load_plain(PYTHON2_ARRAY, "a.bin"))
        == plain(expected)
        == ("u1", (3, 1), b"\xff\xd8\xff")
    )


# --- hostile files -----------------------------------------------------------------------------


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


class Stateful:
    def __setstate__(self, state):
        os.environ["EVALKIT_HOSTILE"] = "ran"


def stateful():
    made = Stateful()
    made.harm = True
    return made


def call(module, name, *pushes):
    return f"c{module}\n{name}\n(".encode() + b"".join(pushes) + b"tR."


def le(number, width):
    return number.to_bytes(width, "little")


MARKER = "EVALKIT_HOSTILE"
SET_MARKER = f"__import__('os').environ.__setitem__({MARKER!r}, 'ran')"
ARRAY = pickle.dumps(np.arange(3, dtype=np.uint8), 2)
DTYPE = b"cnumpy\ndtype\n"

HOSTILE = {
    # name: (pickle, what the message says)
    "system_0": (pickle.dumps(Call(os.system, f"export {MARKER}=1"), 0), "names posix.system"),
    "system_4": (pickle.dumps(Call(os.system, f"export {MARKER}=1"), 4), "names posix.system"),
    "eval": (pickle.dumps(Call(eval, SET_MARKER)), "names builtins.eval"),
    "exec_python2": (
        call("__builtin__", "eval", b"V" + SET_MARKER.encode() + b"\n"),
        "__builtin__.eval",
    ),
    "nested_reduce": (
        pickle.dumps(Call(getattr, Call(__import__, "os"), "environ")),
        "names builtins.getattr",
    ),
    "in_the_list": (pickle.dumps(([Call(eval, SET_MARKER)], [True])), "names builtins.eval"),
    "setstate": (pickle.dumps(stateful(), 2), "copy_reg.__newobj__|NEWOBJ|names "),
    "setstate_0": (pickle.dumps(stateful(), 0), "names copy_reg._reconstructor"),
    "copyreg": (call("copyreg", "_reconstructor", b"N"), "names copyreg._reconstructor"),
    "copyreg_extension": (call("copyreg", "add_extension", b"N"), "names copyreg.add_extension"),
    "object_array": (
        pickle.dumps(np.array([b"a", Call(eval, SET_MARKER)], object), 2),
        "type 'O8'",
    ),
    "object_array_5": (pickle.dumps(np.array([b"a", None], object), 5), "type 'O8'"),
    "float_array": (pickle.dumps(np.ones(3)), "type 'f8'"),
    "structured_array": (pickle.dumps(np.zeros(2, [("a", "u1")])), "type 'V1'"),
    "object_scalar": (pickle.dumps(np.float64(1)), "type 'f8'"),
    "numpy_runstring": (
        call("numpy.testing._private.utils", "runstring", b"V" + SET_MARKER.encode() + b"\n", b"}"),
        "names numpy.testing",
    ),
    "numpy_load": (call("numpy", "load", b"Vx\n"), "names numpy.load"),
    "dotted_name": (
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "names numpy.ndarray.__class__",
    ),
    "matrix": (pickle.dumps(np.ones((2, 3), np.uint8)), "shape does not fit"),
    "attribute_of_a_known_name": (
        b"\x80\x04\x8c\x05numpy\x8c\x0cdtype.__base\x93.",
        "names numpy.dtype",
    ),
    "name_of_numbers": (b"\x80\x04K\x01K\x02\x93.", "by a value that is not text"),
    "name_with_line_ends": (b"\x80\x04\x8c\x02\r\n\x8c\x02\x1b[\x93.", r"names \?\?"),
    "reconstruct_of_a_class": (
        call("numpy.core.multiarray", "_reconstruct", DTYPE, b"(K\x00t", b"U\x01b"),
        "calls a function",
    ),
    "reconstruct_of_size": (
        call(
            "numpy.core.multiarray",
            "_reconstruct",
            b"cnumpy\nndarray\n",
            b"(J\xff\xff\xff\x7ft",
            b"U\x01b",
        ),
        "calls a function",
    ),
    "codec": (call("_codecs", "encode", b"Vabc\n", b"Vzlib\n"), "calls a function"),
    "codec_of_bytes": (call("_codecs", "encode", b"U\x03abc", b"Vlatin1\n"), "calls a function"),
    "codec_of_wide_text": (
        call("_codecs", "encode", b"V\\u20ac\n", b"Vlatin1\n"),
        "malformed bytes",
    ),
    "dtype_of_a_call": (call("numpy", "dtype", b"cnumpy\nndarray\n"), "calls a function"),
    "dtype_with_metadata": (
        b"cnumpy\ndtype\n(Vu1\nI00\nI01\ntR(I4\nV|\nNNNI-1\nI-1\nI0\n}tb.",
        "EMPTY_DICT",
    ),
    "dtype_big": (call("numpy", "dtype", b"(lVu1\n"), "calls|appends|closes|cut short|takes"),
    "a_function_as_value": (b"](cnumpy\nndarray\ne.", "a function or a type among its values"),
    "a_type_as_value": (b"cnumpy\ndtype\n(Vu1\ntR.", "a function or a type among its values"),
    "call_of_a_number": (b"K\x01)R.", "calls a function"),
    "call_with_a_list": (b"cnumpy\ndtype\n]R.", "not a tuple"),
    "state_of_a_list": (b"](K\x01tb.", "sets a state"),
    "state_of_nothing": (b"Nb.", "sets a state"),
    "inst": (b"(S'x'\nios\nsystem\n.", "opcode INST"),
    "obj": (b"(cnumpy\nndarray\no.", "opcode OBJ"),
    "newobj": (b"\x80\x02cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
    "newobj_ex": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "opcode EMPTY_DICT"),
    "persistent": (b"Pname\n.", "opcode PERSID"),
    "persistent_binary": (b"K\x01Q.", "opcode BINPERSID"),
    "ext1": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "ext2": (b"\x80\x02\x83\x01\x00.", "opcode EXT2"),
    "ext4": (b"\x80\x02\x84\x01\x00\x00\x00.", "opcode EXT4"),
    "next_buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER"),
    "dup": (b"]" + b"2a" * 1000 + b".", "opcode DUP"),
    "memo_bomb": (b"Nr\xff\xff\xff\x7f.", "memo index of 2,147,483,647"),
    "memo_bomb_text": (b"Np99999999999999999\n.", "memo index"),
    "memo_negative": (b"Np-1\n.", "memo index"),
    "memo_of_nothing": (b"q\x00.", "where there is none"),
    "recall_of_nothing": (b"h\x07.", "recalls value 7"),
    "recall_far": (b"j\xff\xff\xff\xff.", "recalls value 4,294,967,295"),
    "memo_loop": (b"]q\x00h\x00a" * 1 + b".", None),
    "giant_bytes": (b"\x80\x04\x8e" + le(1 << 62, 8) + b"x.", "expected 4611686018427387904 bytes"),
    "giant_bytes_4": (b"B" + le(0xFFFFFFFF, 4) + b"x.", "expected 4294967295 bytes"),
    "giant_bytearray": (b"\x80\x05\x96" + le(1 << 40, 8) + b".", "expected 1099511627776 bytes"),
    "giant_string": (b"T" + le(0x7FFFFFFF, 4) + b".", "expected 2147483647 bytes"),
    "giant_text": (b"\x80\x04\x8d" + le(1 << 63, 8) + b".", "9223372036854775808"),
    "giant_text_4": (b"X" + le(0xFFFFFFF0, 4) + b".", "expected 4294967280 bytes"),
    "giant_frame": (b"\x80\x04\x95" + le(1 << 50, 8) + b"N.", "a frame of 1,125"),
    "giant_long": (b"\x8b" + le(0x7FFFFFFF, 4) + b".", "opcode LONG4"),
    "wide_long": (b"\x8a\xff" + bytes(254) + b"\x01.", "more than 64 bits"),
    "giant_number": (b"I" + b"9" * 1_000_000 + b"\n.", "malformed argument of the opcode INT"),
    "giant_shape": (ARRAY.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"), "shape does not fit"),
    "negative_shape": (ARRAY.replace(b"K\x03\x85", b"J\xfd\xff\xff\xff\x85"), "shape does not fit"),
    "wrapping_shape": (
        ARRAY.replace(b"K\x03\x85", b"\x8a\x08" + le(1 << 62, 8) + b"K\x04\x86"),
        "shape does not fit",
    ),
    "deep_marks": (b"(" * 1_000_000 + b".", "nests deeper"),
    "deep_tuples": (b"N" + b"\x85" * 300_000 + b".", None),
    "deep_lists": (b"]" + b"q\x00]h\x00a" * 100_000 + b".", "values left over"),
    "flood_of_lists": (b"]" * 2_100_000, "more than 2,000,000 opcodes"),
    "flood_of_memo": (b"N" + b"\x94" * 2_100_000, "more than 2,000,000 opcodes"),
    "flood_of_bytes": (b"C\x01x" * 2_100_000, "more than 2,000,000 opcodes"),
    "flood_of_text": (b"\x8c\x02xy" * 2_100_000, "more than 2,000,000 opcodes"),
    "flood_of_floats": (b"G" + bytes(8) + b".", "opcode BINFLOAT"),
    "copies": (
        b"c_codecs\nencode\nq\x00V"
        + b"x" * 1_000_000
        + b"\nVlatin1\n\x86q\x010]"
        + b"h\x00h\x01Ra" * 100_000
        + b".",
        "opcode POP",
    ),
    "copies_in_a_list": (
        b"](c_codecs\nencode\nq\x00(V"
        + b"x" * 1_000_000
        + b"\nVlatin1\ntq\x01"
        + b"h\x00h\x01R" * 100_000
        + b"e.",
        "a function or a type among its values",
    ),
    "wide_text": (
        b"X" + le(20_000_004, 4) + "\U0001f600".encode() + b"x" * 20_000_000 + b".",
        None,
    ),
    "protocol_9": (b"\x80\x09N.", "protocol 9"),
    "empty": (b"", "cut short"),
    "no_stop": (b"N", "cut short"),
    "stack_underflow": (b".", "where there is none"),
    "no_mark": (b"t.", "never opened"),
    "open_mark": (b"(N.", "values left over"),
    "left_over": (b"NN.", "values left over"),
    "append_to_a_tuple": (b")Na.", "that is not a list"),
    "bad_string": (b"Sabc\n.", "opcode STRING .its quotes or escapes"),
    "bad_escape": (b"S'\\x4'\n.", "opcode STRING .its quotes or escapes"),
    "bad_text": (b"X\x01\x00\x00\x00\xff.", "malformed argument of the opcode BINUNICODE"),
    "bad_number": (b"I12x\n.", "malformed argument of the opcode INT"),
    "unended_string": (b"S'ab", "ends within a line of text.*cut short"),
    "unended_line": (b"I12", "no newline.*cut short"),
    "unknown_opcode": (b"\xfe.", "unknown opcode 0xfe"),
    "a_zip": (b"PK\x03\x04" + bytes(100), "cut short|opcode"),
    "a_jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "unknown opcode 0xff"),
}
BIG = 2_000_000
HARMLESS = {name for name, (_, message) in HOSTILE.items() if message is None}


@pytest.mark.parametrize("name", [n for n, (data, _) in HOSTILE.items() if len(data) < BIG])
def test_hostile_files_are_refused_before_anything_runs(name, monkeypatch):
    monkeypatch.delenv(MARKER, raising=False)
    data, message = HOSTILE[name]
    modules = set(sys.modules)
    if message is None:
        load_plain(data, "a.bin")
    else:
        with pytest.raises(DatasetError, match=message) as caught:
            load_plain(data, "evil.bin")
        text = str(caught.value)
        assert text.startswith("evil.bin: The pickle ")
        assert len(text) < 400
        assert text.isprintable()
    assert MARKER not in os.environ
    assert set(sys.modules) == modules


def test_the_examples_of_attacks_would_work_on_pickle(monkeypatch):
    """Otherwise the tests above would show nothing."""
    monkeypatch.delenv(MARKER, raising=False)
    for name in ("eval", "in_the_list", "object_array", "setstate"):
        monkeypatch.delenv(MARKER, raising=False)
        pickle.loads(HOSTILE[name][0])
        assert os.environ.pop(MARKER) == "ran"


CHILD = textwrap.dedent(
    """
    import pathlib, resource, sys
    from evalkit.datasets.errors import DatasetError
    from evalkit.datasets.safe_pickle import load_plain
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (500 << 20),) * 2)
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        try:
            load_plain(path.read_bytes(), path)
            print(path.name, "read")
        except DatasetError as error:
            print(path.name, "refused")
    """
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_no_hostile_file_exhausts_memory_or_the_stack(tmp_path):
    for name, (data, _) in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr[-2000:]
    outcomes = dict(line.split() for line in child.stdout.splitlines())
    assert outcomes == {n: "read" if n in HARMLESS else "refused" for n in HOSTILE}


# --- fuzz --------------------------------------------------------------------------------------


class Reference(pickle._Unpickler):
    """Python's own reader, kept to the same names."""

    def find_class(self, module, name):
        if (module, name) not in safe_pickle._GLOBALS:
            raise pickle.UnpicklingError(name)
        return super().find_class(module, name)


def reference(data):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return plain(Reference(io.BytesIO(data), encoding="bytes").load())
    except Exception:
        return None


SEEDS = [
    pickle.dumps(([b"\xff\xd8abc", np.arange(5, dtype=np.uint8)], [True, np.False_]), protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
] + [python2([b"ab", b"c'd"], [True], 0), python2([b"ab", b"cd"], [True], 2), PYTHON2_ARRAY]


@settings(max_examples=600)
@given(st.data())
def test_damaged_files_are_refused_or_read_as_pickle_reads_them(data):
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        value = plain(load_plain(bytes(damaged), "a.bin"))
    except DatasetError:
        return
    expected = reference(bytes(damaged))
    if expected is not None:
        assert value == expected


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_noise_is_refused_or_read(noise):
    with contextlib.suppress(DatasetError):
        load_plain(noise + b".", "a.bin")

"""What kind of file a ``.pt`` is; exported programs and TorchScript without what does harm.

Reads the archive alone, so that nothing of an untrusted file reaches PyTorch unseen.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
import zipfile
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from evalkit.errors import InputError

Kind = Literal["torchscript", "exported", "weights"]

# torch.export reads sizes with sympy, which evaluates them as Python: only these may be called.
_SYMBOLIC = frozenset(
    """Symbol Integer Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt
    FloorToInt TruncToInt IntTrueDiv FloatTrueDiv ToFloat PowByNatural ModularIndexing Where
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And
    Or Not""".split()  # noqa: SIM905 - read more easily so
)
# TorchScript is a program, which PyTorch interprets; these operators of it reach files.
_REACH_FILES = frozenset({"save", "from_file", "load_tensor"})
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=&|~']*")


def file_kind(model: Path) -> Kind:
    """Tell by its content what a PyTorch file holds.

    Raises
    ------
    evalkit.errors.InputError
        It is a ZIP archive, but of nothing that PyTorch writes, or of a form now withdrawn.
    """
    if not zipfile.is_zipfile(model):
        return "weights"  # PyTorch's format before 1.6, or no model: the loader tells
    with _opened(model) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("archive_format") for name in names):
        return "exported"
    if any(name.endswith("/data.pkl") for name in names):
        return "weights"
    if "serialized_exported_program.json" in names:
        raise InputError(
            f"{model} is an exported program of PyTorch 2.7 or older, whose form is withdrawn. "
            "Save it again with torch.export.save of PyTorch 2.8 or newer."
        )
    raise InputError(
        f"{model} is an archive, but no TorchScript, exported program or state dict. Check the "
        "path, or save the model again."
    )


def safe_exported_program(model: Path) -> io.BytesIO:
    """Copy an exported program into memory, refusing what would run code when loaded.

    `torch.export.load` unpickles weights and constants marked so, pickled sample inputs, and
    evaluates symbolic sizes. The first are refused, sample inputs are emptied, and sizes
    must be plain arithmetic. PyTorch gets the copy: it sees what was checked and nothing else.

    Raises
    ------
    evalkit.errors.InputError
        The archive is damaged, or holds pickled objects or expressions that call anything else.
    """

    def checked(name: str, content: bytes) -> bytes:
        if "/data/sample_inputs/" in name:
            return b""  # a pickle that nothing here needs
        _refuse_code(model, name, content)
        return content

    return _copied(model, checked)


def safe_torchscript(model: Path) -> io.BytesIO:
    """Copy TorchScript into memory, refusing a program that would write or read files.

    Part of such a program runs as soon as it is loaded. PyTorch gets the copy: it sees what was
    checked and nothing else.

    Raises
    ------
    evalkit.errors.InputError
        The archive is damaged, or its program names an operator that reaches files.
    """

    def checked(name: str, content: bytes) -> bytes:
        if name.lower().endswith(".py") and (used := _REACH_FILES & _words(model, name, content)):
            raise InputError(
                f"{model}: {name} uses {min(used)!r}, by which a model writes or reads other files "
                "when it is run; it is never loaded. Export the network without it."
            )
        return content

    return _copied(model, checked)


def _words(model: Path, name: str, source: bytes) -> set[str]:
    """Collect the names in a program, and its texts, by which ``getattr`` finds operators."""
    words, text = set(), ""
    try:
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.STRING:
                text += literal_eval(token.string)
            elif token.type not in {tokenize.NL, tokenize.COMMENT}:  # else the text may go on
                words |= {token.string, text}
                text = ""
    except (tokenize.TokenError, SyntaxError, ValueError, TypeError) as error:
        raise InputError(
            f"{model}: {name} is no TorchScript: {error}. Export or fetch the model again."
        ) from error
    return words


def _copied(model: Path, checked: Callable[[str, bytes], bytes]) -> io.BytesIO:
    """Copy an archive as `checked` gives its members back."""
    copy = io.BytesIO()
    with _opened(model) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for name in dict.fromkeys(source.namelist()):
            try:
                content = source.read(name)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
                raise InputError(f"{model}: {name} is damaged: {error}. Fetch it again.") from error
            target.writestr(name, checked(name, content))
    copy.seek(0)
    return copy


def _opened(model: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(model)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{model} cannot be read as an archive: {error}.") from error


def _refuse_code(model: Path, name: str, content: bytes) -> None:
    if name.endswith((".pt", ".pkl", ".so")) or "/custom_obj" in name or "/opaque" in name:
        raise InputError(
            f"{model} holds {name}, which could run code when loaded; it is never opened. Export "
            "the model again with plain tensors only, or save a state dict."
        )
    if not name.endswith(".json"):
        return
    try:
        values = list(_fields(json.loads(content)))
    except ValueError as error:
        raise InputError(f"{model}: {name} is no valid JSON: {error}. Export it again.") from error
    for key, value in values:
        pickled = key == "use_pickle" and value is not False
        odd_path = key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value))
        if pickled or odd_path:
            raise InputError(
                f"{model}: {name} names a pickled object, which could run code when loaded; it "
                "is never opened. Export the model again with plain tensors only."
            )
        if key == "expr_str" and not is_plain_expression(str(value)):
            raise InputError(
                f"{model}: {name} holds the size {str(value)[:60]!r}, which is not plain "
                "arithmetic and could run code. Export the model again."
            )


def is_plain_expression(text: str) -> bool:
    """Whether a symbolic size is arithmetic on symbols and numbers alone.

    Examples
    --------
    >>> is_plain_expression("2*Symbol('s77', positive=True, integer=True) + 1")
    True
    >>> is_plain_expression("__import__('os').system('ls')"), is_plain_expression("eval(s0)")
    (False, False)
    """
    called = re.findall(r"(\w+)\s*\(", text)
    return (
        _EXPRESSION.fullmatch(text) is not None
        and "__" not in text
        and re.search(r"\.\s*[A-Za-z_]|\)\s*\(", text) is None
        and all(name in _SYMBOLIC for name in called)
        and all(re.fullmatch(r"\w+", name) for name in re.findall(r"'([^']*)'", text))
    )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of a JSON document, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)

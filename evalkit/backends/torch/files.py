"""The kind of a ``.pt`` file; checked copies of exported programs and TorchScript.

Only the archive is read here: PyTorch gets nothing of an untrusted file that was not checked.
"""

from __future__ import annotations

import io
import pickle
import tokenize
import zipfile
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from evalkit.backends.tensors import explained
from evalkit.backends.torch.exported import REACH_FILES, checked_member
from evalkit.core.errors import InputError

Kind = Literal["torchscript", "exported", "weights"]


def file_kind(model: Path) -> Kind:
    """Return what a PyTorch file holds, by its content.

    Raises
    ------
    evalkit.core.errors.InputError
        It is a ZIP archive that PyTorch does not write, or of a withdrawn form.
    """
    if not zipfile.is_zipfile(model):
        return "weights"  # PyTorch's format before 1.6, or no model: the loader finds out
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


def is_plain_pickle(model: Path) -> bool:
    """Whether a file is a pickle of a protocol that PyTorch does not write, by its first bytes.

    PyTorch's own files are archives, or before 1.6 pickles of protocol 2.
    """
    with model.open("rb") as file:
        mark, protocol = file.read(2).ljust(2, b"\0")
    return mark == 0x80 and 2 < protocol <= pickle.HIGHEST_PROTOCOL


def safe_exported_program(model: Path) -> io.BytesIO:
    """Copy an exported program into memory, and check that it runs no code and reads no files.

    PyTorch gets the copy: it sees only checked content.

    Raises
    ------
    evalkit.core.errors.InputError
        The archive is damaged, or has pickled objects, operators that do more than compute, or
        texts that PyTorch would run.
    """
    return _copied(model, lambda name, content: checked_member(model, name, content))


def safe_torchscript(model: Path) -> io.BytesIO:
    """Copy TorchScript into memory, and check that its program does not write or read files.

    Part of a program runs as soon as it is loaded. PyTorch gets the copy: it sees only checked
    content.

    Raises
    ------
    evalkit.core.errors.InputError
        The archive is damaged, or its program names an operator that accesses files.
    """

    def checked(name: str, content: bytes) -> bytes:
        if name.lower().endswith(".py") and (used := REACH_FILES & _words(model, name, content)):
            raise InputError(
                f"{model}: {name} uses {min(used)!r}, which writes or reads other files when the "
                "model runs. It is never loaded. Export the network without it."
            )
        return content

    return _copied(model, checked)


def _words(model: Path, name: str, source: bytes) -> set[str]:
    """Collect a program's names and strings: ``getattr`` finds operators by strings."""
    words, text = set(), ""
    failures = (tokenize.TokenError, SyntaxError, ValueError, TypeError)
    action = f"{model}: {name} is no TorchScript"
    with explained(action, "Export or fetch the model again.", failures):
        for token in tokenize.tokenize(io.BytesIO(source).readline):
            if token.type == tokenize.STRING:
                text += literal_eval(token.string)
            elif token.type not in {tokenize.NL, tokenize.COMMENT}:  # here a string may go on
                words |= {token.string, text}
                text = ""
    return words


def _copied(model: Path, checked: Callable[[str, bytes], bytes]) -> io.BytesIO:
    """Copy an archive; `checked` returns the content of each member."""
    copy = io.BytesIO()
    with _opened(model) as source, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for name in dict.fromkeys(source.namelist()):
            failures = (zipfile.BadZipFile, RuntimeError, NotImplementedError)
            with explained(f"{model}: {name} is damaged", "Fetch it again.", failures):
                content = source.read(name)
            target.writestr(name, checked(name, content))
    copy.seek(0)
    return copy


def _opened(model: Path) -> zipfile.ZipFile:
    action, failures = f"{model} cannot be read as an archive", (zipfile.BadZipFile, OSError)
    with explained(action, "Fetch it again.", failures):
        return zipfile.ZipFile(model)

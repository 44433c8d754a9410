"""What kind of file a ``.pt`` is; exported programs and TorchScript without what does harm.

Reads the archive alone, so that nothing of an untrusted file reaches PyTorch unseen.
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

from evalkit.backends.torch.exported import REACH_FILES, checked_member
from evalkit.core.errors import InputError

Kind = Literal["torchscript", "exported", "weights"]


def file_kind(model: Path) -> Kind:
    """Tell by its content what a PyTorch file holds.

    Raises
    ------
    evalkit.core.errors.InputError
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


def is_plain_pickle(model: Path) -> bool:
    """Tell by its first bytes a pickle of a protocol that no version of PyTorch writes by itself.

    PyTorch's own files are archives, or before 1.6 pickles of protocol 2.
    """
    with model.open("rb") as file:
        mark, protocol = file.read(2).ljust(2, b"\0")
    return mark == 0x80 and 2 < protocol <= pickle.HIGHEST_PROTOCOL


def safe_exported_program(model: Path) -> io.BytesIO:
    """Copy an exported program into memory, refusing what would run code or reach files.

    PyTorch gets the copy: it sees what was checked and nothing else.

    Raises
    ------
    evalkit.core.errors.InputError
        The archive is damaged, or holds pickled objects, operators that do more than compute, or
        texts that would be run.
    """
    return _copied(model, lambda name, content: checked_member(model, name, content))


def safe_torchscript(model: Path) -> io.BytesIO:
    """Copy TorchScript into memory, refusing a program that would write or read files.

    Part of such a program runs as soon as it is loaded. PyTorch gets the copy: it sees what was
    checked and nothing else.

    Raises
    ------
    evalkit.core.errors.InputError
        The archive is damaged, or its program names an operator that reaches files.
    """

    def checked(name: str, content: bytes) -> bytes:
        if name.lower().endswith(".py") and (used := REACH_FILES & _words(model, name, content)):
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

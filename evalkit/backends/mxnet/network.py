"""MXNet's files: a symbol and its parameters, read without executing anything in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalkit.backends.tensors import check_file, explained, first_line
from evalkit.core.errors import InputError

SYMBOL = "-symbol.json"
_MAGIC = (0x112).to_bytes(8, "little")  # of a list of arrays; no other kind is read


class Network(NamedTuple):
    """A symbol and its parameters, by MXNet's names."""

    symbol: Any
    arguments: dict[str, Any]
    states: dict[str, Any]
    parameters_file: Path


def find_files(model: Path) -> tuple[Path, Path]:
    """Return the file of the symbol and that of the parameters, by the name of either.

    Raises
    ------
    evalkit.core.errors.InputError
        One of them is missing, or there are several parameter files.
    """
    numbered = re.fullmatch(r"(.+)-\d{4}\.params", model.name)
    if numbered:
        symbol, parameters = model.with_name(numbered[1] + SYMBOL), model
    else:
        if model.suffix and not model.name.endswith(SYMBOL):
            check_file(model)
            raise InputError(
                f"{model} is no MXNet model. Give its NAME-symbol.json or NAME-0000.params."
            )
        prefix = model.name.removesuffix(SYMBOL)
        symbol = model.with_name(prefix + SYMBOL)
        check_file(symbol)
        pattern = re.compile(re.escape(prefix) + r"-\d{4}\.params")
        files = sorted(file for file in model.parent.iterdir() if pattern.fullmatch(file.name))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise InputError(f"{model} has several parameter files ({names}). Give one of them.")
        parameters = files[0] if files else model.with_name(f"{prefix}-0000.params")
    for file in (symbol, parameters):
        if not file.is_file():
            raise InputError(
                f"{model} needs {file}, which does not exist. Put it beside the other."
            )
        check_file(file)
    return symbol, parameters


def load_network(model: Path, mxnet: Any) -> Network:
    """Read a symbol and its parameters.

    Raises
    ------
    evalkit.core.errors.InputError
        A file is missing or damaged, or the parameters are not those of the symbol.
    """
    symbol_file, parameters_file = find_files(model)
    symbol = _load_symbol(symbol_file, mxnet)
    arrays = _load_parameters(parameters_file, mxnet)
    arguments = {name[4:]: value for name, value in arrays.items() if name.startswith("arg:")}
    states = {name[4:]: value for name, value in arrays.items() if name.startswith("aux:")}
    known = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    extra = sorted({*arguments, *states} - known)
    missing = sorted(set(symbol.list_auxiliary_states()) - set(states))
    if extra or missing or not arguments:
        raise InputError(_other_network(symbol_file, parameters_file, extra, missing))
    halves = [name for name, value in arguments.items() if value.dtype == np.float16]
    if halves:
        raise InputError(
            f"{parameters_file} holds fp16 parameters ({halves[0]}); MXNet's CPU operators do not "
            "compute with them. Save them as float32: value.astype('float32')."
        )
    return Network(symbol, arguments, states, parameters_file)


def _load_symbol(file: Path, mxnet: Any) -> Any:
    action = f"{file} is no symbol that MXNet {mxnet.__version__} reads"
    failures = (ValueError, RecursionError, mxnet.MXNetError)
    with explained(action, "Export or fetch it again.", failures, cause):
        text = file.read_text(encoding="utf-8")
        if not isinstance(json.loads(text), dict):
            raise ValueError("no mapping")
        return mxnet.sym.load_json(text)


def _load_parameters(file: Path, mxnet: Any) -> dict[str, Any]:
    content = file.read_bytes()
    with explained(f"{file} is damaged", "Fetch or save it again.", mxnet.MXNetError, cause):
        arrays = mxnet.nd.load_frombuffer(content) if content.startswith(_MAGIC) else None
    if not isinstance(arrays, dict):
        raise InputError(f"{file} holds no named MXNet arrays. Save it with mxnet.nd.save.")
    return arrays


def _other_network(symbol: Path, parameters: Path, extra: list[str], missing: list[str]) -> str:
    parts = []
    if extra:
        parts.append(f"{len(extra)} that the symbol does not know ({', '.join(extra[:3])})")
    if missing:
        parts.append(f"no {', '.join(missing[:3])}")
    content = " and ".join(parts) or "no parameters named 'arg:'"
    return (
        f"{parameters} holds {content}: it does not belong to {symbol.name}. Use the parameters "
        "that were saved with this symbol."
    )


def cause(error: BaseException) -> str:
    """Return the line of MXNet's message that names the cause; a trace of its sources is first."""
    lines = [line.strip().removeprefix("MXNetError: ") for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Traceback", "File "))]
    return lines[0].rstrip(".") if lines else first_line(error)

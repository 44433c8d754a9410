"""MXNet symbol and parameters to ONNX, by MXNet's own exporter in its own environment."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from evalkit.backends.environments import ready_interpreter
from evalkit.backends.worker.process import find_interpreter
from evalkit.core.errors import InputError, UnavailableError

_SCRIPT = Path(__file__).with_name("mxnet_script.py")
_LIMIT = 600


def to_onnx(
    symbol: Path,
    params: Path,
    shape: tuple[int, ...],
    folder: Path,
    *,
    dynamic: bool,
    python: Path | None,
) -> Any:
    """Export a model.

    Parameters
    ----------
    symbol, params : Path
    shape : tuple of int
        Of the input, the batch first.
    folder : Path
        For files on the way.
    dynamic : bool
        Whether the batch size stays open.
    python : Path or None
        An interpreter with MXNet and onnx; None takes that of ``evalkit env create mxnet``.

    Returns
    -------
    onnx.ModelProto
        As MXNet writes it: see `evalkit.convert.export.onnx_graph.mend`.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        There is no such interpreter, or MXNet cannot export the model.
    """
    import onnx  # noqa: PLC0415 - optional

    chosen = python or ready_interpreter("mxnet")
    if chosen is None:
        raise UnavailableError(
            "Exporting from MXNet needs its own environment. Run: evalkit env create mxnet; or "
            "name an interpreter with mxnet and onnx with --python."
        )
    out = folder.absolute() / "from_mxnet.onnx"
    sizes = ",".join(str(size) for size in shape)
    batch = "n" if dynamic else str(shape[0])
    command = [
        # Isolated, so that the script's folder, where this module is, does not pass for MXNet.
        *(str(find_interpreter(chosen)), "-I", str(_SCRIPT)),
        *(str(symbol.absolute()), str(params.absolute()), str(out), sizes, batch),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"MXNet did not export {symbol} within {_LIMIT} s.") from error
    if done.returncode or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise InputError(
            f"MXNet cannot export {symbol}: {lines[-1] if lines else 'it says nothing'}."
        )
    return onnx.load(str(out))

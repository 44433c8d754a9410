"""The backend ``outputs``: what a device wrote for the inputs of a dump, as if it ran here."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import evalkit
from evalkit.backends.base import PRECISIONS, Backend, Probe, Session, SessionOptions
from evalkit.backends.outputs.device import OutputsOptions
from evalkit.backends.outputs.examination import examine
from evalkit.backends.outputs.manifest import read_dump
from evalkit.backends.outputs.runtime_info import read_runtime_info, read_throughput
from evalkit.backends.outputs.session import OutputsSession
from evalkit.core.errors import InputError


class OutputsBackend(Backend):
    """Outputs that were computed elsewhere; `OutputsOptions` names what goes with them.

    `open` reads all outputs once and looks for those of other inputs, so that a fault is reported
    before anything is stored.
    """

    name: ClassVar[str] = "outputs"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`: reading files works everywhere."""
        return Probe(True, evalkit.__version__, ("elsewhere",), PRECISIONS, reads_outputs=True)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`; the model is the folder of outputs, or one file of them all."""
        if not model.exists():
            raise InputError(f"There are no outputs {model}. Name what the device wrote.")
        if not isinstance(options, OutputsOptions) or options.manifest is None:
            raise InputError(
                f"--manifest is missing: it says which output in {model} belongs to which input. "
                "Name the folder that 'evalkit dump' wrote. (A detector's predictions in WIDER "
                "FACE's layout go to --predictions instead.)"
            )
        info = read_runtime_info(options.runtime_info, options.precision)
        log = options.throughput_log
        rate = None if log is None else read_throughput(log)
        dump = read_dump(_dump_folder(options.manifest))
        session = OutputsSession(cls.name, model, dump, info, rate, options)
        if options.task not in {None, dump.manifest.task}:
            raise InputError(
                f"{dump.folder} is a dump of {dump.manifest.protocol}, but the evaluation is of "
                f"{options.task}. Name another dump with --manifest."
            )
        session.add_notes(examine(model, dump, session.read, options.verify, options.compare))
        return session


def _dump_folder(manifest: Path) -> Path:
    if not manifest.exists():
        raise InputError(
            f"There is no manifest {manifest}. Name the folder that 'evalkit dump' wrote."
        )
    return manifest if manifest.is_dir() else manifest.parent

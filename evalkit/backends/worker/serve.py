"""The worker's side of the connection: at most one session, one message at a time."""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import select
import signal
import sys
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evalkit.backends import BACKENDS
from evalkit.backends.base import Backend, Session, SessionOptions
from evalkit.backends.worker.wire import ConnectionClosedError, SharedArea, receive, send
from evalkit.core import errors
from evalkit.core.errors import DISTRIBUTION, EvalkitError, InputError, UnavailableError
from evalkit.core.machine import installed_version

_PACKAGES = {"tvm": "apache-tvm", "tvm_ffi": "apache-tvm"}
"""Packages whose name differs from the module's."""


def serve(numpy_version: str, channel: int, lifeline: int, batches: int, outputs: int) -> None:
    """Answer messages until the parent closes the connection.

    Parameters
    ----------
    numpy_version : str
        For the greeting.
    channel, lifeline : int
        Descriptors of the socket, and of a pipe whose other end only the parent has.
    batches, outputs : int
        Descriptors of the shared memory.
    """
    for descriptor in (channel, lifeline, batches, outputs):
        os.set_inheritable(descriptor, False)
    _die_with_the_parent(lifeline)
    connection = Connection(channel)
    server = _Server(SharedArea(batches), SharedArea(outputs))
    send(connection, {"python": platform.python_version(), "numpy": numpy_version})
    while True:
        try:
            message = receive(connection)
            send(connection, server.answer(message))
        except ConnectionClosedError:
            return


def _die_with_the_parent(lifeline: int) -> None:
    """Let the kernel end this process group when the parent's end of the pipe closes.

    A signal, not a thread: it also ends a runtime that hangs while it holds Python's lock.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline)
    if poll.poll(0):  # it closed before the signal was set
        os._exit(0)


class _Server:
    """The state of a worker: the shared memory and the session."""

    def __init__(self, batches: SharedArea, outputs: SharedArea) -> None:
        self.batches, self.outputs = batches, outputs
        self.session: Session | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Run the method that a message names; an error becomes the answer."""
        arguments = dict(message)
        try:
            return {"done": getattr(self, f"do_{arguments.pop('do')}")(**arguments)}
        except EvalkitError as error:
            known = next(kind for kind in type(error).__mro__ if vars(errors).get(kind.__name__))
            return {"error": known.__name__, "message": str(error)}
        except Exception:
            return {"error": "fault", "message": traceback.format_exc()}

    def do_probe(self, backend: str) -> dict[str, Any]:
        """Probe a backend in this interpreter."""
        return asdict(_backend(backend).probe())

    def do_open(self, backend: str, model: str, options: dict[str, Any]) -> dict[str, Any]:
        """Open the session."""
        image = options.pop("image", None)
        chosen = SessionOptions(**options, image=None if image is None else tuple(image))
        self.session = _backend(backend).open(Path(model), chosen)
        return {
            "inputs": [asdict(info) for info in self.session.inputs],
            "outputs": [asdict(info) for info in self.session.outputs],
            "ran": asdict(self.session.ran),
        }

    def do_run(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run a batch that lies in shared memory; write the outputs there too."""
        if self.session is None:
            raise InputError("No model is open in this worker.")
        outputs = self.session.run(self.batches.read(batch)["batch"])
        return self.outputs.write(outputs.items())

    def do_call(self, target: str, arguments: dict[str, Any]) -> Any:
        """Call ``module:function`` of evalkit with JSON values."""
        module, _, name = target.partition(":")
        return getattr(importlib.import_module(module), name)(**arguments)


def _backend(name: str) -> type[Backend]:
    try:
        return BACKENDS.get(name)
    except UnavailableError as error:
        cause = error.__cause__
        if not isinstance(cause, ImportError) or installed_version(DISTRIBUTION):
            raise  # a fault of another package, or the message names the extra
        missing = (cause.name or name).partition(".")[0]
        raise UnavailableError(
            f"The backend {name!r} cannot be loaded in {sys.executable}: {cause}. Install its "
            f"runtime there: {sys.executable} -m pip install {_PACKAGES.get(missing, missing)}. Or "
            "name another interpreter."
        ) from error

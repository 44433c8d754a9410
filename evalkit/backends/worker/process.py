"""A worker process of another interpreter: started, asked, watched, ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from evalkit.backends.worker.wire import ConnectionClosedError, SharedArea, receive, send
from evalkit.core import errors
from evalkit.core.errors import EvalkitError, InputError, WorkerError
from evalkit.core.machine import available_cores

TIMEOUT = 600.0
"""Seconds that a worker may take for one answer, where nothing else is said."""

_MAIN = Path(__file__).with_name("main.py")
_MARK = "EVALKIT_WORKER"
_START_LIMIT = 120.0
_STARTING = "starting"
_TAIL_BYTES = 8192
_TAIL_LINES = 8
_LINE_LENGTH = 300


def find_interpreter(named: str | Path) -> Path:
    """Return the interpreter's absolute path, its links kept: by them it finds its packages.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none, or it is a folder or no program.
    """
    text = str(Path(named).expanduser()) if os.sep in str(named) else str(named)
    found = shutil.which(text)
    if found is None:
        inside = Path(text, "bin", "python")
        hint = f"Its environment has {inside}." if inside.is_file() else "Check --python."
        raise InputError(f"There is no Python interpreter {text}: it is no program. {hint}")
    return Path(found).absolute()


def in_worker() -> bool:
    """Whether this process is a worker itself."""
    return _MARK in os.environ


class Worker:
    """A process of another interpreter that answers one question at a time.

    It dies with this process however that ends, and `close` kills it.

    Parameters
    ----------
    python : str or Path
        The interpreter.
    threads : int or None
        For OpenMP in it; None means all cores that this process may use.
    timeout : float
        Seconds for one answer.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no such interpreter.
    evalkit.core.errors.WorkerError
        It cannot start: too old, no NumPy, no Python.
    """

    def __init__(
        self, python: str | Path, *, threads: int | None = None, timeout: float = TIMEOUT
    ) -> None:
        self.python = find_interpreter(python)
        self.timeout = timeout
        self.given, self.made = SharedArea.create(), SharedArea.create()
        self._channel, theirs = socket.socketpair()
        lifeline, self._held = os.pipe()
        descriptors = (theirs.fileno(), lifeline, self.given.descriptor, self.made.descriptor)
        try:
            self._process = subprocess.Popen(
                [self.python, _MAIN, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                env=_environment(self.python, threads or available_cores()),
                start_new_session=True,  # Ctrl-C is this process's to handle
            )
        except OSError as error:
            _release(self._channel, self._held, (self.given, self.made))
            raise InputError(f"Cannot run {self.python}: {error.strerror}.") from error
        finally:
            theirs.close()
            os.close(lifeline)
        self._tail = _Tail(self._process.stdout)
        self.close = weakref.finalize(
            self, _end, self._process, self._channel, self._held, (self.given, self.made)
        )
        self.versions = self._receive(_STARTING, min(timeout, _START_LIMIT))

    def ask(self, doing: str, **message: Any) -> Any:
        """Send a question and return the answer.

        Parameters
        ----------
        doing : str
            What the worker does meanwhile, for messages: ``"opening y1.onnx"``.
        message
            JSON values.

        Raises
        ------
        evalkit.core.errors.EvalkitError
            What the worker raised, of the same class.
        evalkit.core.errors.WorkerError
            It died, or did not answer in time; it is ended then.
        """
        self.check_alive()
        try:
            send(self._channel, message, self.timeout)
        except (ConnectionClosedError, TimeoutError) as error:
            self._fail(doing, error, self.timeout)
        answer = self._receive(doing, self.timeout)
        if "error" not in answer:
            return answer["done"]
        kind = vars(errors).get(answer["error"])
        if isinstance(kind, type) and issubclass(kind, EvalkitError):
            raise kind(answer["message"])
        raise RuntimeError(f"in a worker of {self.python}, while {doing}:\n{answer['message']}")

    def check_alive(self) -> None:
        """Refuse one that was ended, whose memory is gone with it.

        Raises
        ------
        evalkit.core.errors.WorkerError
        """
        if not self.close.alive:
            raise WorkerError(f"The worker of {self.python} has ended. Open the model again.")

    def _receive(self, doing: str, limit: float) -> dict[str, Any]:
        try:
            return receive(self._channel, limit)
        except (ConnectionClosedError, TimeoutError, ValueError) as error:
            self._fail(doing, error, limit)
        except BaseException:  # interrupted: a late answer would be taken for the next one's
            self.close()
            raise

    def _fail(self, doing: str, error: Exception, limit: float) -> NoReturn:
        """End the worker and say how it went."""
        code = None
        if not isinstance(error, TimeoutError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(2)
        self.close()
        words = self._tail.words()
        if isinstance(error, TimeoutError):
            how = f"gave no answer within {limit:g} s while {doing} and was ended. "
            how += self._remedy(doing, limit)
        else:
            how = f"{_ending(code)} while {doing}"
        said = "\n  ".join(["Its last words:", *words]) if words else "It said nothing."
        raise WorkerError(f"The worker of {self.python} {how}. {said}") from error

    def _remedy(self, doing: str, limit: float) -> str:
        """Say what helps where the time was too short; of a start, no option allows more."""
        if doing == _STARTING and limit >= _START_LIMIT:
            return f"No start may take longer: see what holds up {self.python} -c 'import numpy'"
        return "Allow more with --worker-timeout"


class _Tail:
    """Reads what a process prints, all of it, so that it never waits; keeps the end."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream = stream
        self._end = b""
        self._thread = threading.Thread(target=self._drain, name="worker-output", daemon=True)
        self._thread.start()

    def words(self) -> list[str]:
        """Return the last lines, printable and of bounded length."""
        self._thread.join(1.0)
        lines = self._end.decode(errors="replace").splitlines()
        printable = (
            "".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines
        )
        return [line[:_LINE_LENGTH] for line in printable if line][-_TAIL_LINES:]

    def _drain(self) -> None:
        with self._stream as stream:
            while part := os.read(stream.fileno(), 1 << 16):
                self._end = (self._end + part)[-_TAIL_BYTES:]


def _environment(python: Path, threads: int) -> Mapping[str, str]:
    """Return this process's environment; without what leads to its packages, if of no use there."""
    paths = set() if _is_this(python) else {"PYTHONPATH", "PYTHONHOME"}
    held = {k: v for k, v in os.environ.items() if k not in paths}
    return {
        **held,
        "PYTHONUNBUFFERED": "1",  # else last words are lost with the process
        _MARK: "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads would take the cores that decoding needs
    }


def _is_this(python: Path) -> bool:
    """Whether an interpreter is the one that runs this: the same program of the same folder.

    The program alone is not enough: those of virtual environments are links to one.
    """
    here = Path(sys.executable)
    return python.samefile(here) and python.parent.resolve() == here.parent.resolve()


def _ending(code: int | None) -> str:
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = ", perhaps for want of memory," if -code == signal.SIGKILL else ""
    return f"was killed by {name}{memory}"


def _end(
    process: subprocess.Popen[bytes],
    channel: socket.socket,
    held: int,
    areas: tuple[SharedArea, ...],
) -> None:
    """Kill a worker and whatever it has started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    _release(channel, held, areas)


def _release(channel: socket.socket, held: int, areas: tuple[SharedArea, ...]) -> None:
    channel.close()
    os.close(held)
    for area in areas:
        area.close()

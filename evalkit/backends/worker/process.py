"""A worker process of another interpreter: its start, its answers, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, NoReturn

from evalkit.backends.worker.wire import ConnectionClosedError, SharedArea, receive, send
from evalkit.core import errors
from evalkit.core.errors import EvalkitError, InputError, WorkerError
from evalkit.core.machine import available_cores

TIMEOUT = 600.0
"""Seconds that a worker may take for one answer, by default."""

_MAIN = Path(__file__).with_name("main.py")
_MARK = "EVALKIT_WORKER"
_START_LIMIT = 120.0
_STARTING = "starting"
_TAIL_BYTES = 8192
_TAIL_LINES = 8
_LINE_LENGTH = 300


def find_interpreter(python: str | Path) -> Path:
    """Return an interpreter's absolute path; links stay, since it finds its packages by them.

    Raises
    ------
    evalkit.core.errors.InputError
        It does not exist, or is a folder or no program.
    """
    text = str(Path(python).expanduser()) if os.sep in str(python) else str(python)
    program = shutil.which(text)
    if program is None:
        inside = Path(text, "bin", "python")
        hint = f"Its environment has {inside}." if inside.is_file() else "Check --python."
        raise InputError(f"There is no Python interpreter {text}: it is no program. {hint}")
    return Path(program).absolute()


def in_worker() -> bool:
    """Whether this process is a worker itself."""
    return _MARK in os.environ


class Worker:
    """A process of another interpreter that answers one question at a time.

    It dies with this process, whatever ends that; `close` kills it.

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
        self.batches, self.outputs = SharedArea.create(), SharedArea.create()
        areas = self.batches, self.outputs
        self._channel, remote = Pipe()
        lifeline, own_end = os.pipe()
        descriptors = (remote.fileno(), lifeline, *(area.descriptor for area in areas))
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
            _release(self._channel, own_end, areas)
            raise InputError(
                f"Cannot run {self.python}: {error.strerror}. Name another interpreter."
            ) from error
        finally:
            remote.close()
            os.close(lifeline)
        self._tail = _Tail(self._process.stdout)
        self.close = weakref.finalize(self, _end, self._process, self._channel, own_end, areas)
        self.versions = self._receive(_STARTING, min(timeout, _START_LIMIT))

    def ask(self, doing: str, **message: Any) -> Any:
        """Send a question and return the answer.

        Parameters
        ----------
        doing : str
            What the worker does, for messages: ``"opening y1.onnx"``.
        message
            JSON values.

        Raises
        ------
        evalkit.core.errors.EvalkitError
            The worker raised it, of the same class.
        evalkit.core.errors.WorkerError
            The worker died, or did not answer in time and was ended.
        """
        self.check_alive()
        try:
            send(self._channel, message)
        except ConnectionClosedError as error:
            self._fail(doing, error, self.timeout)
        answer = self._receive(doing, self.timeout)
        if "error" not in answer:
            return answer["done"]
        kind = vars(errors).get(answer["error"])
        if isinstance(kind, type) and issubclass(kind, EvalkitError):
            raise kind(answer["message"])
        raise RuntimeError(f"in a worker of {self.python}, while {doing}:\n{answer['message']}")

    def check_alive(self) -> None:
        """Check that the worker, and with it the shared memory, has not ended.

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
        except BaseException:  # interrupted: a late answer would be taken for the next one
            self.close()
            raise

    def _fail(self, doing: str, error: Exception, limit: float) -> NoReturn:
        """End the worker and report how it ended."""
        code = None
        if not isinstance(error, TimeoutError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(2)
        self.close()
        lines = self._tail.lines()
        if isinstance(error, TimeoutError):
            how = f"gave no answer within {limit:g} s while {doing} and was ended. "
            how += self._remedy(doing, limit)
        else:
            how = f"{_ending(code)} while {doing}"
        output = "\n  ".join(["Its last output:", *lines]) if lines else "It printed nothing."
        raise WorkerError(f"The worker of {self.python} {how}. {output}") from error

    def _remedy(self, doing: str, limit: float) -> str:
        """Return what to do after a time-out; no option allows a start more time."""
        if doing == _STARTING and limit >= _START_LIMIT:
            return f"No start may take longer: find out what delays {self.python} -c 'import numpy'"
        return "Allow more with --worker-timeout"


class _Tail:
    """Reads everything that a process prints, so that it never blocks; keeps the end."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream = stream
        self._end = b""
        self._thread = threading.Thread(target=self._drain, name="worker-output", daemon=True)
        self._thread.start()

    def lines(self) -> list[str]:
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
    """Return this process's environment; another interpreter gets no paths to its packages."""
    paths = set() if _is_this(python) else {"PYTHONPATH", "PYTHONHOME"}
    return {
        **{name: value for name, value in os.environ.items() if name not in paths},
        "PYTHONUNBUFFERED": "1",  # else the last output is lost with the process
        _MARK: "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads would take the cores that decoding needs
    }


def _is_this(python: Path) -> bool:
    """Whether an interpreter is the one that runs this: the same program in the same folder.

    The program alone is not enough: in virtual environments it is a link to a common one.
    """
    here = Path(sys.executable)
    return python.samefile(here) and python.parent.resolve() == here.parent.resolve()


def _ending(code: int | None) -> str:
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    name = names.get(-code, f"signal {-code}")
    memory = ", perhaps for lack of memory," if -code == signal.SIGKILL else ""
    return f"was killed by {name}{memory}"


def _end(
    process: subprocess.Popen[bytes],
    channel: Connection,
    lifeline: int,
    areas: tuple[SharedArea, ...],
) -> None:
    """Kill a worker and all processes that it started, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    _release(channel, lifeline, areas)


def _release(channel: Connection, lifeline: int, areas: tuple[SharedArea, ...]) -> None:
    channel.close()
    os.close(lifeline)
    for area in areas:
        area.close()

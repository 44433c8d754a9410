"""The command line: one module a subcommand, which is imported only when it runs.

A module has `configure`, which adds the options, and `run`. `EPILOG` is the end of its ``--help``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from evalkit.core.errors import EXIT_INTERNAL, EXIT_USER_ERROR, InputError, explain

EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell reports it

_COMMANDS = {
    "convert": "build an fp16, bf16 or int8 model with a backend's toolchain",
    "pack": "make a .bin from your own images and pairs",
    "inspect": "show what a .bin holds",
    "compare": "compare two results on the same data",
    "backends": "list the runtimes, or check one of them",
    "bench": "measure throughput, latency and memory of a model",
    "gate": "compare a result with a baseline, for CI",
    "env": "build an environment for a runtime that needs old packages",
    "report": "write one offline page of results, curves and speed",
    "signoff": "evaluate a plan's backends and precisions, and judge them",
    "export": "export a PyTorch or MXNet model to ONNX or TorchScript",
    "dump": "write a model's exact inputs, to run them on another device",
    "sample": "write a sample data set in a benchmark's format",
}
"""Summaries of the commands that are not tasks. Each has a module of its name in `evalkit.cli`."""


@functools.cache
def commands() -> dict[str, str]:
    """Return the summary of every command, those of the tasks first."""
    from evalkit.tasks import TASKS

    return TASKS.summaries() | _COMMANDS


def _check_name(name: str) -> None:
    """Refuse a command whose name another package gave to a task; other commands go on."""
    from evalkit.tasks import TASKS

    if name in _COMMANDS and name in TASKS:
        raise InputError(
            f"{TASKS.entry(name).origin} registers a task {name!r}, which is the name of a "
            "command. Uninstall it, or ask its makers for another name."
        )


_EPILOG = """\
exit codes: 0 pass, 1 a gate or sign-off failed, 2 wrong input, 3 cannot be judged,
70 a fault of evalkit, 130 interrupted, 141 nobody read the output

example: python -m evalkit ijbc        (the embedded sample: no data or model needed)
"""


class _Parser(argparse.ArgumentParser):
    """A parser that refuses unknown options itself, with its own usage and a suggestion."""

    def parse_known_args(  # type: ignore[override]  # narrower than its overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; the parsers of subcommands run this too, and leave nothing to the top level."""
        arguments, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggestion(unknown)}")
        return arguments, unknown

    def _suggestion(self, unknown: Sequence[str]) -> str:
        import difflib

        for word in unknown:
            option = word.partition("=")[0]
            close = difflib.get_close_matches(option, self._option_string_actions, n=1)
            if option.startswith("-") and close:
                return f" (did you mean {close[0]}?)"
        return ""


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """Build the parser; only the chosen subcommand's options are filled in."""
    import evalkit

    parser = _Parser(
        prog="evalkit",
        description="Evaluate the accuracy of face models by backend and precision.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evalkit {evalkit.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in commands().items():
        command = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            _check_name(name)
            module = name if name in _COMMANDS else "evaluate"
            implementation = importlib.import_module(f"evalkit.cli.{module}")
            command.epilog = getattr(implementation, "EPILOG", None)
            command.set_defaults(run=getattr(implementation, "run", None))
            implementation.configure(command, name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = EXIT_CLOSED_PIPE
    try:
        try:
            code = _run(words)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout, sys.stderr)
    except OSError as error:
        _discard(sys.stdout)
        print(f"evalkit: cannot print the output: {error.strerror}", file=sys.stderr)
        return EXIT_USER_ERROR
    return code


def _run(words: list[str]) -> int:
    chosen = None
    try:
        chosen = next((word for word in words if word in commands()), None)
        arguments = build_parser(chosen).parse_args(words)
        with _terminable():
            return int(arguments.run(arguments))
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        message, code = explain(error)
        if code == EXIT_INTERNAL:
            traceback.print_exc()
        return _complain(chosen, message, code)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, by which CI ends a job, like Ctrl-C: stored outputs stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(command: str | None, message: str, code: int) -> int:
    try:
        print(f"evalkit{f' {command}' if command else ''}: {message}", file=sys.stderr)
    except BrokenPipeError:  # the exit code says it
        _discard(sys.stderr)
    return code


def _discard(*streams: TextIO | None) -> None:
    """Send what is left to the null device: at its end the interpreter would write it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

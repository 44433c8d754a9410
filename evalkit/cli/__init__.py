"""The command line: one module a subcommand, imported only when it is the one that runs."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from evalkit.core.errors import EXIT_INTERNAL, EXIT_USER_ERROR, EvalkitError

EXIT_CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell reports it

COMMANDS = {
    "ijbc": ("evalkit.cli.ijb", "IJB-C: TAR@FAR over template pairs, 1:N identification"),
    "ijbb": ("evalkit.cli.ijb", "IJB-B, the same protocol on its own release"),
    "lfw": ("evalkit.cli.lfw", "LFW, CFP, AgeDB and any .bin of pairs: ten-fold accuracy"),
    "widerface": ("evalkit.cli.widerface", "WIDER FACE: Easy, Medium and Hard AP of any detector"),
    "convert": ("evalkit.cli.convert", "build fp16, bf16 or int8 with the backend's toolchain"),
    "pack": ("evalkit.cli.pack", "make a .bin of your own images and pairs"),
    "inspect": ("evalkit.cli.inspect", "say what a .bin holds"),
    "compare": ("evalkit.cli.compare", "two results on the same data: what changed, for whom"),
    "backends": ("evalkit.cli.backends", "which runtimes are here; a doctor for each"),
    "bench": ("evalkit.cli.bench", "throughput, latency and memory by backend and precision"),
    "gate": ("evalkit.cli.gate", "a result against a pinned baseline, for CI"),
    "env": ("evalkit.cli.env", "build an environment for a runtime with old pins"),
    "report": ("evalkit.cli.report", "one offline page of results, curves and speed"),
    "signoff": ("evalkit.cli.signoff", "a matrix of backends and precisions against a plan"),
    "export": ("evalkit.cli.export", "a PyTorch or MXNet model to ONNX or TorchScript, checked"),
    "dump": ("evalkit.cli.dump", "write a model's exact inputs, for a device elsewhere"),
    "sample": ("evalkit.cli.sample", "write a sample data set in a benchmark's own format"),
}

_EPILOG = """\
exit codes: 0 pass, 1 a gate or sign-off failed, 2 wrong input, 3 cannot be judged,
70 a fault of evalkit, 130 interrupted, 141 nobody read the output

example: python -m evalkit ijbc        (the embedded sample: no data or model needed)
"""


class _Parser(argparse.ArgumentParser):
    """A parser that refuses unknown words itself, with its own usage and what may be meant."""

    def parse_known_args(  # type: ignore[override]  # narrower than its overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; subcommands get here too, so that nothing unknown is left to the top level."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return found, unknown

    def _meant(self, unknown: Sequence[str]) -> str:
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
        description="Accuracy evaluation of face models, per backend and precision.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"evalkit {evalkit.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            importlib.import_module(module).configure(command, name)
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
    chosen = next((word for word in words if word in COMMANDS), None)
    arguments = build_parser(chosen).parse_args(words)
    try:
        with _terminable():
            return int(arguments.run(arguments))
    except EvalkitError as error:
        return _complain(arguments.command, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain(
            arguments.command,
            "interrupted; outputs that were stored are kept, and the same command resumes",
            130,
        )
    except BrokenPipeError:
        raise
    except Exception as error:
        from evalkit.core.files import USER_ERRNOS
        from evalkit.datasets.errors import DatasetError

        if isinstance(error, DatasetError):
            return _complain(arguments.command, str(error), EXIT_USER_ERROR)
        if isinstance(error, OSError) and error.errno in USER_ERRNOS | {errno.ENOENT}:
            return _complain(arguments.command, _describe(error), EXIT_USER_ERROR)
        traceback.print_exc()
        return _complain(
            arguments.command,
            "this is a fault of evalkit, not yours; please report the lines above",
            EXIT_INTERNAL,
        )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM, by which CI ends a job, for an interruption: what was computed is kept."""
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


def _describe(error: OSError) -> str:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    # repr keeps a name with odd characters in its line.
    what = " or ".join(repr(str(name)) for name in names) or "a file"
    return (
        f"Cannot use {what}: {error.strerror}. Check that the path exists, may be written where "
        "it must be, and has space left (EVALKIT_CACHE names another folder for caches)."
    )


def _complain(command: str, message: str, code: int) -> int:
    try:
        print(f"evalkit {command}: {message}", file=sys.stderr)
    except BrokenPipeError:  # the code still tells
        _discard(sys.stderr)
    return code


def _discard(*streams: TextIO | None) -> None:
    """Send what is left to nowhere: at its end the interpreter would try to write it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)

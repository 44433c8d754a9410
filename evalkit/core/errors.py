"""The errors that a user sees, and the exit codes that a CI job reads."""

from __future__ import annotations

import errno

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_CANNOT_JUDGE = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

USER_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EFBIG,
        errno.ENAMETOOLONG,
    }
)
"""Errors of the operating system that the user can correct: space, permissions, wrong paths."""


DISTRIBUTION = "face-evalkit"
"""The name under which evalkit is installed; ``evalkit`` alone is another author's."""


def install_command(extra: str) -> str:
    """Return the command that brings an extra, and where to run it: evalkit is not on PyPI.

    Examples
    --------
    >>> install_command("torch")
    "pip install -e '.[torch]' (in the checkout of evalkit)"
    """
    return f"pip install -e '.[{extra}]' (in the checkout of evalkit)"


class EvalkitError(Exception):
    """Base of every error that the user can correct: one message, no stack trace.

    Attributes
    ----------
    exit_code : int
        What the command line returns for it.
    """

    exit_code = EXIT_USER_ERROR


class InputError(EvalkitError):
    """The user's input (a file, an option, a model) is wrong; the message says how to fix it."""


class WrongPrecisionError(InputError):
    """A model was built in another precision than the setting says."""


class UnavailableError(EvalkitError):
    """A backend or another optional part cannot run here; the message says how to install it."""


class WorkerError(EvalkitError):
    """A worker process died, hung or could not start; the message has its last output."""


class CannotJudgeError(EvalkitError):
    """No verdict is possible: other data, too few samples, an incomplete run."""

    exit_code = EXIT_CANNOT_JUDGE


def explain(error: BaseException) -> tuple[str, int]:
    """Return the message for the user and the exit code of an error that ends a command.

    The code is `EXIT_INTERNAL` for an error that is not the user's: its stack trace must be shown,
    too.

    Examples
    --------
    >>> explain(InputError("There is no model 'x.onnx'. Check the path."))
    ("There is no model 'x.onnx'. Check the path.", 2)
    """
    from evalkit.datasets.errors import DatasetError  # noqa: PLC0415 - errors need no data set

    if isinstance(error, EvalkitError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return (
            "interrupted. Stored outputs are kept: the same command resumes.",
            EXIT_INTERRUPTED,
        )
    if isinstance(error, DatasetError):
        return str(error), EXIT_USER_ERROR
    if isinstance(error, OSError) and error.errno in USER_ERRNOS | {errno.ENOENT}:
        return _describe(error), EXIT_USER_ERROR
    return "This is a fault of evalkit. Please report the lines above.", EXIT_INTERNAL


def _describe(error: OSError) -> str:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    # repr keeps a name with odd characters in its line.
    what = " or ".join(repr(str(name)) for name in names) or "a file"
    return (
        f"Cannot use {what}: {error.strerror}. Check that the path exists, is writable, and has "
        "space left (EVALKIT_CACHE names another folder for caches)."
    )

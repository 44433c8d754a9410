"""The errors that a user sees, and the exit codes that a CI job reads."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_CANNOT_JUDGE = 3
EXIT_INTERNAL = 70


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
    """Base of every error that is the user's to mend: one message, no stack trace.

    Attributes
    ----------
    exit_code : int
        What the command line returns for it.
    """

    exit_code = EXIT_USER_ERROR


class InputError(EvalkitError):
    """The user's input (a file, an option, a model) is wrong; the message says how to fix it."""


class WrongPrecisionError(InputError):
    """A model was built in another precision than the one asked for."""


class UnavailableError(EvalkitError):
    """A backend or another optional part cannot run here; the message says what brings it."""


class WorkerError(EvalkitError):
    """A worker process died, hung or could not start; the message has its last words."""


class CannotJudgeError(EvalkitError):
    """No verdict is possible: other data, too few samples, an incomplete run."""

    exit_code = EXIT_CANNOT_JUDGE

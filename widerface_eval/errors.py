"""The evaluator's own errors, so that it can be used without the rest of evalkit."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 10


class WiderFaceError(ValueError):
    """An input is wrong: one message that names it and the remedy."""

    exit_code = 2


class IncompleteError(WiderFaceError):
    """Predictions are missing, so that no AP can be stated."""

    exit_code = 3


def listed(names: Sequence[str]) -> str:
    """Join names for a message, the first ten and the number of the others.

    Examples
    --------
    >>> listed(["a", "b"])
    'a, b'
    >>> listed([str(i) for i in range(12)])
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown

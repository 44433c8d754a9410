"""The command line, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

Command = Callable[..., int]


def spawn(*words: object, **options: object) -> subprocess.Popen[str]:
    """Start the command line as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        **options,  # type: ignore[call-overload]
    )

"""What evaluates by a task's settings, shows the tables and writes the files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

Show = Callable[[str], None]
"""Prints a text."""


Command = Callable[..., None]
"""Evaluates a task by its settings.

It takes the task's name, its settings, where progress goes, what prints a text, and ``command``, as
the user typed it, for the result.
"""

COMMANDS: Mapping[str, str] = {
    "ijbb": "evalkit.tasks.ijb.command",
    "ijbc": "evalkit.tasks.ijb.command",
}


def command_of(name: str) -> Command:
    """Import and return what evaluates a task."""
    return cast("Command", importlib.import_module(COMMANDS[name]).run)

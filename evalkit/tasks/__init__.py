"""Tasks: all that is known of a benchmark, one module or folder each."""

from __future__ import annotations

from typing import Any

from evalkit.core.registry import Entry, Registry
from evalkit.tasks.base import Task

TASKS: Registry[type[Task[Any]]] = Registry("task", Task, {})

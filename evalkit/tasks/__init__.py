"""Tasks: all that is known of a benchmark, one module or folder each."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.core.errors import EvalkitError
from evalkit.core.registry import Entry, Registry
from evalkit.tasks.base import Task
from evalkit.tasks.foreign import guarded

if TYPE_CHECKING:
    from evalkit.core.settings import RunSettings

TASKS: Registry[type[Task[Any]]] = Registry(
    "task",
    Task,
    {
        "ijbc": Entry(
            "evalkit.tasks.ijb.task:Ijbc",
            settings="evalkit.tasks.ijb.settings:IjbSettings",
            summary="IJB-C: TAR@FAR over template pairs, 1:N identification",
        ),
        "ijbb": Entry(
            "evalkit.tasks.ijb.task:Ijbb",
            settings="evalkit.tasks.ijb.settings:IjbSettings",
            summary="IJB-B, the same protocol on its own release",
        ),
        "lfw": Entry(
            "evalkit.tasks.lfw.task:Lfw",
            settings="evalkit.tasks.lfw.settings:LfwSettings",
            summary="LFW, CFP, AgeDB and any .bin of pairs: ten-fold accuracy",
        ),
        "pairs": Entry(
            "evalkit.tasks.pairs.task:Pairs",
            settings="evalkit.tasks.pairs.settings:PairsSettings",
            summary="your own pairs of images, or scores: FNMR@FMR, EER, accuracy",
        ),
        "widerface": Entry(
            "evalkit.tasks.widerface.task:WiderFaceTask",
            settings="evalkit.tasks.widerface.settings:WiderFaceSettings",
            summary="WIDER FACE: Easy, Medium and Hard AP of any detector",
        ),
    },
    guard=guarded,
)


def settings_of(name: str) -> type[RunSettings]:
    """Return a task's settings, without the rest of the task where its entry tells their place."""
    entry = TASKS.entry(name)
    if not entry.settings:
        return TASKS.get(name).Settings
    module, _, attribute = entry.settings.partition(":")
    kind: type[RunSettings] = getattr(importlib.import_module(module), attribute)
    return kind


def title_of(name: str) -> str:
    """Return a task's title; its name in upper case where the task is not installed."""
    try:
        return TASKS.get(name).title
    except EvalkitError:
        return name.upper()


def hidden_parts_of(name: str) -> frozenset[str]:
    """Return a task's hidden parts; none where the task is not installed."""
    try:
        return TASKS.get(name).hidden_parts
    except EvalkitError:
        return frozenset()


def task_of(path: Path) -> Task[Any] | None:
    """Return the task whose data a path holds, None where it is no task's."""
    for name in TASKS:
        with suppress(EvalkitError):  # a task that cannot be used says nothing of other data
            task = TASKS.get(name)()
            if task.finds(path):
                return task
    return None

"""Tasks of other packages: their exceptions are reported as their faults, not evalkit's."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

from evalkit.core.errors import InputError
from evalkit.core.registry import Entry, blamed
from evalkit.datasets.errors import DatasetError
from evalkit.tasks.base import Task

Blamed = Callable[..., AbstractContextManager[None]]

_METHODS = tuple(n for n, v in vars(Task).items() if callable(v) and not n.startswith("_"))
"""What a task may do: every method of the contract."""

_PASSING = (DatasetError, OSError)
"""Errors of the user's files, beside those of evalkit."""


@functools.cache
def guarded(task: type[Task[Any]], registered: str, entry: Entry) -> type[Task[Any]]:
    """Derive a task whose methods raise errors of evalkit and of files only.

    Parameters
    ----------
    task : type of Task
    registered : str
        Its name.
    entry : Entry
        What registered it.

    Raises
    ------
    evalkit.core.errors.InputError
        The task lacks a method of the contract.
    """
    absent = sorted(getattr(task, "__abstractmethods__", ()))
    if inspect.isabstract(task):
        raise InputError(
            f"The task {registered!r} of {entry.origin} ({entry.target}) has no "
            f"{', '.join(absent)}. Ask its makers to add what evalkit.tasks.base.Task requires."
        )
    guard = partial(blamed, "task", registered, entry)
    methods = {name: _guarded(name, getattr(task, name), guard) for name in _METHODS}
    names = {"__module__": task.__module__, "__qualname__": task.__qualname__}
    values = {**names, **methods}
    derived = types.new_class(task.__name__, (task,), exec_body=lambda body: body.update(values))
    return cast("type[Task[Any]]", derived)


def _guarded(name: str, method: Callable[..., Any], guard: Blamed) -> Callable[..., Any]:
    # A ValueError of `primaries` is its answer.
    passing = (*_PASSING, ValueError) if name == "primaries" else _PASSING
    doing = f"in its method {name}"

    @functools.wraps(method)
    def call(*values: Any, **named: Any) -> Any:
        with guard(doing, passing):
            value = method(*values, **named)
        return _items(value, guard, doing) if isinstance(value, Iterator) else value

    return call


def _items(items: Iterator[Any], guard: Blamed, doing: str) -> Iterator[Any]:
    """Yield what a method yields; an error of the reader is not the method's."""
    try:
        while True:
            with guard(doing, _PASSING):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        if isinstance(items, Generator):
            with guard(doing, _PASSING):
                items.close()

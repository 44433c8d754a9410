"""Names of backends, heads, data sets and protocols, resolved only when used.

A registry holds ``"module:attribute"`` strings, so that listing names imports nothing heavy.
Third parties add theirs by entry points of the registry's group, such as ``evalkit.backends``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from evalkit.errors import InputError, UnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered name.

    Attributes
    ----------
    target : str
        ``"module:attribute"``.
    extra : str or None
        The extra of evalkit that brings what the module imports.
    origin : str
        The distribution that registered it.
    """

    target: str
    extra: str | None = None
    origin: str = "evalkit"


class Registry(Generic[T]):
    """A mapping of names to lazily imported objects.

    Parameters
    ----------
    kind : str
        What the names are, for messages: ``backend``.
    base : type
        What every object must be an instance or a subclass of.
    builtin : mapping of str to Entry
        The names that evalkit brings.

    Examples
    --------
    >>> numbers = Registry("number", object, {"pi": Entry("math:pi")})
    >>> numbers.get("pi")
    3.141592653589793
    >>> numbers.get("pie")
    Traceback (most recent call last):
    evalkit.errors.InputError: There is no number 'pie'. Did you mean 'pi'? Known: pi.
    """

    def __init__(self, kind: str, base: type, builtin: Mapping[str, Entry]) -> None:
        self.kind = kind
        self.base = base
        self.group = f"evalkit.{kind}s"
        self._entries = dict(builtin)
        self._plugins_read = False

    def register(self, name: str, target: str, *, extra: str | None = None, origin: str) -> None:
        """Add a name.

        Raises
        ------
        evalkit.errors.InputError
            The name is taken by something else, or the target is not ``module:attribute``.
        """
        if ":" not in target:
            raise InputError(
                f"The {self.kind} {name!r} of {origin} points to {target!r}; "
                "write it as 'module:attribute'."
            )
        held = self._entries.get(name)
        if held is not None and held.target != target:
            raise InputError(
                f"Two packages register the {self.kind} {name!r}: {held.origin} "
                f"({held.target}) and {origin} ({target}). Uninstall one of them."
            )
        self._entries[name] = Entry(target, extra, origin)

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        self._read_plugins()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Look up what is registered under a name.

        Raises
        ------
        evalkit.errors.InputError
            Nothing is; the message says what was perhaps meant.
        """
        self._read_plugins()
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(self._entries))
            raise InputError(f"There is no {self.kind} {name!r}.{hint} Known: {known}.")
        return self._entries[name]

    def get(self, name: str) -> T:
        """Import and return what is registered under a name.

        Raises
        ------
        evalkit.errors.InputError
            The name is unknown, or its object is not of the registry's kind.
        evalkit.errors.UnavailableError
            The library that it needs is not installed.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            value: Any = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise UnavailableError(self._missing(name, entry, error)) from error
        except AttributeError as error:
            raise InputError(
                f"The {self.kind} {name!r} of {entry.origin} points to {entry.target!r}, but "
                f"{module} has no {attribute!r}. Correct the entry point."
            ) from error
        if not (isinstance(value, type) and issubclass(value, self.base)) and not isinstance(
            value, self.base
        ):
            raise InputError(
                f"{entry.target!r}, registered by {entry.origin} as {self.kind} {name!r}, is no "
                f"{self.base.__name__}. Derive it from {self.base.__module__}."
                f"{self.base.__qualname__}."
            )
        return cast("T", value)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._entries

    def _missing(self, name: str, entry: Entry, error: ImportError) -> str:
        remedy = (
            f"Install it: pip install 'evalkit[{entry.extra}]'."
            if entry.extra
            else f"Install what {entry.origin} needs for it."
        )
        return f"The {self.kind} {name!r} cannot be loaded: {error}. {remedy}"

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        for point in importlib.metadata.entry_points(group=self.group):
            origin = point.dist.name if point.dist is not None else "an unnamed package"
            self.register(point.name, point.value, origin=origin)
        self._plugins_read = True  # only now: a collision is told every time, not once

"""Names of backends, heads and tasks, which are imported only when used.

A registry holds ``"module:attribute"`` strings, so that listing names imports nothing heavy.
Third parties add theirs by entry points of the registry's group, such as ``evalkit.backends``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from evalkit.core.errors import (
    DISTRIBUTION,
    EvalkitError,
    InputError,
    UnavailableError,
    install_command,
)

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
    summary : str
        One line for ``--help``; those of other packages have none.
    settings : str
        ``"module:attribute"`` of the settings, where they can be imported alone.
    """

    target: str
    extra: str | None = None
    origin: str = DISTRIBUTION
    summary: str = ""
    settings: str = ""

    @property
    def foreign(self) -> bool:
        """Whether another package registered it."""
        return self.origin != DISTRIBUTION


def foreign_fault(
    kind: str, name: str, entry: Entry, doing: str, error: BaseException
) -> UnavailableError:
    """Make the error for a fault of another package; the message names that package.

    Parameters
    ----------
    kind, name : str
        What failed: ``backend`` and its registered name.
    entry : Entry
    doing : str
        What failed, to follow "failed": ``on import``.
    error : BaseException
        What the package raised.
    """
    cause = "".join(traceback.format_exception_only(error)).strip()
    return UnavailableError(
        f"The {kind} {name!r} of {entry.origin} ({entry.target}) failed {doing}: "
        f"{cause}{_place(error)}. It is not a part of evalkit: correct what the message names, ask "
        "its makers, or uninstall it."
    )


@contextmanager
def blamed(
    kind: str, name: str, entry: Entry, doing: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn any exception into an error that names the other package; see `foreign_fault`.

    Parameters
    ----------
    kind, name, entry, doing
        As `foreign_fault` takes them.
    passing : tuple of types
        Exceptions that are left as they are, beside evalkit's own.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # SystemExit would set the exit code that CI reads
        if isinstance(error, (EvalkitError, *passing)):
            raise
        raise foreign_fault(kind, name, entry, doing, error) from error


def _place(error: BaseException) -> str:
    """Say where another package's error comes from: its last line outside evalkit."""
    passing = (f"{Path(__file__).parents[1]}{os.sep}", importlib.__file__, "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(passing)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


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
    guard : callable or None
        Takes an object of another package, its name and its entry. `get` returns what the guard
        makes of it, so that messages name the package that is at fault.

    Examples
    --------
    >>> numbers = Registry("number", object, {"pi": Entry("math:pi")})
    >>> numbers.get("pi")
    3.141592653589793
    >>> numbers.get("pie")
    Traceback (most recent call last):
    evalkit.core.errors.InputError: There is no number 'pie'. Did you mean 'pi'? Known: pi.
    """

    def __init__(
        self,
        kind: str,
        base: type,
        builtin: Mapping[str, Entry],
        *,
        guard: Callable[[T, str, Entry], T] | None = None,
    ) -> None:
        self.kind = kind
        self.base = base
        self._guard = guard
        self.group = f"evalkit.{kind}s"
        self._entries = dict(builtin)
        self._faults: dict[str, InputError] = {}
        self._plugins_read = False

    def register(self, name: str, target: str, *, extra: str | None = None, origin: str) -> None:
        """Add a name.

        Raises
        ------
        evalkit.core.errors.InputError
            The name is taken by something else, or the target is not ``module:attribute``.
        """
        if ":" not in target:
            raise InputError(
                f"The {self.kind} {name!r} of {origin} points to {target!r}; "
                "write it as 'module:attribute'."
            )
        entry = self._entries.get(name)
        if entry is not None and entry.target != target:
            raise InputError(
                f"Two packages register the {self.kind} {name!r}: {entry.origin} "
                f"({entry.target}) and {origin} ({target}). Uninstall one of them."
            )
        self._entries[name] = Entry(target, extra, origin)

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        self._read_plugins()
        return sorted(self._entries)

    def summaries(self) -> dict[str, str]:
        """Return a line for each name, those that `entry` refuses too."""
        self._read_plugins()
        lines = dict.fromkeys(self._faults, "")
        lines |= {name: entry.summary for name, entry in self._entries.items()}
        return dict(sorted(lines.items()))

    def entry(self, name: str) -> Entry:
        """Look up what is registered under a name.

        Raises
        ------
        evalkit.core.errors.InputError
            Nothing is, and the message suggests a name; or what a package registered there is
            wrong, or is registered by another one too. Other names stay usable.
        """
        self._read_plugins()
        if name in self._faults:
            raise InputError(str(self._faults[name]))
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
        evalkit.core.errors.InputError
            The name is unknown, or its object is not of the registry's kind.
        evalkit.core.errors.UnavailableError
            The library that it needs is not installed, or the other package that registered it
            fails on import.
        """
        entry = self.entry(name)
        value = self._load(name, entry)
        if not (isinstance(value, type) and issubclass(value, self.base)) and not isinstance(
            value, self.base
        ):
            raise InputError(
                f"{entry.target!r}, registered by {entry.origin} as {self.kind} {name!r}, is not "
                f"of the class {self.base.__name__}. Derive it from {self.base.__module__}."
                f"{self.base.__qualname__}."
            )
        registered = cast("T", value)
        return self._guard(registered, name, entry) if self._guard and entry.foreign else registered

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._entries

    def _load(self, name: str, entry: Entry) -> Any:
        module, _, attribute = entry.target.partition(":")
        try:
            imported = importlib.import_module(module)
        except ImportError as error:
            raise UnavailableError(self._missing(name, entry, error)) from error
        except (Exception, SystemExit) as error:  # leaving would set the exit code that CI reads
            if entry.foreign:
                raise foreign_fault(self.kind, name, entry, "on import", error) from error
            if isinstance(error, AttributeError):  # an old library, with another than it was for
                raise UnavailableError(self._missing(name, entry, error)) from error
            raise
        try:
            return getattr(imported, attribute)
        except AttributeError as error:
            raise InputError(
                f"The {self.kind} {name!r} of {entry.origin} points to {entry.target!r}, but "
                f"{module} has no {attribute!r}. Correct the entry point."
            ) from error

    def _missing(self, name: str, entry: Entry, error: Exception) -> str:
        remedy = (
            f"Install it: {install_command(entry.extra)}."
            if entry.extra
            else f"Install what {entry.origin} needs for it."
        )
        return f"The {self.kind} {name!r} cannot be loaded: {error}. {remedy}"

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        for point in importlib.metadata.entry_points(group=self.group):
            origin = point.dist.name if point.dist is not None else "an unnamed package"
            try:
                self.register(point.name, point.value, origin=origin)
            except InputError as error:  # of this name alone, every time that it is used
                self._faults[point.name] = error
        self._plugins_read = True

"""The metadata of a setting's field: help text, group, metavar, and what the setting changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Scope = Literal["figure", "run", "cell", "file"]
"""What a setting changes.

``figure``: the figures. ``run``: how the run goes. ``cell``: what the matrix of a plan decides.
``file``: a path that is read or written.
"""

PLAN_SCOPES: frozenset[Scope] = frozenset({"figure", "run"})
"""Settings of these scopes may stand in a plan."""


@dataclass(frozen=True, slots=True)
class Option:
    """The metadata of a setting, in the ``Annotated`` type of its field.

    The command line's options, the keys of a YAML file and the settings of a plan all come from the
    field: its name, its type, its default, and this.

    Attributes
    ----------
    help : str
        One short sentence, without the default.
    group : str
        Title of the group in ``--help``; "" for no group.
    scope : str
        See `Scope`.
    metavar : str or None
        What stands for the value in ``--help``.
    default : str
        What ``--help`` says of a default that is None: ``"all cores"``.
    option : str
        The option's name where the field has another one.
    positional : bool
        Whether the value has no option name.
    only_on : bool
        Whether a boolean has no ``--no-`` form.
    repeat : bool
        Whether the option is given once for each value.
    required : bool
        Whether the command line needs it although the field has a default.
    writes : str
        What the run writes there: a ``file``, a ``folder``, or a ``new`` path that must not exist.
    chooses : bool
        Whether it chooses which figures are computed, and moves none: two results may differ in it.

    Examples
    --------
    >>> Option("overlap of a match", "protocol", "figure", "X").name_of("nms_threshold")
    '--nms-threshold'
    """

    help: str
    group: str
    scope: Scope
    metavar: str | None = None
    default: str = ""
    option: str = ""
    positional: bool = False
    only_on: bool = False
    repeat: bool = False
    required: bool = False
    writes: Literal["", "file", "folder", "new"] = ""
    chooses: bool = False

    def name_of(self, field: str) -> str:
        """Return the option's name on the command line."""
        return self.option or f"--{field.replace('_', '-')}"


def option_of(field: FieldInfo) -> Option | None:
    """Return the metadata of a field, or None if it has none."""
    return next((part for part in field.metadata if isinstance(part, Option)), None)


def options_of(kind: type[BaseModel]) -> Mapping[str, Option]:
    """Return the options of a class of settings, in the order of its fields.

    A class with a list ``shared`` has options for its own fields and, of its bases' fields, for
    those in the list.
    """
    shared = getattr(kind, "shared", None)
    return {
        name: option
        for name, field in kind.model_fields.items()
        if shared is None or name in shared or name in kind.__annotations__
        if (option := option_of(field)) is not None
    }


def not_for_plans(kind: type[BaseModel]) -> frozenset[str]:
    """Return the settings that a plan may not set: its matrix decides them, or they are files."""
    return frozenset(
        name for name, option in options_of(kind).items() if option.scope not in PLAN_SCOPES
    )

"""Options that are made from settings' fields; defaults < YAML (``--config``) < command line."""

from __future__ import annotations

import argparse
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from evalkit.core.option import Option
    from evalkit.core.settings import RunSettings

    C = TypeVar("C", bound=BaseModel)

N = TypeVar("N", int, float)


class Options:
    """Adds options to a parser, each to the group that its field names.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        With `argparse.SUPPRESS` as ``argument_default``, what the user does not type stays out of
        the namespace; else the fields' defaults are there.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._groups: dict[str, argparse._ActionsContainer] = {"": parser}

    def group(self, title: str) -> argparse._ActionsContainer:
        """Return the group of a title; the first call makes it."""
        if title not in self._groups:
            self._groups[title] = self._parser.add_argument_group(title)
        return self._groups[title]

    def add(
        self, kind: type[BaseModel], names: Iterable[str] | None = None, *, group: str | None = None
    ) -> None:
        """Add the options of a class of settings.

        Parameters
        ----------
        kind : type
        names : iterable of str, optional
            Only these fields; all that have an option by default.
        group : str, optional
            Title of the group for all, instead of each field's own.
        """
        from evalkit.core.option import options_of

        options = options_of(kind)
        for name in options if names is None else names:
            title = options[name].group if group is None else group
            self._add(self.group(title), name, kind.model_fields[name], options[name])

    def _add(
        self, group: argparse._ActionsContainer, name: str, field: FieldInfo, option: Option
    ) -> None:
        words: dict[str, Any] = {
            "help": help_text(field, option),
            **reading(field.annotation, option),
        }
        if option.metavar is not None:
            words["metavar"] = option.metavar
        if option.positional:
            group.add_argument(name, **words)
            return
        if self._parser.argument_default is not argparse.SUPPRESS:
            words["default"] = None if field.is_required() else field.default
        required = option.required or field.is_required()
        group.add_argument(option.name_of(name), dest=name, required=required, **words)


def add_run_options(parser: argparse.ArgumentParser, kind: type[RunSettings]) -> Options:
    """Add the options of a run; what is not typed stays out of the namespace."""
    parser.argument_default = argparse.SUPPRESS
    options = Options(parser)
    options.add(kind)
    add_quiet(options.group("output"))
    parser.add_argument("--config", type=Path, metavar="YAML", help="read settings from this file")
    return options


def add_quiet(group: argparse._ActionsContainer) -> None:
    """Add ``--quiet``, which is not a setting of a run."""
    group.add_argument("--quiet", action="store_true", help="show no progress")


def help_text(field: FieldInfo, option: Option) -> str:
    """Return a setting's help text with its default."""
    shown = option.default or _shown(field, option)
    parts = [option.help, f"(default: {shown})" if shown else ""]
    return " ".join(part for part in parts if part).replace("%", "%%")


def _shown(field: FieldInfo, option: Option) -> str:
    default = field.default
    if option.only_on or option.required or field.is_required() or default is None:
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(_word(part) for part in default)
    return _word(default)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def reading(annotation: Any, option: Option) -> dict[str, Any]:
    """Return how argparse reads a value of a field's type.

    Raises
    ------
    TypeError
        No option can be made of the type.
    """
    kind = _bare(annotation)
    if kind is bool:
        return {"action": "store_true" if option.only_on else argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": list(get_args(kind))}
    if get_origin(kind) is tuple and option.repeat:
        return {"action": "append"}
    return {} if kind is str else {"type": _reader(kind)}


def _reader(kind: Any) -> Callable[[str], Any]:
    """Return what reads a number, a path, a list, or a number and one other form."""
    if kind in {int, float, Path}:
        return cast("Callable[[str], Any]", kind)
    origin, parts = get_origin(kind), [_bare(part) for part in get_args(kind)]
    if origin is tuple:
        return _list_reader(parts[0])
    other = [part for part in parts if part not in {int, float}]
    if origin is Union and len(parts) == 2 and len(other) == 1:
        if get_origin(other[0]) is Literal and int in parts:
            return _number_or(get_args(other[0])[0])
        if get_origin(other[0]) is tuple and float in parts:
            return scale
    raise TypeError(f"no option can be made of the type {kind!r}")


def _bare(annotation: Any) -> Any:
    """Return a type without metadata, and without None where one more type is left."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare(parts[0])
    if origin in {Union, types.UnionType}:
        rest = [part for part in parts if part is not types.NoneType]
        return _bare(rest[0]) if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - of values
    return annotation


def _list_reader(item: Any) -> Callable[[str], Any]:
    """Return what reads a list separated by commas."""
    if item is float:
        return numbers
    if item is int:
        return whole_numbers
    return names if item is str else words


def _number_or(word: str) -> Callable[[str], int | str]:
    def read(text: str) -> int | str:
        if text == word:
            return text
        if not text.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {word!r}")
        return int(text)

    return read


def resolve(arguments: argparse.Namespace, kind: type[C], names: Iterable[str] = ()) -> C:
    """Merge the YAML file and the options that the user typed into settings.

    Parameters
    ----------
    arguments : argparse.Namespace
    kind : type
    names : iterable of str
        Only these fields; by default all of the class.

    Raises
    ------
    evalkit.core.errors.InputError
        A setting is unknown or out of range.
    """
    from evalkit.core.validation import COMMAND_LINE, read_yaml, validate

    typed = vars(arguments)
    known = set(names) or kind.model_fields.keys()
    values: dict[str, Any] = {}
    source = COMMAND_LINE
    if "config" in typed:
        values = read_yaml(typed["config"])
        source = f"{typed['config']} and {COMMAND_LINE}"
    values.update({name: value for name, value in typed.items() if name in known})
    if values.get("runtime_info") is not None and "precision" in kind.model_fields:
        values.setdefault("precision", _ran_elsewhere(Path(values["runtime_info"])))
    return validate(kind, values, source)


def _ran_elsewhere(runtime_info: Path) -> str:
    """Return the precision that a device's own file states, where the user names none."""
    from evalkit.backends.outputs.runtime_info import read_runtime_info

    return read_runtime_info(runtime_info).precision or "fp32"


def command_line(arguments: argparse.Namespace) -> str:
    """Return the command as it was typed, for the result."""
    import shlex
    import sys

    return (
        shlex.join(["evalkit", *sys.argv[1:]]) if sys.argv[1:] else f"evalkit {arguments.command}"
    )


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas, for argparse."""
    return _numbers(text, float, "a number")


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas, for argparse."""
    return _numbers(text, int, "a whole number")


def _numbers(text: str, kind: Callable[[str], N], what: str) -> tuple[N, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        example = "1e-5,1e-4" if kind is float else "1,8"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not {what}, or several separated by commas ({example})"
        ) from None


def count(text: str) -> int:
    """Read a whole number of at least 1, for argparse."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, for argparse."""
    return tuple(part for part in text.split(",") if part)


def words(text: str) -> tuple[str, ...]:
    """Read words of a known set, separated by commas: an empty one is no word of it."""
    return tuple(text.split(","))


def scale(text: str) -> float | tuple[float, ...]:
    """Read one number, or one for each channel, for argparse."""
    parts = numbers(text)
    if len(parts) not in {1, 3}:
        raise argparse.ArgumentTypeError("give one number, or three separated by commas")
    return parts[0] if len(parts) == 1 else parts

"""Settings of YAML files and options, read safely and validated: one clear error for all flaws."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from evalkit.core.errors import InputError
from evalkit.core.option import options_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

COMMAND_LINE = "command line"
"""Ends the name of a source whose settings are options."""

_PLAINLY = {
    "greater_than_equal": "must be at least {ge}, not {value!r}",
    "greater_than": "must be more than {gt}, not {value!r}",
    "less_than_equal": "must be at most {le}, not {value!r}",
    "literal_error": "must be {expected}, not {value!r}",
    "int_parsing": "must be a whole number, not {value!r}",
    "int_from_float": "must be a whole number, not {value!r}",
    "int_type": "must be a whole number, not {value!r}",
    "float_parsing": "must be a number, not {value!r}",
    "float_type": "must be a number, not {value!r}",
    "bool_parsing": "must be true or false, not {value!r}",
    "tuple_type": "must be a list, not {value!r}",
    "too_short": "must have at least {min_length}, not {actual_length}",
    "path_type": "must be a path, not {value!r}",
    "model_type": "must be a mapping of settings, not {value!r}",
    "dict_type": "must be a mapping, not {value!r}",
    "missing": "is missing",
}
"""What to say of pydantic's types of errors."""

C = TypeVar("C", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings, safely.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is missing, is not YAML, or does not hold a mapping.
    """
    import yaml  # noqa: PLC0415 - no option's help needs it

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} must hold a mapping of settings, such as 'backend: onnxruntime'.")
    return value


def find_yaml(name_or_file: str, folder: str, what: str) -> Path:
    """Return a YAML file by its path, or a ready one of a folder of ``configs`` by its name.

    Parameters
    ----------
    name_or_file : str
    folder : str
        Below ``configs``.
    what : str
        What the file holds, for the error.

    Raises
    ------
    evalkit.core.errors.InputError
        There is none.
    """
    import evalkit.configs  # noqa: PLC0415 - a folder of data files that few commands need

    path = Path(name_or_file)
    if path.exists():
        return path
    ready = Path(evalkit.configs.__path__[0]) / folder
    chosen = ready / f"{name_or_file}.yaml"
    if path.name != name_or_file or not chosen.is_file():
        known = ", ".join(sorted(file.stem for file in ready.glob("*.yaml")))
        raise InputError(
            f"There is no {what} {name_or_file!r}. Give a YAML file or one of: {known}."
        )
    return chosen


def validate(kind: type[C], values: dict[str, Any], source: str) -> C:
    """Build a configuration, turning pydantic's report into one clear error.

    Raises
    ------
    evalkit.core.errors.InputError
        A setting is unknown, missing or out of range.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        options = source.endswith(COMMAND_LINE)
        flaws = error.errors()
        # pydantic also calls a list too short if its items are wrong.
        wrong = {item["loc"][:depth] for item in flaws for depth in range(len(item["loc"]))}
        lines = [
            _complaint(kind, item, options=options)
            for item in flaws
            if item["type"] != "too_short" or item["loc"] not in wrong
        ]
        raise InputError(f"{source}: " + "; ".join(lines) + ".") from error


def _complaint(kind: type[BaseModel], item: ErrorDetails, *, options: bool) -> str:
    """Say one error of pydantic in plain words; a setting has the name of its option."""
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown setting; known: {', '.join(_known(kind, item['loc']))}"
    if where and options:
        field = str(item["loc"][0])
        option = options_of(kind).get(field)
        where = option.name_of(field) if option else f"--{field.replace('_', '-')}"
    if item["type"] in _PLAINLY:
        words = _PLAINLY[item["type"]].format(**item.get("ctx", {}), value=item["input"])
        return f"{where} {words}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _known(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the known settings at the place of an unknown one."""
    for part in place[:-1]:
        if part in kind.model_fields:
            kind = next(_models_in(kind.model_fields[str(part)].annotation), kind)
    return [name for name, field in kind.model_fields.items() if not field.exclude]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def check_written(settings: BaseModel) -> None:
    """Check that a run can write its files, before the long work; make the folders.

    `evalkit.core.option.Option.writes` says what each setting writes.

    Raises
    ------
    evalkit.core.errors.InputError
        A path is a file instead of a folder, or the reverse; or nothing can be written there.
    """
    for name, option in options_of(type(settings)).items():
        path = getattr(settings, name)
        if option.writes and path is not None:
            check_path(path, option.name_of(name), option.writes)


def check_path(path: Path, option: str, writes: Literal["file", "folder", "new"] = "file") -> None:
    """Check that a file or a folder can be written, and make the folder.

    Raises
    ------
    evalkit.core.errors.InputError
        As of `check_written`.
    """
    if writes == "new" and path.exists():
        raise InputError(f"{option} {path} is there already. Name a new one.")
    if writes == "folder" and path.exists() and not path.is_dir():
        raise InputError(f"{option} {path} is a file. Name a folder.")
    if writes != "folder" and path.is_dir():
        raise InputError(f"{option} {path} is a folder. Name a file in it, such as result.json.")
    folder = path if writes == "folder" else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option} {path}: files cannot be made in {folder}: {error.strerror}. "
            "Choose another folder."
        ) from error

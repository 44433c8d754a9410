"""Writing a converted model, completely or not at all, and its entry in a model YAML."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from evalkit.core.errors import USER_ERRNOS, InputError
from evalkit.core.files import atomic_write
from evalkit.core.settings import ModelConfig
from evalkit.core.sidecar import dumped, sidecar_path
from evalkit.core.validation import read_yaml, validate


def check_name(out: Path, suffix: str) -> None:
    """Check that a name has the suffix of a backend's models; an empty suffix allows any.

    Raises
    ------
    evalkit.core.errors.InputError
        The name has another suffix.
    """
    if suffix and not out.name.endswith(suffix):
        raise InputError(f"--out {out}: this backend's models end in {suffix}. Choose such a name.")


def check_out(out: Path, suffix: str, source: Path, *, overwrite: bool) -> None:
    """Check that the model can be written, and replaces no other file.

    Raises
    ------
    evalkit.core.errors.InputError
        The name has another suffix, is the source's, or exists.
    """
    check_name(out, suffix)
    if out.exists() and out.samefile(source):
        raise InputError(f"--out {out} is the source itself. Choose another file.")
    for path in (out, sidecar_path(out)):
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists. Choose another --out, or give --overwrite.")
    if out.is_dir() and suffix:
        raise InputError(f"--out {out} is a folder. Choose a file in it, such as model{suffix}.")


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """Make a temporary folder beside the future model, on the same disk.

    Raises
    ------
    evalkit.core.errors.InputError
        It cannot be made or written; existing files stay as they were.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        raise InputError(
            f"Cannot write {out}: {error.strerror}. Free some space or choose another folder."
        ) from error


def put(model: Path, out: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Write a model's record beside it, and move all files to their place, the model last.

    Raises
    ------
    evalkit.core.errors.InputError
        A companion (weights beside a graph) would replace an existing file.
    """
    sidecar_path(model).write_bytes(dumped(record))
    companions = sorted(path for path in model.parent.iterdir() if path != model)
    for path in companions:
        target = out.parent / path.name
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists. Choose another --out, or give --overwrite.")
    for path in (*companions, model):
        target = out.parent / path.name
        if target.is_dir():
            # A folder cannot be replaced in one step: move the old one into the work folder.
            aside = Path(tempfile.mkdtemp(dir=model.parent))
            target.rename(aside / target.name)
        path.replace(target)


def write_model_yaml(path: Path, model: ModelConfig, files: dict[str, Path]) -> None:
    """Write a model YAML, or add files to an existing one.

    Parameters
    ----------
    path : Path
        An existing file keeps its other settings, its comments and its form.
    model : ModelConfig
        The content of a new file.
    files : dict of str to Path
        By ``BACKEND:PRECISION``.
    """
    text = ""
    if path.exists():
        values = read_yaml(path)
        text = path.read_text(encoding="utf-8")
        validate(ModelConfig, {**values, "folder": path.parent}, str(path))
    else:
        values = model.model_dump(mode="json", exclude_defaults=True, exclude={"files", "input"})
        values["input"] = model.input.model_dump(mode="json")
        values["files"] = {key: _relative(path, model, value) for key, value in model.files.items()}
    added = {key: os.path.relpath(file, path.parent.resolve()) for key, file in files.items()}
    values["files"] = {**values["files"], **added}
    for key, value in added.items():
        text = _with_file(text, key, value)
    if not text or yaml.safe_load(text) != values:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def _with_file(text: str, key: str, value: str) -> str:
    """Write an entry of ``files`` into a YAML text, in the form of the other entries.

    Returns "" if there are none; the caller checks the meaning of the text.
    """
    root = yaml.compose(text, yaml.SafeLoader) if text else None
    entries = {k.value: v for k, v in root.value} if root is not None else {}
    files = entries.get("files")
    if not isinstance(files, yaml.MappingNode) or not files.value:
        return ""
    nodes = {name.value: node for name, node in files.value}
    if key in nodes:
        first, end = nodes[key].start_mark.index, nodes[key].end_mark.index
        return text[:first] + _scalar(value) + text[end:]
    name, last = files.value[-1]
    end = last.end_mark.index
    if files.flow_style:
        return f"{text[:end]}, {_scalar(key)}: {_scalar(value)}{text[end:]}"
    line = f"{' ' * name.start_mark.column}{_scalar(key)}: {_scalar(value)}\n"
    rest = text.find("\n", end)
    if rest < 0:
        return f"{text}\n{line}"
    return text[: rest + 1] + line + text[rest + 1 :]


def _scalar(text: str) -> str:
    """Quote a text that YAML would read as another type."""
    plain = re.fullmatch(r"[A-Za-z][\w.-]*|[\w./-]*[A-Za-z][\w.-]*", text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def _relative(path: Path, model: ModelConfig, value: str) -> str:
    """Return the path of a file of the old YAML, relative to the new one."""
    if value.startswith("sample:"):
        return value
    return os.path.relpath(
        (model.folder / Path(value).expanduser()).resolve(), path.parent.resolve()
    )

"""Rules of the house: which folder may import which, what the README says, no stray paths."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.cli import build_parser, commands
from evalkit.tasks import TASKS

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "datasets": "evalkit.datasets",
    "protocols": "evalkit.protocols",
    "widerface_eval": "evalkit.widerface_eval",
}
MAY_IMPORT = {
    "datasets": {"datasets"},
    "protocols": {"protocols"},
    "widerface_eval": {"widerface_eval"},
}
RUNTIMES = {"onnxruntime", "torch", "openvino", "tvm", "mxnet", "tensorrt", "pycuda"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_data_goes_one_way(folder: str) -> None:
    allowed = tuple(FOLDERS[name] for name in MAY_IMPORT[folder])
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("evalkit") or name.startswith(allowed), f"{path}: {name}"
            assert name.partition(".")[0] not in RUNTIMES, f"{path}: {name}"


def test_a_runtime_is_imported_only_in_the_module_named_for_it() -> None:
    for path in (ROOT / "evalkit").rglob("*.py"):
        for name in imports(path):
            top = name.partition(".")[0]
            if top in RUNTIMES:
                named = path.stem == top or path.stem.startswith(f"{top}_") or top in path.parts
                named = named or (top == "pycuda" and "tensorrt" in path.parts)
                assert named or "architectures" in path.parts, f"{path}: {name}"


HOMONYMS = {
    ("core/schema1.py", "pairs"),  # a count
    ("report/inspect.py", "pairs"),  # a column
    ("stats/comparisons.py", "pairs"),  # a count and an array
    ("verdict/signoff/record.py", "pairs"),  # a unit
}
"""Words that are the name of a task and mean something else."""


def test_only_tasks_know_their_names() -> None:
    """What a benchmark needs is asked of its task, and never decided by its name."""
    wrong = []
    for path in (ROOT / "evalkit").rglob("*.py"):
        module = path.relative_to(ROOT / "evalkit").as_posix()
        if module.startswith("tasks/"):
            continue
        wrong += [
            f"{module}:{node.lineno}: {node.value!r}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
            and node.value in TASKS.names()
            and (module, node.value) not in HOMONYMS
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:evalkit|datasets|protocols|tests|benchmarks)/[\w./]+)`", text):
        assert "NAME" in name or (ROOT / name).exists(), f"{document}: {name}"


def command_lines(text: str) -> Iterator[list[str]]:
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["evalkit"]:
                    yield words[1:]
                elif words[1:3] == ["-m", "evalkit"]:
                    yield words[3:]


def test_the_readmes_commands_are_understood() -> None:
    found = list(command_lines((ROOT / "README.md").read_text(encoding="utf-8")))
    assert found
    for words in found:
        assert words[0] in commands()
        assert isinstance(build_parser(words[0]).parse_args(words), argparse.Namespace)


def test_the_readmes_options_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(--[a-z-]+[a-z])", text)) - {"--no"}
    known = {option for name in commands() for option in options(name)}
    assert named - known == set()


def options(command: str) -> set[str]:
    parser = build_parser(command)
    (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {option for action in choices[command]._actions for option in action.option_strings}


def test_no_machine_paths_in_what_is_tracked() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".pyx", ".md", ".yaml", ".toml", ".html"} and path.exists():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(work|root|tmp|home)/", text), name

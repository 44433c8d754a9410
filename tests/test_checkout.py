"""A checkout: which folders are importable, what builds it, its distribution's name, its tests."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import evalkit
from evalkit.core.errors import DISTRIBUTION

ROOT = Path(__file__).parents[1]
SIBLINGS = ("configs", "datasets", "protocols", "widerface_eval")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as ``git clone`` makes it: the folder has the package's name, nothing is built."""
    folder = tmp_path_factory.mktemp("clone") / "evalkit"
    built = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("evalkit", *SIBLINGS):
        shutil.copytree(ROOT / name, folder / name, ignore=built)
    for name in ("tests", "benchmarks", "tools", "setup.py"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def python(checkout: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a new interpreter in the checkout."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["evalkit", "tests", "benchmarks", "tools", "docs", "setup"])
def test_no_other_folder_is_importable(checkout: Path, name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"No module named 'evalkit\.{name}'"):
        importlib.import_module(f"evalkit.{name}")
    done = python(checkout, "-c", f"import evalkit.{name}")
    assert done.returncode == 1
    assert f"No module named 'evalkit.{name}'" in done.stderr


def test_the_siblings_are_those_of_the_checkout(checkout: Path) -> None:
    names = [f"evalkit.{name}" for name in SIBLINGS]
    done = python(
        checkout,
        "-c",
        f"import {', '.join(names)}; print({'.__path__[0], '.join(names)}.__path__[0])",
    )
    assert done.stdout.split() == [str(checkout / name) for name in SIBLINGS], done.stderr


@pytest.mark.parametrize("command", ["ijbc", "widerface", "backends"])
def test_a_checkout_that_is_not_built_says_which_command_builds_it(
    checkout: Path, command: str
) -> None:
    done = python(checkout, "-m", "evalkit", command)
    assert done.returncode == 2
    assert done.stderr == (
        f"evalkit {command}: The compiled kernel evalkit.heads._nms is not built. In {checkout} "
        "run: pip install -e . (or: python setup.py build_ext --inplace).\n"
    )


def test_the_kernels_that_a_checkout_must_build_are_those_of_setup_py() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    named = {f"evalkit.{name}" for name in re.findall(r'kernel\("([\w.]+)"', setup)}
    assert named == evalkit._KERNELS


def test_the_distribution_has_a_name_of_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == DISTRIBUTION == "face-evalkit"


def test_no_text_installs_the_package_of_another_author() -> None:
    """On PyPI ``evalkit`` is not ours: commands name a checkout."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    bare = re.compile(r"install\b[^\n]*[\s'\"`]evalkit(\[|==|>=|['\"`]?$)", re.MULTILINE)
    assert bare.search("pip install 'evalkit[torch]'")
    assert not bare.search('pip install "/opt/evalkit[torch]"')
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yml", ".yaml", ".toml", ""} and path.is_file():
            commands = bare.search(path.read_text(encoding="utf-8").replace("uninstall", ""))
            assert commands is None or path == Path(__file__), f"{name}: {commands[0]}"


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them all by their bare names."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    del names["conftest.py"]
    assert [name for name, count in names.items() if count > 1] == []

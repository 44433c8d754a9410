"""Virtual environments for runtimes whose packages conflict with evalkit's own."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evalkit.core.errors import InputError, UnavailableError
from evalkit.core.files import atomic_write, cache_dir


@dataclass(frozen=True, slots=True)
class Pins:
    """The content of an environment.

    Attributes
    ----------
    packages : tuple of str
        Requirements for pip.
    libraries : dict of str to str
        Shared libraries of the system that the runtime loads, and the Debian packages that have
        them.
    pythons : tuple of (int, int)
        Versions of Python that have wheels of all packages, and can run a worker.
    """

    packages: tuple[str, ...]
    libraries: dict[str, str]
    pythons: tuple[tuple[int, int], ...]


ENVIRONMENTS = {
    "mxnet": Pins(
        packages=("mxnet==1.9.1", "numpy==1.23.5", "scipy==1.11.4", "onnx==1.14.1"),
        libraries={"libquadmath.so.0": "libquadmath0", "libgomp.so.1": "libgomp1"},
        pythons=((3, 11), (3, 10)),
    ),
}
"""By the name of the backend."""

_RECORD = "evalkit-environment.json"


def folder_of(name: str) -> Path:
    """Return the default folder of an environment."""
    return cache_dir() / "envs" / name


def interpreter_in(folder: Path) -> Path:
    """Return the path of an environment's interpreter."""
    return folder / "bin" / "python"


def state(name: str, folder: Path) -> str:
    """Return whether an environment is ``ready``, ``incomplete`` or ``absent``."""
    if not folder.exists():
        return "absent"
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "incomplete"
    packages = list(ENVIRONMENTS[name].packages)
    complete = record == {"packages": packages} and interpreter_in(folder).exists()
    return "ready" if complete else "incomplete"


def ready_interpreter(name: str) -> Path | None:
    """Return the interpreter of a complete environment in its default folder, or None."""
    folder = folder_of(name)
    if name in ENVIRONMENTS and state(name, folder) == "ready":
        return interpreter_in(folder)
    return None


def create(
    name: str, folder: Path, python: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Build an environment, or resume an interrupted one; return its interpreter.

    Parameters
    ----------
    name : str
        One of `ENVIRONMENTS`.
    folder : Path
    python : str or None
        Interpreter to build it from; None looks for a suitable one.
    say : callable
        Receives a message for each step.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder holds something else, or cannot be written.
    evalkit.core.errors.UnavailableError
        The system lacks a library, there is no suitable Python, or pip fails.
    """
    pins = ENVIRONMENTS[name]
    check_libraries(name)
    if state(name, folder) == "ready":
        say(f"{folder} is ready already")
        return interpreter_in(folder)
    is_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not (folder / "pyvenv.cfg").is_file() and not is_empty:
        raise InputError(f"{folder} holds something else. Name a new folder with --path.")
    base = find_base(pins, python)
    if not interpreter_in(folder).exists():
        say(f"making {folder} with {base}")
        _run([base, "-m", "venv", "--clear", str(folder)], f"make {folder}")
    say(f"installing {' '.join(pins.packages)}")
    pip = [str(interpreter_in(folder)), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    _run([*pip, "--disable-pip-version-check", *pins.packages], f"install into {folder}")
    with atomic_write(folder / _RECORD) as file:
        file.write(json.dumps({"packages": list(pins.packages)}).encode())
    return interpreter_in(folder)


def check_libraries(name: str) -> None:
    """Check that the system has the shared libraries.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        One is missing; the message has the command that installs it.
    """
    libraries = ENVIRONMENTS[name].libraries
    missing = [library for library in libraries if not _loads(library)]
    if missing:
        debian = " ".join(libraries[library] for library in missing)
        raise UnavailableError(
            f"{name} needs the system's {' and '.join(missing)}. On Debian or Ubuntu run: "
            f"apt-get install -y {debian}"
        )


def find_base(pins: Pins, python: str | None = None) -> str:
    """Find an interpreter of a version that has wheels of all packages.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        There is none, or `python` is of another version.
    """
    programs = [f"python{major}.{minor}" for major, minor in pins.pythons]
    for candidate in [python] if python else [sys.executable, *programs]:
        if _version(candidate) in pins.pythons:
            return candidate
    versions = " or ".join(f"{major}.{minor}" for major, minor in sorted(pins.pythons))
    raise UnavailableError(
        f"{python or 'This interpreter'} is not Python {versions}; wheels exist for these only. "
        f"Install one and name it: --base {programs[0]}"
    )


def _version(python: str) -> tuple[int, int] | None:
    script = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [python, "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        major, minor = done.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return int(major), int(minor)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _run(command: list[str], action: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        output = "\n  ".join(lines[-5:])
        raise UnavailableError(
            f"Could not {action}. Correct the error below and run the same command again; it "
            f"resumes.\n  {output}"
        )

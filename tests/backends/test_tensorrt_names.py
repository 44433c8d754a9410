"""Every name of TensorRT and pycuda that is used exists in their real packages.

Neither can be imported without NVIDIA's libraries. The names that TensorRT's Python module has
are compiled into its bindings as strings, each ended by a zero; those of pycuda stand in its
sources.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "evalkit"
TENSORRT_FILES = ("backends/tensorrt/backend.py", "backends/tensorrt/build.py")
# The variables that hold TensorRT's module and its objects in those files.
TENSORRT_ROOTS = frozenset(
    {"trt", "builder", "network", "parser", "config", "profile", "cache", "tensor", "runtime"}
    | {"engine", "inspector", "self._engine", "self._execution", "self._runtime"}
)
PYCUDA_FILES = ("backends/tensorrt/memory.py",)
PYCUDA_ROOTS = frozenset(
    {"cuda", "device", "self._cuda", "self._primary", "self.stream", "self._memory"}
)


def used_names(files: tuple[str, ...], roots: frozenset[str]) -> dict[str, str]:
    """Attributes and keywords of what hangs on the roots, with the line that uses them."""
    names: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
            place = f"{file}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and root(node.value) in roots:
                names.setdefault(node.attr, place)
            if isinstance(node, ast.Call) and root(node.func) in roots:
                names.update({word.arg: place for word in node.keywords if word.arg})
    return {name: place for name, place in names.items() if name != "__init__"}


def root(node: ast.expr) -> str:
    """``trt`` of ``trt.A.B(...).c``; ``self._engine`` of ``self._engine.x``."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return f"self.{node.attr}"
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            return ""
    return node.id


def bindings_folders() -> Iterator[Path]:
    """The installed bindings, and wheels unpacked where the environment says."""
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent
    for named in filter(None, os.environ.get("EVALKIT_TENSORRT_BINDINGS", "").split(os.pathsep)):
        yield Path(named)


@pytest.fixture(scope="module")
def compiled() -> dict[Path, bytes]:
    folders = {folder: folder / "tensorrt.so" for folder in bindings_folders()}
    if not folders:
        pytest.skip("no bindings: pip install --no-deps tensorrt-cu13-bindings==11.4.0.106")
    texts = (b"".join(f.read_bytes() for f in folder.glob("*.py")) for folder in folders)
    return {
        folder: so.read_bytes() + text
        for (folder, so), text in zip(folders.items(), texts, strict=True)
    }


def has(name: str, content: bytes) -> bool:
    """Whether a string ends in the name; linkers let one string be the end of another."""
    return name.encode() + b"\0" in content or re.search(rb"\bdef %s\(" % name.encode(), content)


def version(folder: Path) -> str:
    held = next(folder.parent.glob("tensorrt_*bindings-*.dist-info"), None)
    return held.stem.split("-")[1] if held is not None else "unknown"


def test_names_are_collected_from_the_sources() -> None:
    names = used_names(TENSORRT_FILES, TENSORRT_ROOTS)
    wanted = {"execute_async_v3", "set_tensor_address", "DETAILED", "STRONGLY_TYPED", "desc"}
    wanted |= {"get_engine_information", "set_timing_cache", "ignore_mismatch", "ERROR"}
    assert wanted <= set(names)
    assert len(names) > 45
    wanted = {"memcpy_htod_async", "pagelocked_empty", "mem_alloc", "retain_primary_context"}
    assert wanted <= set(used_names(PYCUDA_FILES, PYCUDA_ROOTS))


def test_names_of_tensorrt_are_in_its_bindings(compiled: dict[Path, bytes]) -> None:
    for folder, content in compiled.items():
        for absent in ("execute_async_v9", "IEntropyCalibratorOfNoVersion", "set_tensor_adress"):
            assert not has(absent, content), "the check would find anything"
        if int(version(folder).partition(".")[0]) >= 11:
            assert not has("IInt8EntropyCalibrator2", content), "calibrators went with 11"
        names = used_names(TENSORRT_FILES, TENSORRT_ROOTS)
        missing = {
            name: place
            for name, place in names.items()
            if name != "__version__" and not has(name, content)
        }
        assert not missing, f"{folder} {version(folder)}"
        assert b"__version__" in content


def test_deprecated_names_are_not_used() -> None:
    names = set(used_names(TENSORRT_FILES, TENSORRT_ROOTS))
    old = {"EXPLICIT_BATCH", "FP16", "INT8", "int8_calibrator", "build_engine", "execute_async_v2"}
    old |= {"get_binding_name", "num_bindings", "max_workspace_size", "set_binding_shape"}
    assert not names & old


def test_names_of_pycuda_are_in_its_sources() -> None:
    named = os.environ.get("EVALKIT_PYCUDA_SOURCE")
    if not named:
        pytest.skip("set EVALKIT_PYCUDA_SOURCE to an unpacked source distribution of pycuda")
    files = [*Path(named).glob("src/wrapper/*.cpp"), Path(named) / "pycuda" / "driver.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for name, place in used_names(PYCUDA_FILES, PYCUDA_ROOTS).items():
        assert re.search(rf'"{name}"|DEF_SIMPLE_METHOD\({name}\)|\bdef {name}\(', text), place
    assert not re.search('"memcpy_htod_asink"', text)

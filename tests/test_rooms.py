"""Data goes one way: a room of the house imports only rooms below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "evalkit"

FLOORS = (
    ("core",),
    ("stats", "heads", "backends"),
    ("run",),
    ("bench",),
    ("tasks",),
    ("verdict",),
    ("convert",),
    ("exchange",),
    ("report",),
    ("api",),
    ("cli",),
)
"""From the bottom to the top. Rooms of one floor do not import each other."""

TOP_LEVEL = {"errors": "core", "results": "core", "testing": "api", "__main__": "cli"}
"""The rooms of modules that lie beside the folders."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

OUTSIDE = {"datasets", "protocols", "widerface_eval", "configs"}
"""Folders of their own beside the package: they know no room, which `test_house` checks."""


def room_of(name: str) -> str | None:
    """Return the room of ``evalkit.room.module``; None for the package itself."""
    parts = name.split(".")
    if len(parts) == 1:
        return None
    return TOP_LEVEL.get(parts[1], parts[1])


def modules() -> dict[str, Path]:
    """Return the package's modules by name."""
    named = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    """Yield line and name of every import of the package, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import from evalkit on"
            assert node.module
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "evalkit")


MODULES = modules()


@pytest.mark.parametrize("room", [room for rooms in FLOORS for room in rooms])
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    wrong = []
    for name, path in MODULES.items():
        if room_of(name) != room:
            continue
        for line, imported in imports(path, MODULES):
            other = room_of(imported)
            if other in OUTSIDE or other in {None, room}:
                continue
            if FLOOR[other] >= FLOOR[room]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {imported}")
    assert not wrong, f"{room} imports rooms that are not below it:\n" + "\n".join(wrong)


def test_every_module_has_a_room() -> None:
    rooms = {room_of(name) for name in MODULES} - {None}
    assert rooms <= FLOOR.keys(), "give a new room its floor in FLOORS"


def test_the_package_itself_imports_rooms_only_when_asked() -> None:
    """`import evalkit` must stay light, so what it offers is imported inside functions."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "evalkit", node.module
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "evalkit" for alias in node.names)


def test_no_folders_import_each_other_in_a_circle() -> None:
    """Folders inside a room too; but what a folder takes from folders in it closes no circle."""
    edges: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        folder = folder_of(name)
        for _, imported in imports(path, MODULES):
            other = folder_of(imported)
            inside = f"{other}/".startswith(f"{folder}/")
            if "" not in {folder, other} and not inside:
                edges.setdefault(folder, set()).add(other)
    way = circle(edges)
    assert way is None, " -> ".join(way or [])


def folder_of(name: str) -> str:
    """Return the folder of a module, below the package; empty for what has no room."""
    room = room_of(name)
    if room is None or room in OUTSIDE:
        return ""
    parts = name.split(".")
    is_folder = name not in MODULES or MODULES[name].name == "__init__.py"
    return "/".join([room, *parts[2:]] if is_folder else [room, *parts[2:-1]])


def circle(edges: Mapping[str, set[str]]) -> list[str] | None:
    """Return a circle of a graph, None if it has none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str] | None:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return None
        for other in sorted(edges.get(node, ())):
            closed = walk(other, [*way, node])
            if closed:
                return closed
        done.add(node)
        return None

    for start in sorted(edges):
        closed = walk(start, [])
        if closed:
            return closed
    return None

"""The registry: lazy, strict about what it holds, helpful about what it lacks."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evalkit.backends import BACKENDS
from evalkit.backends.architectures import ARCHITECTURES
from evalkit.backends.base import Backend
from evalkit.core.errors import InputError, UnavailableError
from evalkit.core.registry import Entry, Registry, foreign_fault
from evalkit.heads.nms import extra_pixel


class Animal:
    """What the registries of these tests hold."""


class Cat(Animal):
    """One of them."""


class Stone:
    """None of them."""


tom = Cat()


def entry(name: str, extra: str | None = None) -> Entry:
    return Entry(f"{__name__}:{name}", extra)


@pytest.fixture
def animals() -> Registry[Any]:
    return Registry(
        "animal",
        Animal,
        {
            "cat": entry("Cat"),
            "tom": entry("tom"),
            "stone": entry("Stone"),
            "number": Entry("math:pi"),
            "ghost": Entry("no_such_library_here:Ghost", "ghosts"),
            "lost": entry("Nobody"),
        },
    )


@dataclass
class Dist:
    name: str


@dataclass
class Point:
    """As much of an entry point as the registry reads."""

    name: str
    value: str
    dist: Dist | None = None


class Plugins:
    """Stands for `importlib.metadata.entry_points`; counts its calls."""

    def __init__(self, *points: Point) -> None:
        self.points = points
        self.groups: list[str] = []

    def __call__(self, *, group: str) -> tuple[Point, ...]:
        self.groups.append(group)
        return self.points


def plug(monkeypatch: pytest.MonkeyPatch, *points: Point) -> Plugins:
    plugins = Plugins(*points)
    monkeypatch.setattr(importlib.metadata, "entry_points", plugins)
    return plugins


def test_names_are_sorted(animals: Registry[Any]) -> None:
    assert animals.names() == ["cat", "ghost", "lost", "number", "stone", "tom"]


def test_iteration_and_membership(animals: Registry[Any]) -> None:
    assert list(animals) == animals.names()
    assert "cat" in animals
    assert "dog" not in animals
    assert 3 not in animals


def test_listing_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explosive_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[Any] = Registry("animal", Animal, {"bomb": Entry("explosive_module:X")})
    assert registry.names() == ["bomb"]
    assert "bomb" in registry
    assert registry.entry("bomb").target == "explosive_module:X"
    assert "explosive_module" not in sys.modules


def test_backends_are_listed_without_a_runtime() -> None:
    code = (
        "import sys; from evalkit.backends import BACKENDS; "
        "from evalkit.backends.architectures import ARCHITECTURES; "
        "assert BACKENDS.names() and ARCHITECTURES.names(); "
        "print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_class_is_returned(animals: Registry[Any]) -> None:
    assert animals.get("cat") is Cat


def test_instance_is_returned(animals: Registry[Any]) -> None:
    assert animals.get("tom") is tom


def test_same_object_every_time(animals: Registry[Any]) -> None:
    assert animals.get("cat") is animals.get("cat")


@pytest.mark.parametrize("method", ["get", "entry"])
def test_unknown_name_suggests_the_nearest(animals: Registry[Any], method: str) -> None:
    with pytest.raises(InputError, match=r"no animal 'catt'\. Did you mean 'cat'\? Known: cat, "):
        getattr(animals, method)("catt")


def test_unknown_name_without_a_near_one(animals: Registry[Any]) -> None:
    with pytest.raises(InputError, match="no animal 'xylophone'") as caught:
        animals.get("xylophone")
    assert "Did you mean" not in str(caught.value)
    assert "ghost, lost" in str(caught.value)


def test_missing_library_names_the_extra(animals: Registry[Any]) -> None:
    with pytest.raises(UnavailableError, match=r"no_such_library_here.*-e '.\[ghosts\]"):
        animals.get("ghost")


def test_missing_library_of_a_plugin_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, Point("ghost", "no_such_library_here:X", Dist("spooks")))
    registry: Registry[Any] = Registry("animal", Animal, {})
    with pytest.raises(UnavailableError, match="Install what spooks needs"):
        registry.get("ghost")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("raise RuntimeError('licence server down')", "RuntimeError: licence server down"),
        ("raise AttributeError('no driver')", "AttributeError: no driver"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
    ],
)
def test_a_plugin_that_fails_on_import_is_told_as_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, cause: str
) -> None:
    (tmp_path / "broken_plugin.py").write_text(f"import os\n{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    plug(monkeypatch, Point("ghost", "broken_plugin:X", Dist("spooks")))
    registry: Registry[Any] = Registry("animal", Animal, {})
    with pytest.raises(UnavailableError) as told:
        registry.get("ghost")
    assert f"'ghost' of spooks (broken_plugin:X) failed on import: {cause}" in str(told.value)
    assert f"({tmp_path / 'broken_plugin.py'}, line 2)" in str(told.value)


def test_a_fault_inside_evalkit_names_the_line_of_the_plugin_that_called_it() -> None:
    try:
        extra_pixel("none")  # type: ignore[arg-type]
    except ValueError as error:
        told = str(foreign_fault("animal", "tom", Entry("a:b", None, "spooks"), "on call", error))
    assert f"({__file__}, line " in told


def test_a_fault_of_an_own_module_stays_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_own.py").write_text("raise RuntimeError('a fault')")
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry[Any] = Registry("animal", Animal, {"cat": Entry("broken_own:Cat")})
    with pytest.raises(RuntimeError, match="a fault"):
        registry.get("cat")


def test_only_objects_of_other_packages_are_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, Point("lion", f"{__name__}:Cat", Dist("zoo")))
    registry: Registry[Any] = Registry(
        "animal",
        Animal,
        {"cat": entry("Cat")},
        guard=lambda held, name, entry: (held, name, entry.origin),
    )
    assert registry.get("cat") is Cat
    assert registry.get("lion") == (Cat, "lion", "zoo")


def test_cause_of_a_failed_import_is_kept(animals: Registry[Any]) -> None:
    with pytest.raises(UnavailableError) as caught:
        animals.get("ghost")
    assert isinstance(caught.value.__cause__, ImportError)


def test_missing_attribute_is_told(animals: Registry[Any]) -> None:
    with pytest.raises(InputError, match=r"has no 'Nobody'\. Correct the entry point"):
        animals.get("lost")


@pytest.mark.parametrize("name", ["stone", "number"])
def test_wrong_base_class_is_refused(animals: Registry[Any], name: str) -> None:
    with pytest.raises(InputError, match=r"is not of the class Animal\. Derive it from .*Animal"):
        animals.get(name)


def test_register_adds(animals: Registry[Any]) -> None:
    animals.register("kitten", f"{__name__}:Cat", origin="zoo", extra="small")
    assert animals.get("kitten") is Cat
    assert animals.entry("kitten") == Entry(f"{__name__}:Cat", "small", "zoo")


def test_target_without_attribute_is_refused(animals: Registry[Any]) -> None:
    with pytest.raises(InputError, match=r"of zoo points to 'module'.*'module:attribute'"):
        animals.register("dog", "module", origin="zoo")
    assert "dog" not in animals


def test_collision_names_both_packages(animals: Registry[Any]) -> None:
    with pytest.raises(
        InputError, match=r"animal 'cat': face-evalkit \(.*Cat\) and zoo \(zoo:Lion\)"
    ):
        animals.register("cat", "zoo:Lion", origin="zoo")
    assert animals.get("cat") is Cat


def test_same_target_twice_is_no_collision(animals: Registry[Any]) -> None:
    animals.register("cat", f"{__name__}:Cat", origin="zoo")
    assert animals.get("cat") is Cat


def test_registering_leaves_the_given_mapping_alone() -> None:
    builtin = {"cat": entry("Cat")}
    registry: Registry[Any] = Registry("animal", Animal, builtin)
    registry.register("dog", "zoo:Dog", origin="zoo")
    assert list(builtin) == ["cat"]


def test_plugins_are_found(monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]) -> None:
    plug(monkeypatch, Point("lion", f"{__name__}:Cat", Dist("zoo")))
    assert "lion" in animals.names()
    assert animals.get("lion") is Cat
    assert animals.entry("lion").origin == "zoo"


def test_plugins_are_read_once_and_of_the_own_group(
    monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]
) -> None:
    plugins = plug(monkeypatch)
    animals.names()
    animals.entry("cat")
    assert "cat" in animals
    assert plugins.groups == ["evalkit.animals"]


def test_plugins_are_not_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = plug(monkeypatch)
    Registry("animal", Animal, {})
    assert plugins.groups == []


def test_plugin_is_suggested(monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]) -> None:
    plug(monkeypatch, Point("leopard", "zoo:Leopard", Dist("zoo")))
    with pytest.raises(InputError, match="Did you mean 'leopard'"):
        animals.get("leopart")


def test_plugin_that_takes_a_builtin_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]
) -> None:
    plug(monkeypatch, Point("cat", "zoo:Lion", Dist("zoo")))
    with pytest.raises(InputError, match="Uninstall one of them"):
        animals.get("cat")
    assert animals.get("tom") is tom
    assert animals.summaries().keys() == set(animals)


def test_colliding_plugins_are_told_every_time(
    monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]
) -> None:
    plug(monkeypatch, Point("cat", "zoo:Lion", Dist("zoo")), Point("dog", "zoo:Dog", Dist("zoo")))
    for _ in range(2):
        with pytest.raises(InputError, match="Uninstall one of them"):
            animals.entry("cat")
        assert animals.entry("dog").origin == "zoo"


def test_a_wrong_entry_point_is_told_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch, animals: Registry[Any]
) -> None:
    plug(monkeypatch, Point("dog", "zoo", Dist("zoo")))
    assert "dog" not in animals.names()
    assert animals.summaries()["dog"] == ""
    with pytest.raises(InputError, match="of zoo points to 'zoo'"):
        animals.get("dog")


def test_plugin_without_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, Point("lion", "zoo:Lion"))
    registry: Registry[Any] = Registry("animal", Animal, {})
    assert registry.entry("lion").origin == "an unnamed package"


def test_plugin_of_the_wrong_kind_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, Point("rock", f"{__name__}:Stone", Dist("quarry")))
    registry: Registry[Any] = Registry("animal", Animal, {})
    with pytest.raises(InputError, match="by quarry as animal 'rock', is not of the class Animal"):
        registry.get("rock")


def test_entries_are_immutable() -> None:
    with pytest.raises(AttributeError):
        entry("Cat").target = "x:y"  # type: ignore[misc]


def test_errors_exit_with_user_error(animals: Registry[Any]) -> None:
    with pytest.raises(InputError) as caught:
        animals.get("dog")
    assert caught.value.exit_code == 2


def test_extras_that_are_named_exist() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    named = {r.entry(name).extra for r in (BACKENDS, ARCHITECTURES) for name in r}
    assert {"cpu", "torch"} <= named - {None} <= set(extras)


def test_every_backend_here_bears_its_registered_name() -> None:
    for name in BACKENDS:
        try:
            backend = BACKENDS.get(name)
        except UnavailableError:
            continue
        assert issubclass(backend, Backend)
        assert backend.name == name

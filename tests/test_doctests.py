"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import evalkit

NEED_A_RUNTIME = ("evalkit.backends.", "evalkit.convert.")
PACKAGES = ("evalkit", "evalkit.datasets", "evalkit.protocols", "evalkit.widerface_eval")
NO_EXAMPLES = {
    "evalkit.__main__",
    "evalkit.widerface_eval.__main__",
    "evalkit.testing.backend",
    "evalkit.testing.task",
}


def modules() -> set[str]:
    """Names of all modules; a set, because an installed package has its siblings below it."""
    return {
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        )
    } - NO_EXAMPLES


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples(name: str) -> None:
    if name.startswith(NEED_A_RUNTIME):
        pytest.importorskip(name, reason="its runtime is not installed", exc_type=ImportError)
    module = importlib.import_module(name)
    assert doctest.testmod(module, verbose=False).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    names = ("evalkit.core.registry", "evalkit.protocols.roc", "evalkit.heads.sizing")
    for name in names:
        found = finder.find(importlib.import_module(name))
        assert any(test.examples for test in found), name
    assert evalkit.__version__

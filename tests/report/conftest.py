"""Results and a sign-off's record in a folder of the test; pages in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from page_results import make_record, pairs_result

from evalkit.verdict.signoff.record import Signoff


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, backend: str, precision: str, loss: float = 0.0, **other: Any) -> Path:
        path = tmp_path / f"{name}.json"
        pairs_result(path, backend, precision, loss, **other)
        return path

    return write


@pytest.fixture
def record(tmp_path: Path) -> Signoff:
    """A sign-off that one mode passes and another fails; its results lie in `tmp_path`."""
    return make_record(tmp_path)


@dataclass
class Opened:
    """A page, what it said on the console, and what it asked for beside itself."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser")
    executable = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    if executable is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        # The sandbox needs privileges that containers do not have.
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    contexts = []

    def open_it(path: Path, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        opened = Opened(context.new_page())
        context.route("**/*", lambda route: counted(opened, route))
        opened.page.on("console", lambda message: opened.said.append(message.text))
        opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.page.goto(path.as_uri())
        return opened

    def counted(opened: Opened, route: Any) -> None:
        if route.request.is_navigation_request() and not opened.requests:
            opened.requests.append(route.request.url)
            route.continue_()
        else:
            opened.requests.append(route.request.url)
            route.abort()

    yield open_it
    for context in contexts:
        context.close()

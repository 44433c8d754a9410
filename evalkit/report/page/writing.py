"""From a report to its file."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

import evalkit
from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.report.page import chart
from evalkit.report.page.gather import Report, of_signoff
from evalkit.report.page.texts import csv_text, markdown
from evalkit.report.page.view import view
from evalkit.tasks.panels import letter
from evalkit.verdict.signoff.record import Signoff

_GEOMETRY = {
    "width": chart.WIDTH,
    "height": chart.HEIGHT,
    "left": chart.LEFT,
    "right": chart.RIGHT,
    "top": chart.TOP,
    "bottom": chart.BOTTOM,
}


def write_page(path: Path, record: Signoff, folder: Path) -> Path:
    """Write a sign-off's page.

    Parameters
    ----------
    path : Path
        The HTML file.
    record : Signoff
    folder : Path
        Of the record: its cells' results and scores lie below. What is missing there is said in
        the page.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    evalkit.core.errors.InputError
        The file cannot be written, or the scores beside a result are damaged.
    """
    return write_report(path, of_signoff(record, folder))


def write_report(path: Path, report: Report) -> Path:
    """Write a report in the form that the file's suffix names: ``.html``, ``.md`` or ``.csv``.

    Raises
    ------
    evalkit.core.errors.InputError
        The suffix is another one, or the file cannot be written.
    """
    check_path(path)
    content = _FORMS[path.suffix.lower()](report).encode("utf-8", "replace")
    with atomic_write(path) as file:
        file.write(content)
    return path


def check_path(path: Path) -> None:
    """See, before the long work, that a report can take a name.

    Raises
    ------
    evalkit.core.errors.InputError
        It is a folder, or its suffix names no form of a report.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name a file in it, such as report.html.")
    if path.suffix.lower() not in _FORMS:
        raise InputError(f"{path}: a report ends in {', '.join(_FORMS)}.")


def render(report: Report) -> str:
    """Return a report as HTML: whatever texts it holds, none becomes markup or script."""
    style, script = _colours() + _text("style.css"), _text("script.js")
    page = view(report)
    plan = report.record.plan.model_dump(mode="json") if report.record else {}
    return (
        templates()
        .get_template("page.html")
        .render(
            page=page,
            data={**page["data"], "geometry": _GEOMETRY, "colours": chart.SERIES},
            plan=yaml.safe_dump(plan, sort_keys=False, allow_unicode=True),
            # The files are the package's own: the policy lets these two run and nothing else.
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            version=evalkit.__version__,
        )
    )


def templates() -> jinja2.Environment:
    """Return the page's templates: whatever is put into them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["letter"] = letter
    return environment


def _text(name: str) -> str:
    return resources.files("evalkit.report.page").joinpath(name).read_text(encoding="utf-8")


def palette() -> dict[str, dict[str, str]]:
    """Return the colours by name, of the light and the dark scheme."""
    colours: dict[str, dict[str, str]] = yaml.safe_load(_text("palette.yaml"))
    return colours


def _colours() -> str:
    """Return the palette as custom properties; paper is always light."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in palette()[scheme].items())
        for scheme in ("light", "dark")
    )
    return (
        f":root{{{light}}}@media screen and (prefers-color-scheme: dark)"
        f"{{:root:not([data-theme=light]){{{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


_FORMS = {".html": render, ".md": markdown, ".csv": csv_text}

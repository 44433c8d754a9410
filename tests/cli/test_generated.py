"""Options of settings that the project does not know: types, help texts, names, faults."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from evalkit import cli
from evalkit.cli.options import Options, add_run_options, resolve
from evalkit.core.errors import InputError, explain
from evalkit.core.option import Option, not_for_plans
from evalkit.core.settings import RunSettings
from evalkit.core.validation import check_written
from evalkit.tasks import TASKS
from evalkit.tasks.widerface.settings import WiderFaceSettings


class ToySettings(RunSettings):
    """Every type that an option can be made of."""

    ratio: Annotated[float, Option("share, in %", "toy", "figure", "X")] = 0.25
    sizes: Annotated[tuple[int, ...], Option("sizes", "toy", "figure", "N,...")] = (1, 8)
    labels: Annotated[tuple[str, ...], Option("labels", "toy", "figure", repeat=True)] = ()
    kind: Annotated[Literal["a", "b"] | None, Option("kind", "toy", "run", default="a")] = None
    top: Annotated[
        Annotated[int, Field(ge=0)] | Literal["all"], Option("how many", "toy", "cell", "N|all")
    ] = "all"
    strict: Annotated[bool, Option("be strict", "toy", "figure")] = True
    lenient: Annotated[bool, Option("be lenient", "toy", "figure", only_on=True)] = False
    report: Annotated[
        Path | None, Option("folder", "toy", "file", option="--to", writes="folder")
    ] = None


class OddSettings(RunSettings):
    table: Annotated[dict[str, int], Option("a table", "toy", "figure")]


def toy(*words: str) -> ToySettings:
    parser = argparse.ArgumentParser()
    add_run_options(parser, ToySettings)
    return resolve(parser.parse_args(words), ToySettings)


def test_each_type_is_read() -> None:
    words = "--ratio .5 --sizes 2,4 --labels x --labels y --kind b --top 3 --no-strict --lenient"
    settings = toy(*words.split(), "--to", "out", "--batch-size", "4")
    assert settings == ToySettings(
        ratio=0.5,
        sizes=(2, 4),
        labels=("x", "y"),
        kind="b",
        top=3,
        strict=False,
        lenient=True,
        report=Path("out"),
        batch_size=4,
    )
    assert toy() == ToySettings()
    assert not toy().model_fields_set


@pytest.mark.parametrize("words", [["--sizes", "1,x"], ["--top", "some"], ["--no-lenient"]])
def test_what_does_not_fit_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        toy(*words)


def test_help_tells_text_and_default() -> None:
    parser = argparse.ArgumentParser()
    options = Options(parser)
    options.add(ToySettings)
    shown = " ".join(parser.format_help().split())
    assert "--ratio X share, in % (default: 0.25)" in shown
    assert "--sizes N,... sizes (default: 1,8)" in shown
    assert "--kind {a,b} kind (default: a)" in shown
    assert "--strict, --no-strict be strict (default: on)" in shown
    assert "--lenient be lenient " in shown
    assert parser.parse_args([]).sizes == (1, 8)  # defaults, where nothing suppresses them


def test_a_type_without_an_option_is_a_fault() -> None:
    with pytest.raises(TypeError, match="no option can be made of"):
        add_run_options(argparse.ArgumentParser(), OddSettings)


def test_a_plan_sets_what_moves_figures_and_how_a_run_goes() -> None:
    own = ToySettings.model_fields.keys() - RunSettings.model_fields.keys()
    assert not_for_plans(ToySettings) & own == {"top", "report"}


def test_what_a_run_writes_is_checked_before_it(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    for settings, message in (
        (ToySettings(report=file), rf"--to {file} is a file\. Name a folder"),
        (ToySettings(output=folder), rf"--output {folder} is a folder\. Name a file in it"),
        (ToySettings(output=file / "r.json"), "files cannot be made in"),
        (WiderFaceSettings(write_predictions=file), "--write-predictions .* is there already"),
    ):
        with pytest.raises(InputError, match=message):
            check_written(settings)
    check_written(ToySettings(report=tmp_path / "new" / "one", output=tmp_path / "also" / "r.json"))
    assert (tmp_path / "new" / "one").is_dir()
    assert (tmp_path / "also").is_dir()


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Register an entry point as if another package had brought it."""

    def register(name: str, value: str) -> None:
        point = importlib.metadata.EntryPoint(name, value, TASKS.group)
        monkeypatch.setattr(
            importlib.metadata,
            "entry_points",
            lambda group: [point] if group == TASKS.group else [],
        )

    monkeypatch.setattr(TASKS, "_plugins_read", False)
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    monkeypatch.setattr(TASKS, "_faults", {})
    cli.commands.cache_clear()
    yield register
    cli.commands.cache_clear()


def test_another_packages_task_is_a_command(plug_in: Any) -> None:
    plug_in("toy", "evalkit.tasks.lfw.task:Lfw")
    assert "toy" in cli.commands()
    with pytest.raises(SystemExit) as exit_:
        cli.main(["toy", "--help"])
    assert exit_.value.code == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("gate", "toy:Toy", "registers a task 'gate', which is the name of a command"),
        ("lfw", "toy:Toy", "Two packages register the task 'lfw'"),
        ("toy", "no_such_module_here:Toy", "The task 'toy' cannot be loaded"),
        ("toy", "toy", "points to 'toy'; write it as 'module:attribute'"),
    ],
)
def test_faults_of_another_package_are_one_line(
    plug_in: Any, capsys: pytest.CaptureFixture[str], name: str, value: str, told: str
) -> None:
    plug_in(name, value)
    assert cli.main([name, "--help"]) == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert "Traceback" not in shown
    for other in ("inspect", "ijbc"):
        with pytest.raises(SystemExit) as exit_:
            cli.main([other, "--help"])
        assert exit_.value.code == 0


def test_a_timeout_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ijbc", "--worker-timeout", "inf"]) == 2
    assert "--worker-timeout" in capsys.readouterr().err


def test_an_error_is_explained_once() -> None:
    assert explain(InputError("mend it")) == ("mend it", 2)
    message, code = explain(FileNotFoundError(2, "No such file", "a.bin"))
    assert (code, "'a.bin'" in message) == (2, True)
    assert explain(RuntimeError("x"))[1] == 70

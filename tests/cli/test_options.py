"""Options and settings are those of the record, and a plan refuses what it refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from parsers import CLASSES, LINES, describe_options, describe_settings, parse

from evalkit.core.option import not_for_plans, option_of
from evalkit.core.settings import RunSettings

FOLDER = Path(__file__).parent


def record(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", LINES)
def test_every_option_is_as_recorded(command: str) -> None:
    assert describe_options(command) == record("options")[command]


@pytest.mark.parametrize("command", LINES)
def test_command_lines_come_to_the_recorded_values(command: str) -> None:
    recorded = record("lines")[command]
    assert recorded.keys() == set(LINES[command])
    for line, expected in recorded.items():
        assert parse(line, command) == expected, line


@pytest.mark.parametrize("name", CLASSES)
def test_settings_have_the_recorded_keys_types_and_defaults(name: str) -> None:
    assert describe_settings(CLASSES[name]) == record("settings")["settings"][name]


@pytest.mark.parametrize("name", record("settings")["plan_refuses"])
def test_a_plan_refuses_the_recorded_settings(name: str) -> None:
    assert sorted(not_for_plans(CLASSES[name])) == record("settings")["plan_refuses"][name]


@pytest.mark.parametrize("name", CLASSES)
def test_every_setting_of_a_run_says_what_it_is(name: str) -> None:
    kind = CLASSES[name]
    if issubclass(kind, RunSettings):
        silent = [n for n, field in kind.model_fields.items() if option_of(field) is None]
        assert silent in ([], ["kind"])  # a dump's kind: its choices are the tasks

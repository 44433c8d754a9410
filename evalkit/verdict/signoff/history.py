"""The plans that were run in a folder: a record shows a margin that was changed after a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalkit.core.errors import InputError
from evalkit.core.files import atomic_write
from evalkit.verdict.plan import Plan
from evalkit.verdict.signoff.record import PlanUse

_NAME = "plans.json"


def note_plan(folder: Path, plan: Plan, started: str) -> tuple[PlanUse, ...]:
    """Write a plan down before anything runs; return it and those before it, oldest first.

    Raises
    ------
    evalkit.core.errors.InputError
        The folder's history is damaged.
    """
    plans = read_plans(folder)
    if not plans or plans[-1][0].sha256 != plan.sha256:
        values = plan.model_dump(mode="json")
        changes = tuple(differences(plans[-1][1], values)) if plans else ()
        plans.append((PlanUse(sha256=plan.sha256, started=started, changes=changes), values))
        rows = [{"use": use.model_dump(), "plan": old} for use, old in plans]
        with atomic_write(folder / _NAME) as file:
            file.write(json.dumps(rows, indent=2).encode() + b"\n")
    return tuple(use for use, _ in plans)


def read_plans(folder: Path) -> list[tuple[PlanUse, dict[str, Any]]]:
    """Return the plans that were run in a folder, oldest first.

    Raises
    ------
    evalkit.core.errors.InputError
        The file that holds them is damaged.
    """
    path = folder / _NAME
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
        return [(PlanUse.model_validate(row["use"]), dict(row["plan"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): it says which plans were used here. Choose another "
            "--out."
        ) from error


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Say what differs between two plans.

    Examples
    --------
    >>> list(differences({"name": "a", "matrix": {"x": 1}}, {"name": "a", "matrix": {"x": 2}}))
    ['matrix.x: 1 -> 2']
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for where in dict.fromkeys([*old, *new]):
        if old.get(where) != new.get(where):
            yield f"{where}: {_said(old, where)} -> {_said(new, where)}"


def _said(leaves: dict[str, Any], where: str) -> str:
    value = leaves.get(where)
    return "nothing" if value is None else json.dumps(value)


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{where}.{name}" if where else name)
    elif isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        for part in value:
            yield from _leaves(part, f"{where}.{part.get('name')}")
    else:
        yield where, value

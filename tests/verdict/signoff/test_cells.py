"""A cell's process: why it ended, and which earlier result is its own."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit.core.errors import EXIT_INTERNAL
from evalkit.core.files import sha256_json
from evalkit.verdict.plan import load_plan
from evalkit.verdict.signoff import cell
from evalkit.verdict.signoff.cells import _failure, facts_of, finished, jobs_of
from evalkit.verdict.signoff.probing import Prober


@pytest.fixture
def terminable() -> Any:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("terminable")
def test_the_reason_is_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, reason = tmp_path / "settings.yaml", tmp_path / "reason.json"
    settings.write_text("data: nowhere.bin\noutput: r.json\nprecisoin: int8\n")
    assert cell.main("lfw", str(settings), str(reason)) == 2
    told = json.loads(reason.read_text())
    assert told["code"] == 2
    assert "precisoin: unknown setting" in told["message"]
    assert told["message"] in capsys.readouterr().err
    assert str(_failure(2, reason)) == told["message"]


@pytest.mark.usefixtures("terminable")
def test_a_fault_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a\nfault")

    monkeypatch.setattr(cell, "run", fault)
    settings, reason = tmp_path / "settings.yaml", tmp_path / "reason.json"
    settings.write_text(f"output: {tmp_path / 'r.json'}\n")
    assert cell.main("lfw", str(settings), str(reason)) == EXIT_INTERNAL
    assert "Traceback" in capsys.readouterr().err
    failure = _failure(EXIT_INTERNAL, reason)
    assert str(failure) == "RuntimeError: a\nfault: a fault of evalkit"
    assert failure.unexplained


@pytest.mark.parametrize(
    ("code", "content", "message"),
    [
        (-11, None, "the run crashed (SIGSEGV)"),
        (1, None, "the run ended with code 1"),
        (1, "{", "the run ended with code 1"),
        (1, '{"message": 3}', "the run ended with code 1"),
    ],
)
def test_without_a_reason_the_log_is_named(
    tmp_path: Path, code: int, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "reason.json").write_text(content)
    failure = _failure(code, tmp_path / "reason.json")
    assert (str(failure), failure.unexplained) == (message, True)


def test_a_cell_stands_whatever_version_of_evalkit_ran_it(
    plan: dict[str, Any], done: Path, tmp_path: Path
) -> None:
    shutil.copytree(done, tmp_path / "out")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    jobs = jobs_of(load_plan(tmp_path / "plan.yaml"), tmp_path / "out")
    job, prober = jobs[1], Prober()
    facts = facts_of(job, prober)
    assert finished(job, facts) is not None
    result = json.loads(job.result.read_text())
    result["evalkit_version"] = "0.1.0"
    job.result.write_text(json.dumps(result))
    assert finished(job, facts) is not None
    key = job.folder / "key"
    old = {name: fact for name, fact in facts.items() if name != "beside"}
    for version, stands in (("0.1.0", True), ("0.0.9", False)):
        key.write_text(sha256_json({**old, "evalkit": version}))
        assert (finished(job, facts) is not None) is stands
    key.write_text(sha256_json({**facts, "runtime": "another"}))
    assert finished(job, facts) is None
    assert finished(jobs[0], facts) is None


def test_a_cell_runs_again_where_what_lies_beside_its_data_changed(
    plan: dict[str, Any], network: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.png").write_bytes(b"two")
    table = tmp_path / "pairs.csv"
    table.write_text("path1,path2,same\na.png,b.png,1\na.png,a.png,0\n")
    plan["protocols"] = [
        {
            "kind": "pairs",
            "data": str(table),
            "settings": {"fmr": [0.1]},
            "primary": "fnmr@fmr=1e-01",
            "margin": {"points": 1},
        }
    ]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))

    def facts() -> dict[str, Any]:
        job = jobs_of(load_plan(tmp_path / "plan.yaml"), tmp_path / "out")[0]
        assert job.data.images == 2
        return facts_of(job, prober)

    prober = Prober()
    before = facts()
    assert facts() == before
    (tmp_path / "b.png").write_bytes(b"three")
    assert facts() != before

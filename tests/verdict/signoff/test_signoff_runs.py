"""Whole sign-offs of a tiny network: what is run, what is kept, what becomes of what cannot run."""

from __future__ import annotations

import copy
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from evalkit.cli import main
from evalkit.report.signoff import csv_table, describe, markdown
from evalkit.verdict.signoff.record import Cell, Signoff, load_signoff

Plan = dict[str, Any]
SignOff = Callable[..., tuple[int, Signoff]]


def test_equal_modes_pass(done: Path) -> None:
    record = load_signoff(done / "signoff.json")
    assert (record.exit_code, record.outcome) == (0, "pass")
    reference = record.cell("pairs", "onnxruntime:fp32")
    assert (reference.outcome, reference.test, reference.reused) == ("reference", None, False)
    cell = record.cell("pairs", "onnxruntime:fp16")
    assert cell.outcome == "pass"
    assert cell.test is not None
    assert cell.test.low is not None
    assert cell.test.low >= -cell.test.margin == -0.2
    assert cell.test.unit == "pairs"
    assert cell.deployment is not None
    assert cell.deployment.fnmr_change == pytest.approx(0, abs=0.05)
    assert cell.limits[0].value is not None
    assert cell.limits[0].value > 0.999
    assert cell.run is not None
    assert cell.run.ran.precision_ran == "fp32 (fp16 weights)"
    assert (done / cell.run.result).is_file()
    assert record.plans[0].sha256 == record.plan.sha256


def test_figures_of_kept_outputs_are_marked(done: Path) -> None:
    record = load_signoff(done / "signoff.json")
    (named, *units), *rows = csv.reader(csv_table(record).splitlines())
    assert named == "verdict"
    assert {"value %", "low points", "margin points", "unit"} <= set(units)
    column = {name: place + 1 for place, name in enumerate(units)}
    assert [row[column["unit"]] for row in rows] == ["", "pairs"]
    assert all(row[column["memory MB"]] for row in rows)
    assert "*" not in describe(record).split("beside, not tested")[1]

    def kept(cell: Cell) -> Cell:
        stages = tuple(
            stage.model_copy(update={"reused_items": stage.items}) for stage in cell.run.stages
        )
        return cell.model_copy(update={"run": cell.run.model_copy(update={"stages": stages})})

    again = record.model_copy(update={"cells": tuple(map(kept, record.cells))})
    _, *rows = csv.reader(csv_table(again).splitlines())
    assert all(row[column["images/s"]] and not row[column["memory MB"]] for row in rows)
    assert all(row[column["from store"]] == "yes" for row in rows)
    assert "*: scored from stored outputs" in describe(again)


def test_what_ran_otherwise_is_marked_and_said(done: Path) -> None:
    record = load_signoff(done / "signoff.json")
    said = "onnxruntime:fp16 ran fp32 (fp16 weights): pairs"
    assert f"~ {said}" in describe(record).splitlines()
    assert "(~)" in describe(record)
    assert "onnxruntime\\:fp16 ran fp32" in markdown(record)
    same = {cell.mode: cell.model_copy(update={"run": None}) for cell in record.cells}
    without = record.model_copy(update={"cells": tuple(same.values())})
    assert "~" not in describe(without) + markdown(without)


def test_modes_are_in_order_of_backends_and_precisions(done: Path) -> None:
    record = load_signoff(done / "signoff.json")
    named = ["torch:int8", "tvm:fp32", "torch:fp32", "tvm:int8", "torch:bf16"]
    cells = [
        record.cells[0].model_copy(
            update=dict(zip(("backend", "precision"), mode.split(":"), strict=True))
        )
        for mode in named
    ]
    shuffled = record.model_copy(update={"cells": tuple(cells)})
    assert shuffled.modes == ("torch:fp32", "torch:bf16", "torch:int8", "tvm:fp32", "tvm:int8")


def test_a_second_run_computes_nothing(
    plan: Plan, resumed: SignOff, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    code, again = resumed(plan)
    assert code == 0
    assert all(cell.reused for cell in again.cells)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert again.cells[1].test == load_signoff(done / "signoff.json").cells[1].test
    assert "PASS" in capsys.readouterr().out.splitlines()[0]


def test_a_ruined_model_fails_at_a_glance_and_a_changed_margin_shows(
    plan: Plan, resumed: SignOff, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan["matrix"]["cells"] = {"onnxruntime:fp16": {"file": str(network.parent / "ruined.onnx")}}
    plan["protocols"][0]["margin"] = {"points": 2}
    code, record = resumed(plan)
    cell = record.cell("pairs", "onnxruntime:fp16")
    assert cell.limits[0].value < 0.9
    assert cell.limits[0].outcome == "flag"
    assert "! drift cosine p1" in capsys.readouterr().out

    stricter = copy.deepcopy(plan)
    stricter["protocols"][0]["limits"] = {"drift_cosine_p1": 0.98}
    stricter["protocols"][0]["margin"] = {"points": 90}
    code, record = resumed(stricter)
    assert (code, record.outcome) == (1, "fail")
    cell = record.cell("pairs", "onnxruntime:fp16")
    assert (cell.test.outcome, cell.limits[0].outcome, cell.reused) == ("pass", "fail", True)
    assert len(record.plans) == 3
    assert any("margin.points: 2.0 -> 90.0" in warning for warning in record.warnings)
    assert "margin.points: 2.0 -> 90.0" in capsys.readouterr().out


def test_what_cannot_run_stops_nothing_and_leaves_the_whole_open(
    plan: Plan, resumed: SignOff, tmp_path: Path
) -> None:
    plan["matrix"]["include"] = ["onnxruntime:int8", "nothing:fp32", "torch:bf16"]
    plan["matrix"]["cells"] = {"torch:bf16": {"python": str(tmp_path / "no-python")}}
    code, record = resumed(plan)
    assert (code, record.outcome) == (3, "inconclusive")
    assert record.cell("pairs", "onnxruntime:fp16").outcome == "pass"
    reasons = {cell.mode: cell.reason for cell in record.cells if cell.outcome == "cannot_run"}
    assert reasons.keys() == {"onnxruntime:int8", "nothing:fp32", "torch:bf16"}
    assert "no file for backend 'onnxruntime' at int8" in reasons["onnxruntime:int8"]
    assert "no backend 'nothing'" in reasons["nothing:fp32"]
    assert "no-python" in reasons["torch:bf16"]
    suites = ElementTree.parse(tmp_path / "out" / "signoff.xml").getroot()
    assert (suites.get("tests"), suites.get("errors")) == ("5", "3")

    for mode in ("onnxruntime:int8", "nothing", "torch:bf16"):
        plan["matrix"]["cells"].setdefault(mode, {})["optional"] = True
    code, record = resumed(plan)
    assert (code, record.outcome) == (0, "pass")


def test_a_run_that_ends_badly_says_why_and_is_tried_again(
    plan: Plan, resumed: SignOff, network: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    plan["matrix"]["cells"] = {"onnxruntime:fp16": {"file": str(broken)}}
    code, record = resumed(plan)
    assert code == 3
    cell = record.cell("pairs", "onnxruntime:fp16")
    assert cell.outcome == "cannot_run"
    assert "broken.onnx" in cell.reason
    broken.write_bytes((network.parent / "fp16.onnx").read_bytes())
    code, record = resumed(plan)
    assert code == 0
    assert record.cell("pairs", "onnxruntime:fp32").reused
    assert not record.cell("pairs", "onnxruntime:fp16").reused


def test_without_its_reference_nothing_is_judged(
    plan: Plan, resumed: SignOff, tmp_path: Path
) -> None:
    plan["matrix"]["cells"] = {"onnxruntime:fp32": {"file": str(tmp_path / "absent.onnx")}}
    code, record = resumed(plan)
    assert code == 3
    assert record.cell("pairs", "onnxruntime:fp32").outcome == "cannot_run"
    assert record.cell("pairs", "onnxruntime:fp16").outcome == "inconclusive"
    assert "reference" in record.cell("pairs", "onnxruntime:fp16").reason


def test_only_runs_what_is_named_and_its_reference(
    plan: Plan, resumed: SignOff, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "out" / "cells" / "pairs" / "onnxruntime-fp16")
    code, record = resumed(plan, "--only", "onnxruntime:fp32")
    assert code == 3
    assert [cell.outcome for cell in record.cells] == ["reference", "not_run"]
    code, record = resumed(plan, "--only", "pairs/onnxruntime:fp16")
    assert code == 0
    plan_file = str(tmp_path / "plan.yaml")
    assert main(["signoff", plan_file, "--out", str(tmp_path / "out"), "--only", "x"]) == 2
    assert "no such cell" in capsys.readouterr().err


def test_a_dry_run_tells_what_is_there_and_writes_no_record(
    plan: Plan, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    words = ["signoff", str(path), "--out", str(tmp_path / "out"), "--dry-run", "--quiet"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.count("a probe with 40 images") == 2
    assert not list(tmp_path.rglob("*.json"))
    shutil.copytree(done, tmp_path / "out", dirs_exist_ok=True)
    plan["protocols"][0]["margin"] = {"points": 3}
    path.write_text(yaml.safe_dump(plan))
    capsys.readouterr()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert "margin.points: 20.0 -> 3.0" in shown


def test_a_dry_run_says_once_why_cells_cannot_run_and_takes_only(
    plan: Plan, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done, tmp_path / "out")
    plan["matrix"]["include"] = ["nowhere:fp16", "nowhere:int8"]
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    words = ["signoff", str(path), "--out", str(tmp_path / "out"), "--dry-run", "--quiet"]
    assert main(words) == 0
    table, reason, total, _ = capsys.readouterr().out.split("\n\n")
    assert max(map(len, table.splitlines())) < 80
    assert reason.startswith("cannot run: backend nowhere: ")
    assert reason.endswith("\n  pairs/nowhere:fp16, pairs/nowhere:int8")
    assert total == "about 0 s in all (without 2 cells that cannot run)"

    assert main([*words, "--only", "onnxruntime:fp16"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("finished") == 2
    assert "cannot run" not in shown
    assert main([*words, "--only", "x"]) == 2
    assert "no such cell" in capsys.readouterr().err


@pytest.mark.slow
def test_speed_is_measured_by_turns_and_stands(
    plan: Plan, resumed: SignOff, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan["bench"] = {"batch_sizes": [2], "repeats": 2, "seconds": 0.01}
    _, record = resumed(plan)
    assert record.bench is not None
    timings = record.bench["tiny"]["timings"]
    assert [timing["precision"] for timing in timings] == ["fp32", "fp16"]
    assert all(timing["images_per_second"]["median"] > 0 for timing in timings)
    _, again = resumed(plan)
    assert again.bench == record.bench
    plan["bench"]["repeats"] = 3
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    capsys.readouterr()
    main(["signoff", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")])
    assert "  timing: 6/6 repetitions" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_what_is_done(
    plan: Plan, tmp_path: Path, sent: signal.Signals
) -> None:
    from subprocess import PIPE, Popen
    from sys import executable

    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    out = tmp_path / "out"
    first = out / "cells" / "pairs" / "onnxruntime-fp32" / "key"
    second = out / "cells" / "pairs" / "onnxruntime-fp16" / "settings.yaml"
    words = [executable, "-m", "evalkit", "signoff", str(path), "--out", str(out)]
    with Popen(words, stderr=PIPE, stdout=PIPE, text=True, env=dict(os.environ)) as run:
        deadline = time.monotonic() + 60
        while not second.exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(sent)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "the same command resumes" in said
    assert (
        str(second)
        not in subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert first.exists()
    assert main([*words[3:], "--quiet"]) == 0
    cells = json.loads((out / "signoff.json").read_text())["cells"]
    assert [cell["reused"] for cell in cells] == [True, False]


def test_the_tables_hold_hostile_names_as_text(
    plan: Plan, resumed: SignOff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    plan["name"] = "=1+1 | <script>\n::error::"
    plan["matrix"]["include"] = ["=x|y:fp32"]
    assert resumed(plan)[0] == 3
    summary = (tmp_path / "summary.md").read_text()
    assert "<script>" not in summary
    assert summary == (tmp_path / "out" / "signoff.md").read_text() + "\n"
    with (tmp_path / "out" / "signoff.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["verdict", "reference", "PASS", "CANNOT RUN"]
    assert rows[3][2] == "'=x|y"
    assert all(len(row) == len(rows[0]) for row in rows)


def test_a_boards_outputs_are_a_row(
    plan: Plan, resumed: SignOff, network: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    """The board is a runner that knows nothing of evalkit, with the fp16 network."""
    dump, outputs = tmp_path / "dump", tmp_path / "outputs"
    words = ["dump", "lfw", "--data", tiny_pairs, "--model", network, "--out", dump, "--quiet"]
    assert main([str(word) for word in words]) == 0
    runner = Path(__file__).parents[2] / "exchange" / "standalone_runner.py"
    command = [sys.executable, runner, network.parent / "fp16.onnx", dump, outputs, "bin"]
    subprocess.run([str(word) for word in command], check=True)
    info, log = tmp_path / "info.yaml", tmp_path / "board.log"
    info.write_text("{device: board, precision: fp16}")
    log.write_text("Throughput (qps): 321.5\n")
    paths = {"outputs": outputs, "manifest": dump, "runtime_info": info, "throughput_log": log}
    named = {name: str(path) for name, path in paths.items()}
    plan["matrix"]["include"] = ["outputs:fp16"]
    plan["matrix"]["cells"] = {"outputs:fp16": {"devices": {"pairs": named}}}
    code, record = resumed(plan)
    cell = record.cell("pairs", "outputs:fp16")
    assert (code, cell.outcome) == (0, "pass"), cell.reason
    assert cell.run is not None
    assert (cell.run.throughput, cell.run.ran.device) == (321.5, "board")
    plan["matrix"]["cells"] = {"outputs:fp16": {"devices": {}}}
    code, record = resumed(plan)
    cell = record.cell("pairs", "outputs:fp16")
    assert (code, cell.outcome) == (3, "cannot_run")
    assert "devices.pairs" in cell.reason

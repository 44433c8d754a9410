"""The gate: what passes, fails, or cannot be judged, and what it tells to whom."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.cli import main
from evalkit.core.errors import InputError
from evalkit.core.results import Failure, Metric, Result, load_result
from evalkit.report.junit import junit
from evalkit.report.markdown import markdown
from evalkit.report.verdict import describe, workflow_commands
from evalkit.verdict.comparable import mismatches
from evalkit.verdict.gate import (
    MetricPolicy,
    Policy,
    Verdict,
    judge,
    load_policy,
    trimmed,
    update_baseline,
)

HOSTILE = "a|b<script>alert(1)</script>]]>&\"'`x`\n::error::x\x00\x1b[31m%0A*b*_i_[l](u)\ud800"


def tar(accepted: int = 950, **changes: Any) -> dict[str, Any]:
    values = {
        "name": "tar@far=1e-04", "figure": "tar", "value": accepted / 1000, "rule": "at_most",
        "share": ("true_accepts", "genuine"),
        "counts": {
            "true_accepts": accepted, "genuine": 1000, "false_accepts": 50, "impostors": 10**6,
        },
        "at": {"target": 1e-4, "achieved": 5e-5, "similarity": 0.5},
    }  # fmt: skip
    return {**values, **changes}


def result(*metrics: dict[str, Any], **changes: Any) -> Result:
    values: dict[str, Any] = {
        "evalkit_version": "0", "task": "ijbc", "status": "complete", "started": "now",
        "command": "evalkit ijbc --data /secret",
        "dataset": {
            "name": "d", "sha256": "0", "content_sha256": "1", "counts": {"faces": 9}, "path": "/d",
        },
        "model": {"name": "m", "file": "/models/m.onnx", "sha256": "2", "preprocessing": {}},
        "ran": {
            "backend": "onnxruntime", "version": "1", "device": "cpu",
            "precision_requested": "fp32", "precision_ran": "fp32", "threads": 1, "batch_size": 1,
            "details": {}, "notes": (),
        },
        "settings": {"rule": "at_most", "flip": "sum"}, "metrics": metrics or (tar(),),
        "failures_to_enrol": (), "stages": (), "wall_seconds": 1.0, "throughput": None,
        "peak_memory_mb": 1.0, "scores_file": "r.scores.npz", "store": "/cache", "warnings": (),
        "environment": {},
    }  # fmt: skip
    return Result.model_validate({**values, **changes})


def policy(**margins: Any) -> Policy:
    return Policy(metrics=(MetricPolicy(**{"name": "tar@far=1e-04", **margins}),))


def outcome(candidate: Result, baseline: Result, rules: Policy) -> tuple[str, int]:
    verdict = judge(candidate, baseline, rules)
    return verdict.outcome, verdict.exit_code


@pytest.mark.parametrize(
    ("margins", "worst"),
    [
        ({}, 950),
        ({"absolute": 0.01}, 940),
        ({"relative": 0.1}, 945),
        ({"errors": 3}, 947),
        ({"absolute": 0.01, "relative": 0.1, "errors": 20}, 930),
    ],
)
def test_the_largest_margin_is_the_limit_and_is_met_exactly(
    margins: dict[str, float], worst: int
) -> None:
    assert outcome(result(tar(worst)), result(), policy(**margins)) == ("pass", 0)
    assert outcome(result(tar(worst - 1)), result(), policy(**margins)) == ("fail", 1)
    assert outcome(result(tar(1000)), result(), policy(**margins)) == ("pass", 0)


@given(
    st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 500), st.integers(0, 300),
    st.integers(0, 50),
)  # fmt: skip
def test_a_better_figure_never_fails_and_no_margin_makes_it_stricter(
    before: int, after: int, permille: int, percent: int, errors: int
) -> None:
    absolute, relative = permille / 1000, percent / 100
    rules = policy(absolute=absolute, relative=relative, errors=errors)
    old, new = result(tar(before)), result(tar(after))
    verdict = outcome(new, old, rules)
    if after >= before:
        assert verdict == ("pass", 0)
    if outcome(new, old, policy())[0] == "pass":
        assert verdict[0] == "pass"
    allowed = max(1000 * absolute, relative * (1000 - before), errors)
    if not math.isclose(before - after, allowed, rel_tol=1e-6, abs_tol=1e-6):
        assert (verdict[0] == "fail") == (before - after > allowed)


def test_margins_are_on_errors_not_on_accuracy() -> None:
    accuracy = {"name": "accuracy/exact", "figure": "accuracy", "rule": "exact"}
    old = result({**accuracy, "value": 0.995})
    new = result({**accuracy, "value": 0.985})
    rules = Policy(metrics=(MetricPolicy(name="accuracy/*", relative=0.05),))
    assert outcome(new, old, rules) == ("fail", 1)


def test_an_error_rate_that_rises_is_worse() -> None:
    equal = {"name": "eer", "figure": "eer", "direction": "lower", "rule": "nearest_rates"}
    old, new = result({**equal, "value": 0.02}), result({**equal, "value": 0.03})
    rules = Policy(metrics=(MetricPolicy(name="eer", absolute=0.005),))
    assert outcome(new, old, rules) == ("fail", 1)
    assert outcome(old, new, rules) == ("pass", 0)


CANNOT: list[tuple[str, Callable[[], tuple[Result, Result]]]] = [
    ("complete", lambda: (result(status="partial"), result())),
    ("complete", lambda: (result(), result(status="partial"))),
    ("protocol", lambda: (result(task="ijbb"), result())),
    ("data", lambda: (result(dataset={**DATA, "sha256": "x"}), result())),
    ("data", lambda: (result(dataset={**DATA, "content_sha256": "x"}), result())),
    ("sample counts", lambda: (result(dataset={**DATA, "counts": {"faces": 8}}), result())),
    ("sample counts", lambda: (result(tar(counts={"genuine": 999}, share=None)), result())),
    ("rules", lambda: (result(settings={"rule": "at_most", "flip": "none"}), result())),
    ("rules", lambda: (result(tar(rule="interpolated")), result())),
    ("tar@far=1e-04", lambda: (result(tar(value=None)), result())),
    ("tar@far=1e-04", lambda: (result(tar(value=math.nan)), result())),
    ("tar@far=1e-04", lambda: (result(tar(name="rank-1")), result())),
    ("tar@far=1e-04", lambda: (result(), result(tar(name="rank-1")))),
    ("tar@far=1e-04", lambda: (result(tar(flags=["too_few_false_accepts"])), result())),
    ("tar@far=1e-04", lambda: (result(tar(flags=["too_few_faces"])), result())),
]
DATA: dict[str, Any] = result().dataset.model_dump()


@pytest.mark.parametrize(("name", "make"), CANNOT)
def test_what_cannot_be_judged_is_neither_passed_nor_failed(
    name: str, make: Callable[[], tuple[Result, Result]]
) -> None:
    verdict = judge(*make(), policy(absolute=0.5))
    assert (verdict.outcome, verdict.exit_code) == ("cannot_judge", 3)
    assert name in [check.name for check in verdict.checks if check.outcome == "cannot_judge"]


def test_other_data_hide_no_regression_behind_a_pass() -> None:
    verdict = judge(result(tar(0), task="ijbb"), result(), policy())
    assert [check.name for check in verdict.checks] == ["complete", "protocol"]


@pytest.mark.parametrize("flag", ["too_few_false_accepts", "too_few_faces"])
def test_of_a_pattern_what_is_unfit_is_left_out_but_something_must_remain(flag: str) -> None:
    few = tar(name="tar@far=1e-06", flags=[flag])
    rules = Policy(metrics=(MetricPolicy(name="tar@far=*"),))
    verdict = judge(result(few, tar()), result(few, tar()), rules)
    assert verdict.outcome == "pass"
    assert [c.outcome for c in verdict.checks if c.name == few["name"]] == ["skipped"]
    assert outcome(result(few), result(few), rules) == ("cannot_judge", 3)


def test_the_first_name_that_fits_holds() -> None:
    rules = Policy(
        metrics=(MetricPolicy(name="tar@far=1e-04", absolute=0.1), MetricPolicy(name="tar@*"))
    )
    assert outcome(result(tar(900)), result(), rules) == ("pass", 0)


def test_failures_to_enrol_have_a_limit() -> None:
    failures = [Failure(name=f"{i}.jpg", reason="NaN") for i in range(3)]
    old, new = result(failures_to_enrol=failures[:1]), result(failures_to_enrol=failures)
    rules = policy()
    assert outcome(new, old, rules) == ("fail", 1)
    assert outcome(new, old, rules.model_copy(update={"failures_to_enrol": 2})) == ("pass", 0)
    assert outcome(old, new, rules) == ("pass", 0)


def test_counts_give_error_rates_without_rounding() -> None:
    def rate(**values: Any) -> float | None:
        return Metric.model_validate(values).error_rate

    assert Metric.model_validate(tar(999)).error_rate == 1 / 1000
    assert rate(name="ap/hard", figure="ap", value=0.75, rule="python") == 0.25
    assert rate(name="xnorm", figure="xnorm", direction=None, value=0.5, rule="mean_norm") is None
    assert rate(name="tar@far=1", figure="tar", value=None, rule="at_most") is None


def test_errors_need_counts() -> None:
    ap = {"name": "ap/hard", "figure": "ap", "value": 0.5, "rule": "python"}
    rules = Policy(metrics=(MetricPolicy(name="ap/hard", errors=1),))
    assert outcome(result(ap), result(ap), rules) == ("cannot_judge", 3)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    result(tar(930)).save(tmp_path / "result.json")
    result().save(tmp_path / "baseline.json")
    return tmp_path / "result.json", tmp_path / "baseline.json"


def gate(*words: str | Path) -> int:
    return main(["gate", *map(str, words)])


def test_the_command_writes_everything(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    targets = {name: tmp_path / f"v.{name}" for name in ("output", "junit", "markdown")}
    words = [word for name, path in targets.items() for word in (f"--{name}", path)]
    assert gate(files[0], "--baseline", files[1], *words) == 1
    printed = capsys.readouterr().out
    assert "\n::error title=evalkit gate%3A tar@far=1e-04::error rate 0.07 exceeds" in printed
    assert "gate: FAIL" in printed
    assert Verdict.model_validate_json(targets["output"].read_text()).outcome == "fail"
    text = targets["markdown"].read_text()
    assert text.startswith("## evalkit gate: FAIL\n")
    assert summary.read_text() == f"before\n{text}\n"
    suite = ElementTree.parse(targets["junit"]).getroot()[0]
    assert suite.attrib["failures"] == "1"
    failed = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    assert [case.attrib["name"] for case in failed] == ["tar@far=1e-04"]
    assert gate(files[1], "--baseline", files[1]) == 0


def test_exit_codes_are_those_of_the_house(files: tuple[Path, Path], tmp_path: Path) -> None:
    new, old = files
    assert gate(old, "--baseline", old) == 0
    assert gate(new, "--baseline", old) == 1
    assert gate(new, "--baseline", tmp_path / "none.json") == 2
    assert gate(new, "--baseline", old, "--policy", "nonsense") == 2
    with pytest.raises(SystemExit) as stopped:
        gate(new)
    assert stopped.value.code == 2
    result(task="ijbb").save(tmp_path / "other.json")
    assert gate(new, "--baseline", tmp_path / "other.json", "--junit", tmp_path / "j.xml") == 3
    assert ElementTree.parse(tmp_path / "j.xml").getroot().attrib["errors"] == "1"


def test_a_fault_of_ours_is_not_a_regression(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("evalkit.verdict.gate.judge", fault)
    assert gate(files[0], "--baseline", files[1]) == 70


def test_update_makes_a_baseline_that_the_same_result_passes(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, _ = files
    target = tmp_path / "accuracy" / "baseline.json"
    assert gate(new, "--baseline", target, "--update") == 0
    assert gate(new, "--baseline", target) == 0
    text = target.read_text()
    for secret in ("/secret", "/models", "/cache", "scores.npz", '"/d"'):
        assert secret not in text
    capsys.readouterr()
    result().save(new)
    assert gate(new, "--baseline", target, "--update") == 0
    assert "tar@far=1e-04: 0.93 -> 0.95" in capsys.readouterr().out
    assert load_result(target).metric("tar@far=1e-04").value == 0.95


@pytest.mark.parametrize(
    "changes", [{"status": "partial"}, {"metrics": [tar(value=None)]}, {"metrics": ()}]
)
def test_no_gate_could_use_such_a_baseline(
    files: tuple[Path, Path], changes: dict[str, Any]
) -> None:
    new, old = files
    before = old.read_bytes()
    result().model_copy(update={}).save(new)
    Result.model_validate({**result().model_dump(), **changes}).save(new)
    assert gate(new, "--baseline", old, "--update") == 3
    assert old.read_bytes() == before


def test_a_trimmed_result_is_judged_as_the_whole_one() -> None:
    old, new = result(), result(tar(940))
    for rules in (policy(), policy(absolute=0.02)):
        whole, short = judge(new, old, rules), judge(new, trimmed(old), rules)
        assert short == whole


def test_a_figure_without_faces_may_be_in_a_baseline(tmp_path: Path) -> None:
    absent = {
        "name": "ap/easy",
        "figure": "ap",
        "value": None,
        "rule": "python",
        "flags": ["no_face_kept"],
    }
    assert update_baseline(result(absent, tar()), tmp_path / "b.json")


@pytest.mark.parametrize("name", ["default", "strict"])
def test_ready_policies_hold(name: str) -> None:
    rules = load_policy(name)
    assert outcome(result(), result(), rules) == ("pass", 0)
    assert outcome(result(tar(900)), result(), rules) == ("fail", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: []", "metrics must have at least 1, not 0"),
        ("metrics: [{name: a, absolut: 1}]", "unknown setting"),
        ("metrics: [{name: a, absolute: -1}]", "absolute"),
        ("metrics: [{name: a}, {name: a}]", "named twice"),
        ("- a", "must hold a mapping"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_wrong_policies_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_policy(str(path))
    with pytest.raises(InputError, match="one of: default, strict"):
        load_policy("../gates/default")


@pytest.fixture
def hostile() -> Verdict:
    name = "tar@far=" + HOSTILE
    data = {**DATA, "name": HOSTILE}
    bad = [Failure(name=HOSTILE, reason="x")]
    old = result(tar(name=name), dataset=data)
    new = result(tar(900, name=name), dataset=data, failures_to_enrol=bad)
    verdict = judge(new, old, Policy(metrics=(MetricPolicy(name="tar@*"),)))
    assert verdict.exit_code == 1
    return verdict


def test_hostile_names_stay_text_in_xml(hostile: Verdict) -> None:
    suite = ElementTree.fromstring(junit(hostile))[0]
    failures = [case.find("failure") for case in suite.iter("testcase")]
    assert sum(failure is not None for failure in failures) == 2
    assert not list(suite.iter("script"))
    assert any("<script>" in (failure.text or "") for failure in failures if failure is not None)


def test_hostile_names_stay_text_in_markdown(hostile: Verdict) -> None:
    text = markdown(hostile)
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(hostile.checks)
    unescaped = [row.replace("\\|", "").count("|") for row in rows]
    assert set(unescaped) == {7}
    for mark in ("](", "`x`", "*b*", "_i_"):
        assert mark not in text.replace("\\" + mark[0], "")


def test_hostile_names_start_no_command_in_the_log(hostile: Verdict) -> None:
    lines = workflow_commands("evalkit gate", hostile.checks)
    assert len(lines) == 2
    for line in lines:
        assert "\n" not in line
        assert line.startswith("::error title=evalkit gate%3A ")
        assert line.count("::") - line.split("::", 2)[2].count("::") == 2
    printed = describe(hostile)
    assert not any(line.startswith("::") for line in printed.splitlines())
    assert "\x1b" not in printed
    assert "\x00" not in printed


def test_a_verdict_with_hostile_names_is_written(
    hostile: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit.report.verdict import publish

    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    said: list[str] = []
    names = [tmp_path / name for name in ("v.json", "v.xml", "v.md")]
    publish(hostile, said.append, output=names[0], junit_file=names[1], markdown_file=names[2])
    assert json.loads(names[0].read_text())["outcome"] == "fail"
    assert all(line.encode() for line in said)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(InputError, match="GITHUB_STEP_SUMMARY names"):
        publish(hostile, said.append)


@pytest.mark.parametrize(("right", "expected"), [(95, "pass"), (93, "fail")])
def test_the_headline_of_any_task_is_judged(right: int, expected: str) -> None:
    def of(count: int) -> Result:
        values = {"name": "odd", "figure": "odd", "value": count / 100, "rule": "r"}
        return result({**values, "headline": True}, {**values, "name": "other"})

    rules = Policy.model_validate({"metrics": [{"name": "ap/*"}], "headline": {"absolute": 0.01}})
    verdict = judge(of(right), of(95), rules)
    assert verdict.outcome == expected
    assert [check.name for check in verdict.checks[-1:]] == ["odd"]


def test_a_headline_on_too_little_data_is_not_passed_over() -> None:
    few = {"name": "odd", "figure": "odd", "value": 0.9, "rule": "r"}
    few |= {"headline": True, "flags": ("too_few_false_accepts",)}
    whole = result(few, {**few, "name": "accuracy/odd", "headline": False, "flags": ()})
    policy = {"metrics": [{"name": "accuracy/*"}], "headline": {"absolute": 0.01}}
    verdict = judge(whole, whole, Policy.model_validate(policy))
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert outcomes["accuracy/odd"] == "pass"
    assert outcomes["odd"] == verdict.outcome == "cannot_judge"
    by_pattern = {**policy, "metrics": [{"name": "accuracy/*"}, {"name": "o*"}]}
    assert judge(whole, whole, Policy.model_validate(by_pattern)).outcome == "pass"


def test_the_file_of_a_verdict_has_the_protocol_too() -> None:
    verdict = judge(result(), result(), load_policy("default"))
    text = verdict.model_dump_json()
    assert [json.loads(text)[key] for key in ("task", "protocol")] == ["ijbc", "IJBC"]
    assert Verdict.model_validate_json(text) == verdict


@pytest.mark.parametrize(("task", "title"), [("ijbc", "IJB-C"), ("elsewhere", "ELSEWHERE")])
def test_a_verdict_has_the_title_of_its_task(task: str, title: str) -> None:
    verdict = judge(result(task=task), result(task=task), load_policy("default"))
    assert describe(verdict).startswith(f"{title} on d; ")
    assert f"{title} on d" in markdown(verdict)
    assert f'classname="evalkit.gate.{task.upper()}"'.encode() in junit(verdict)


def test_settings_that_choose_figures_are_no_difference() -> None:
    def of(task: str, **settings: object) -> Result:
        return result(task=task, settings={"flip": "sum", **settings})

    chosen = {"ijbc": ("far", "limit", "one_to_n", "intervals"), "lfw": ("far", "limit"),
              "pairs": ("fmr", "limit")}  # fmt: skip
    for task, names in chosen.items():
        for name in names:
            assert not mismatches(of(task, **{name: 1}), of(task, **{name: 2}))
        assert mismatches(of(task), of(task, flip="none"))
    (difference,) = mismatches(of("elsewhere", far=1), of("elsewhere", far=2))
    assert difference.what == "rules"

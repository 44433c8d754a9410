"""Results, baselines and policies of version 0.1 give the verdicts that they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from v1_files import FILES, figures, run, same, written

from evalkit.core.results import load_result

RESULTS = sorted(path.stem for path in (FILES / "results").glob("*.json"))
PAIRS = {
    "ijbc": ("ijbc-fp32", "ijbc-int8"),
    "lfw": ("lfw-fp32", "lfw-int8"),
    "widerface": ("widerface-fp32", "widerface-noisy"),
    "partial": ("ijbc-fp32", "ijbc-partial"),
}
FLIPS = ("genuine_lost", "genuine_gained", "impostors_let_in", "impostors_kept_out")
DRIFT = ("samples", "cosine_mean", "cosine_p1", "cosine_min")


@pytest.mark.parametrize("name", RESULTS)
def test_figures_are_read(name: str, files: Path, expected: dict[str, Any]) -> None:
    assert figures(f"results/{name}.json") == expected["results"][name]
    result = load_result(files / f"results/{name}.json")
    assert (result.status == "partial") == (name == "ijbc-partial")
    result.save(files / "again.json")
    assert load_result(files / "again.json") == result


@pytest.mark.parametrize("name", PAIRS)
def test_two_results_are_compared(name: str, files: Path, expected: dict[str, Any]) -> None:
    first, second = (f"results/{side}.json" for side in PAIRS[name])
    code = run("compare", first, second, "--output", "comparison.json")
    assert code == expected["exit codes"][f"compare {name}"]
    if code:
        return
    found = written("comparison.json")
    bounds = {m["name"]: m["interval"] or {} for m in found["metrics"]}
    told = {
        "metrics": {
            m["name"]: [
                m["difference"],
                *(bounds[m["name"]].get(k) for k in ("low", "high")),
                m["p_value"],
            ]
            if bounds[m["name"]]
            else [m["difference"], m["p_value"]]
            for m in found["metrics"]
        },
        "flips": {
            f"{f['metric']} {f['thresholds']}": [f[k] for k in FLIPS] for f in found["flips"]
        },
        "drift": {d["view"]: [d[k] for k in DRIFT] for d in found["drift"]},
    }
    assert told == same(expected["compare"][name])


@pytest.mark.parametrize("baseline", ["result", "baseline"])
@pytest.mark.parametrize("name", PAIRS)
def test_gates_judge_as_before(
    name: str, baseline: str, files: Path, expected: dict[str, Any]
) -> None:
    first, second = (f"results/{side}.json" for side in PAIRS[name])
    cases = {
        case: told
        for case, told in expected["gate"].items()
        if case.startswith(f"{name} {baseline} ")
    }
    assert cases or (name, baseline) == ("partial", "baseline")
    against = first if baseline == "result" else f"baselines/{name}.json"
    for case, told in cases.items():
        words = ["gate", second, "--baseline", against, "--policy", case.split()[-1]]
        assert run(*words, "--output", "verdict.json") == told["exit code"], case
        checks = {check["name"]: _numbers(check) for check in written("verdict.json")["checks"]}
        assert checks == told["checks"], case


def _numbers(check: dict[str, Any]) -> list[Any]:
    numbers = [check[name] for name in ("baseline", "candidate", "limit")]
    return [check["outcome"], *(numbers if numbers != [None] * 3 else [])]


def test_a_baseline_is_replaced(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gate", "results/ijbc-int8.json", "--baseline", "baselines/ijbc.json"]
    assert run(*words, "--update") == 0
    assert "tar@far=2e-01: 0.8" in capsys.readouterr().out
    assert run(*words, "--policy", "strict") == 0


def test_a_page_is_made_of_results(files: Path) -> None:
    paths = [
        f"results/{side}.json" for pair in ("ijbc", "lfw", "widerface") for side in PAIRS[pair]
    ]
    baselines = [word for path in paths[::2] for word in ("--baseline", path)]
    assert run("report", *paths, *baselines, "--out", "page.html") == 0
    page = (files / "page.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("tar@far=1e-02", "ap/hard"))

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
    comparison = written("comparison.json")
    metrics = {m["name"]: m for m in comparison["metrics"]}
    before = same(expected["compare"][name])
    for metric, row in before["metrics"].items():
        change = metrics[metric]
        interval = change["interval"]
        if interval is None or len(row) == 2:
            assert [change["difference"], change["p_value"] if interval is None else None] == row
        else:
            ends = interval["low"], interval["high"]
            assert [change["difference"], *ends, change["p_value"]] == row
    flips = {f"{f['metric']} {f['thresholds']}": [f[k] for k in FLIPS] for f in comparison["flips"]}
    assert {place: flips[place] for place in before["flips"]} == before["flips"]
    assert {d["view"]: [d[k] for k in DRIFT] for d in comparison["drift"]} == before["drift"]
    # Version 0.1 gave no rates, flips or intervals of these.
    more = [metrics[metric] for metric in metrics.keys() - before["metrics"].keys()]
    more_flips = flips.keys() - before["flips"].keys()
    with_interval = {metric for metric, row in before["metrics"].items() if len(row) == 4}
    first_intervals = {m for m in before["metrics"] if metrics[m]["interval"]} - with_interval
    assert all(change["rule"] == "baseline_threshold" for change in more)
    assert all(place.startswith(("tar@", "val@")) for place in more_flips)
    assert all(metric.endswith("/no-flip") for metric in first_intervals)
    assert bool(more or more_flips or first_intervals) == (name == "lfw")


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

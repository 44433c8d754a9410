"""``evalkit compare`` end to end: figures recomputed by hand, refusals, hostile names."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli import main
from evalkit.core.errors import CannotJudgeError, InputError
from evalkit.core.results import load_result
from evalkit.core.store import Store
from evalkit.protocols.folds import assign_folds
from evalkit.report.compare import describe
from evalkit.stats.subjects import SubjectBootstrap, percentile_interval, tar_intervals
from evalkit.verdict.compare import Comparison, compare, compare_sides
from evalkit.verdict.paired import Side

Run = Callable[..., Path]
Network = Callable[[float], Path]


def scores(path: Path) -> dict[str, Any]:
    with np.load(path.with_name(f"{path.stem}.scores.npz"), allow_pickle=False) as data:
        return dict(data)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def two(ijbc: Run, network: Network) -> tuple[Path, Path]:
    return tuple(ijbc(f"n{noise}", "--model", network(noise)) for noise in (0.0, 1.0))


def test_template_figures_are_those_of_the_scores(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "difference.json"
    assert main(["compare", *map(str, two), "--output", str(target)]) == 0
    comparison = Comparison.model_validate_json(target.read_text())
    before, after = map(load_result, two)
    old, new = map(scores, two)
    bootstrap = SubjectBootstrap(
        old["pairs"], old["genuine"], old["template_id"], old["subject_id"]
    )
    targets = [0.01, 0.1, 0.2]
    replicates = bootstrap.tar(new["scores"], targets) - bootstrap.tar(old["scores"], targets)
    expected = [percentile_interval(row) for row in replicates]
    for metric, interval in zip(before.metrics, expected, strict=True):
        change = next(c for c in comparison.metrics if c.name == metric.name)
        assert change.difference == after.metric(metric.name).value - metric.value
        assert change.interval is not None
        assert interval is not None
        assert (change.interval.low, change.interval.high) == (interval.low, interval.high)
        for flips in comparison.flips:
            if flips.metric == metric.name:
                own = metric if flips.thresholds == "baseline" else after.metric(metric.name)
                counts = dict.fromkeys(["lost", "gained", "in", "out"], 0)
                for s, t, same in zip(old["scores"], new["scores"], old["genuine"], strict=True):
                    was, now = s >= metric.at["similarity"], t >= own.at["similarity"]
                    if was != now:
                        word = ("lost" if was else "gained") if same else ("in", "out")[int(was)]
                        counts[word] += 1
                assert list(counts.values()) == [
                    flips.genuine_lost, flips.genuine_gained,
                    flips.impostors_let_in, flips.impostors_kept_out,
                ]  # fmt: skip
    assert any(flips.examples for flips in comparison.flips)
    printed = capsys.readouterr().out
    assert "model sha256" in printed
    assert "lowest cosines" in printed
    assert str(target) in printed


def test_a_run_has_intervals_of_its_own(ijbc: Run, network: Network) -> None:
    path = ijbc("with", "--model", network(0.5))
    result, arrays = load_result(path), scores(path)
    bootstrap = SubjectBootstrap(
        arrays["pairs"], arrays["genuine"], arrays["template_id"], arrays["subject_id"]
    )
    expected = tar_intervals(bootstrap, arrays["scores"], [0.01, 0.1, 0.2])
    for metric, interval in zip(result.metrics, expected, strict=True):
        assert metric.interval is not None
        assert interval is not None
        assert (metric.interval.low, metric.interval.high) == (interval.low, interval.high)
        assert metric.interval.low <= metric.value <= metric.interval.high
        assert "subject bootstrap, 2000 draws, seed 0" in metric.interval.method
    assert result.settings["intervals"] is True
    for option in ("--no-intervals", "--rule=interpolated"):
        other = load_result(ijbc("without", "--model", network(0.5), option))
        assert all(metric.interval is None for metric in other.metrics)
        assert [m.counts for m in other.metrics] == [m.counts for m in result.metrics]


def test_draws_at_hand_are_used(two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = scores(two[0])
    draws = SubjectBootstrap(
        arrays["pairs"],
        arrays["genuine"],
        arrays["template_id"],
        arrays["subject_id"],
        replicates=200,
    )
    monkeypatch.setattr(SubjectBootstrap, "__init__", None)
    comparison = compare_sides(*map(Side, two), {"": draws})
    intervals = [change.interval for change in comparison.metrics]
    assert intervals
    assert {interval and interval.method for interval in intervals} == {
        "subject bootstrap, 200 draws, seed 0, percentile, paired"
    }


def test_the_carried_threshold_gives_rates_of_both(two: tuple[Path, Path]) -> None:
    comparison = compare(*two)
    old, new = map(scores, two)
    threshold = load_result(two[0]).metric("tar@far=1e-01").at["similarity"]
    for rate, rows in (("far", ~old["genuine"]), ("tar", old["genuine"])):
        change = next(
            c for c in comparison.metrics if c.name == f"{rate}@baseline-threshold-of-far=1e-01"
        )
        assert change.baseline == np.mean(old["scores"][rows] >= threshold)
        assert change.candidate == np.mean(new["scores"][rows] >= threshold)
        assert change.interval is not None
        assert change.interval.low <= change.difference <= change.interval.high


def test_drift_is_that_of_the_stores_and_names_the_worst(two: tuple[Path, Path]) -> None:
    comparison = compare(*two)
    assert [drift.view for drift in comparison.drift] == ["embeddings", "flipped"]
    for drift in comparison.drift:
        rows = []
        for path in two:
            store = Store.open(Path(load_result(path).store or ""))
            parts = [shard.outputs[drift.view] for _, shard in store.shards()]
            rows.append(np.concatenate(parts).astype(float))
        a, b = rows
        cosines = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
        assert drift.cosine_mean == pytest.approx(cosines.mean(), abs=1e-12)
        assert drift.cosine_p1 == pytest.approx(np.percentile(cosines, 1), abs=1e-12)
        assert drift.cosine_min == pytest.approx(cosines.min(), abs=1e-12)
        assert drift.worst[0].name == f"{cosines.argmin()}.png"
        assert drift.samples == len(a)


def test_a_run_against_itself_differs_in_nothing(two: tuple[Path, Path]) -> None:
    comparison = compare(two[0], two[0])
    assert comparison.differs == {}
    assert all(change.difference == 0 for change in comparison.metrics)
    assert not any(flips.examples for flips in comparison.flips)
    assert all(drift.largest_absolute == drift.atol_needed == 0 for drift in comparison.drift)


def test_pair_figures_are_those_of_the_distances(lfw: Run) -> None:
    paths = lfw("a", 0.0), lfw("b", 0.5)
    comparison = compare(*paths)
    issame = scores(paths[0])["issame"]
    fold, _, _ = assign_folds(issame, "contiguous")
    for rule in ("insightface", "exact"):
        name = f"accuracy/{rule}"
        right = []
        for path in paths:
            thresholds = np.array(load_result(path).metric(name).series["fold_distance"])
            right.append((scores(path)["distances"] < thresholds[fold]) == issame)
        change = next(c for c in comparison.metrics if c.name == name)
        assert change.difference == pytest.approx(right[1].mean() - right[0].mean(), abs=1e-12)
        lost, gained = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
        few = sum(math.comb(lost + gained, k) for k in range(min(lost, gained) + 1))
        assert change.p_value == pytest.approx(min(1, 2 * few / 2 ** (lost + gained)))
        assert change.interval is not None
        assert "pair-level" in change.interval.method
        assert change.interval.low <= change.difference <= change.interval.high
        flips = next(f for f in comparison.flips if f.metric == name)
        total = flips.genuine_lost + flips.genuine_gained
        assert total + flips.impostors_let_in + flips.impostors_kept_out == lost + gained
    for name in ("auc", "eer", "tar@far=1e-03", "val@far=1e-03"):
        change = next(c for c in comparison.metrics if c.name == name)
        assert change.interval is not None, name
        assert change.interval.low <= change.interval.high
    assert any("no outputs store" in note for note in comparison.notes)


REFUSALS: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("data", lambda r: r["dataset"].update(sha256="0" * 64)),
    ("data", lambda r: r["dataset"].update(content_sha256="0" * 64)),
    ("protocol", lambda r: r.update(task="ijbb")),
    ("sample counts", lambda r: r["dataset"]["counts"].update(genuine=1)),
    ("sample counts", lambda r: r["metrics"][0]["counts"].update(impostors=1)),
    ("rules", lambda r: r["settings"].update(flip="none")),
    ("rules", lambda r: r["metrics"][0].update(rule="interpolated")),
]


@pytest.mark.parametrize(("what", "change"), REFUSALS)
def test_other_data_rules_or_counts_are_refused(
    two: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    what: str,
    change: Callable[[dict[str, Any]], None],
) -> None:
    edit(two[1], change)
    assert main(["compare", *map(str, two)]) == 3
    assert f"\n  {what}: " in capsys.readouterr().err


def test_settings_that_move_no_figure_are_no_reason_to_refuse(
    two: tuple[Path, Path],
) -> None:
    edit(two[1], lambda r: r["settings"].update(intervals=False, far=[0.1], one_to_n=True))
    compare(*two)


@pytest.mark.parametrize("array", ["pairs", "genuine", "subject_id"])
def test_other_pairs_are_refused(two: tuple[Path, Path], array: str) -> None:
    arrays = scores(two[1])
    arrays[array] = arrays[array][::-1]
    np.savez(two[1].with_name(f"{two[1].stem}.scores.npz"), **arrays)
    with pytest.raises(CannotJudgeError, match=f"different pairs: their {array}"):
        compare(*two)


@pytest.mark.parametrize("damage", ["remove", "garbage", "array", "pickle"])
def test_damaged_scores_are_an_input_error(two: tuple[Path, Path], damage: str) -> None:
    path = two[1].with_name(f"{two[1].stem}.scores.npz")
    if damage == "remove":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(path.read_bytes()[:100])
    else:
        arrays = scores(two[1])
        arrays["pairs" if damage == "array" else "scores"] = np.array([{}], dtype=object)
        if damage == "array":
            del arrays["pairs"]
        np.savez(path, **arrays)
    with pytest.raises(InputError, match="Make the result again"):
        compare(*two)


def test_distances_of_another_run_are_noticed(lfw: Run) -> None:
    a, b = lfw("a", 0.0), lfw("b", 1.5)
    b.with_name("b.scores.npz").write_bytes(a.with_name("a.scores.npz").read_bytes())
    with pytest.raises(InputError, match="do not belong together"):
        compare(a, b)


def test_a_path_in_a_result_leads_nowhere_else(two: tuple[Path, Path], tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere" / "x.npz"
    secret.parent.mkdir()
    np.savez(secret, **scores(two[1]))
    edit(two[1], lambda r: r.update(scores_file=str(secret)))
    with pytest.raises(InputError, match="Cannot read the scores"):
        compare(*two)


def test_hostile_names_of_samples_stay_in_their_line(two: tuple[Path, Path]) -> None:
    store = Store.open(Path(load_result(two[0]).store or ""))
    store.write_names(["\x1b[31m\n::error::\udcff"] * store.samples)
    comparison = compare(*two)
    Comparison.model_validate_json(comparison.model_dump_json())
    printed = describe(comparison)
    printed.encode()
    assert "\x1b" not in printed
    assert not any(line.startswith("::") for line in printed.splitlines())


def test_what_has_no_interval_is_said(ijbc: Run, network: Network) -> None:
    options = "--model", network(0.5), "--rule", "interpolated"
    comparison = compare(ijbc("a", *options), ijbc("b", *options))
    assert "no paired interval of tar@far=1e-02, tar@far=1e-01, tar@far=2e-01" in comparison.notes
    assert all(c.interval is not None for c in comparison.metrics if c.rule == "baseline_threshold")


def test_a_baseline_is_not_called_computed_elsewhere(two: tuple[Path, Path]) -> None:
    baseline = two[0].with_name("baseline.json")
    assert main(["gate", str(two[0]), "--baseline", str(baseline), "--update"]) == 0
    (note,) = (note for note in compare(baseline, two[1]).notes if "drift" in note)
    assert "a baseline keeps no outputs store" in note


@pytest.mark.parametrize("case", ["gone", "of another model", "changed images"])
def test_drift_that_cannot_be_measured_is_a_note(two: tuple[Path, Path], case: str) -> None:
    folder = Path(load_result(two[1]).store or "")
    shard = folder / "shard-000000000.npz"
    with np.load(shard) as data:
        arrays = dict(data)
    if case == "gone":
        edit(two[1], lambda r: r.update(store=None))
    elif case == "of another model":
        arrays["embeddings"] = arrays["embeddings"][:, :7]
    else:
        arrays["digests"] = arrays["digests"] + np.uint8(1)
    np.savez(shard, **arrays)
    comparison = compare(*two)
    assert comparison.drift == ()
    assert any("embedding drift was not measured" in note for note in comparison.notes)


def test_failures_to_enrol_are_counted_and_lose_their_pairs(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = scores(two[1])
    arrays["scores"] = np.where((arrays["pairs"] == 3).any(axis=1), np.nan, arrays["scores"])
    np.savez(two[1].with_name(f"{two[1].stem}.scores.npz"), **arrays)
    with pytest.raises(InputError, match="do not belong together"):
        compare(*two)

    def recount(result: dict[str, Any]) -> None:
        for metric in result["metrics"]:
            accepted = (arrays["scores"] >= metric["at"]["similarity"]) & arrays["genuine"]
            metric["counts"]["true_accepts"] = int(accepted.sum())

    edit(two[1], recount)
    comparison = compare(*two)
    lost = next(f for f in comparison.flips if f.thresholds == "baseline" and "1e-01" in f.metric)
    assert lost.genuine_lost > 0
    assert any(pair.candidate is None for pair in lost.examples)


def test_the_table_tells_units_and_what_has_no_width(two: tuple[Path, Path]) -> None:
    comparison = compare(*two)
    lines = describe(comparison).splitlines()
    assert any(line.endswith("intervals two-sided, over subjects") for line in lines)
    first = comparison.metrics[0]
    narrow = first.model_copy(
        update={"interval": first.interval.model_copy(update={"low": 0.0, "high": 0.0})}
    )
    fine = first.model_copy(
        update={"interval": first.interval.model_copy(update={"low": -1e-6, "high": 2e-6})}
    )
    shown = describe(comparison.model_copy(update={"metrics": (narrow, fine)}))
    assert "no width: the figure changed in no draw" in shown
    assert "-0.0001..+0.0002" in shown
    pairs = describe(comparison.model_copy(update={"task": "lfw"}))
    assert "over pairs as if independent" in pairs


def test_files_of_one_name_are_told_apart_by_their_folders(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = [tmp_path / name / "result.json" for name in ("fp32", "int8")]
    for file, target in zip(two, moved, strict=True):
        target.parent.mkdir()
        shutil.copy(file, target)
        shutil.copy(
            file.with_name(f"{file.stem}.scores.npz"), target.with_name(f"{file.stem}.scores.npz")
        )
    comparison = compare(*moved)
    assert comparison.baseline.startswith("fp32/result.json: ")
    assert comparison.candidate.startswith("int8/result.json: ")
    assert compare(*two).baseline.startswith(f"{two[0].name}: ")

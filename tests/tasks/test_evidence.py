"""What lies beside results becomes evidence: of the same files, and only of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Command

from evalkit.core.errors import InputError
from evalkit.core.results import Metric, Result, load_result
from evalkit.protocols.folds import val_at_far
from evalkit.tasks.ijb.evidence import read as read_ijb
from evalkit.tasks.lfw.evidence import read as read_lfw
from evalkit.tasks.widerface.evidence import read as read_widerface

Arrays = dict[str, Any]


def result_of(evalkit: Command, path: Path, *words: object) -> tuple[Result, Arrays]:
    assert evalkit(*words, "--quiet", "--output", path) == 0
    with np.load(path.with_name(f"{path.stem}.scores.npz"), allow_pickle=False) as data:
        return load_result(path), dict(data)


def changed(metric: Metric, **values: Any) -> Metric:
    return metric.model_copy(update=values)


def test_ijb_gives_its_own_counts_and_targets(
    evalkit: Command, tmp_path: Path, tiny_ijbc: Path
) -> None:
    result, arrays = result_of(evalkit, tmp_path / "r.json", "ijbc", "--data", tiny_ijbc)
    evidence = read_ijb(arrays, result)[""]
    assert len(evidence.targets) == 6
    for metric in result.metrics:
        decisions = evidence.decisions(metric, metric)
        assert decisions is not None
        accepted = decisions.accepted
        assert np.count_nonzero(accepted & ~decisions.genuine) == metric.counts["false_accepts"]
        assert np.count_nonzero(accepted & decisions.genuine) == metric.counts["true_accepts"]
    for name in arrays:
        with pytest.raises(InputError, match=f"no array {name}"):
            read_ijb({key: value for key, value in arrays.items() if key != name}, result)
    with pytest.raises(InputError, match="damaged"):
        read_ijb({**arrays, "scores": arrays["scores"][1:]}, result)


def test_lfw_decides_by_distances_at_its_folds(
    evalkit: Command, tmp_path: Path, tiny_lfw: Path
) -> None:
    rules = "--rules", "insightface,exact,facexzoo"
    result, arrays = result_of(evalkit, tmp_path / "r.json", "lfw", "--data", tiny_lfw, *rules)
    views = read_lfw(arrays, result)
    assert list(views) == ["flip", "no flip"]
    genuine = arrays["issame"].astype(bool)
    for metric in result.metrics:
        evidence = views[metric.view]
        decisions = evidence.decisions(metric, metric)
        if metric.figure not in {"accuracy", "val", "tar"} or metric.rule == "facexzoo":
            assert decisions is None
            continue
        assert decisions is not None
        if metric.figure == "accuracy":
            cuts = np.array(metric.series["fold_distance"])[evidence.fold]
            np.testing.assert_array_equal(decisions.accepted, evidence.distances < cuts)
            assert np.count_nonzero(decisions.right) == metric.counts["correct"]
            wrong = changed(metric, counts={**metric.counts, "correct": 1})
            with pytest.raises(InputError, match="do not belong together"):
                evidence.decisions(wrong, wrong)
        rates = evidence.rates(metric)
        assert rates is not None
        assert (rates.similarity is None) == (metric.figure != "tar")
        assert rates.fmr == decisions.accepted[~genuine].mean()
        assert rates.fnmr == (~decisions.accepted[genuine]).mean()


def test_lfw_draws_pairs_within_folds(evalkit: Command, tmp_path: Path, tiny_lfw: Path) -> None:
    result, arrays = result_of(evalkit, tmp_path / "r.json", "lfw", "--data", tiny_lfw)
    evidence = read_lfw(arrays, result)["flip"]
    draws = evidence.draw(5)
    metric = result.metric("val@far=1e-03")
    expected = [
        val_at_far(evidence.distances[rows], evidence.genuine[rows], evidence.fold[rows], 1e-3).val
        for rows in draws
    ]
    np.testing.assert_array_equal(evidence.replicates(metric, draws), expected)
    for rows in draws:
        for fold in range(10):
            drawn, own = evidence.fold[rows] == fold, evidence.fold == fold
            assert evidence.genuine[rows][drawn].sum() == evidence.genuine[own].sum()
    assert evidence.replicates(result.metric("xnorm"), draws) is None
    assert evidence.replicates(result.metric("accuracy/exact"), draws) is None


def test_lfw_without_mirror_images_has_one_view(
    evalkit: Command, tmp_path: Path, tiny_lfw: Path
) -> None:
    words = "lfw", "--data", tiny_lfw, "--no-flip"
    result, arrays = result_of(evalkit, tmp_path / "r.json", *words)
    assert list(read_lfw(arrays, result)) == ["no flip"]
    assert {metric.view for metric in result.metrics} == {"no flip"}
    for name in ("distances", "issame"):
        with pytest.raises(InputError, match=f"no array {name}"):
            read_lfw({key: value for key, value in arrays.items() if key != name}, result)


def test_widerface_counts_give_the_ap_of_their_result(
    evalkit: Command, tmp_path: Path, tiny_wider: Path
) -> None:
    result, arrays = result_of(evalkit, tmp_path / "r.json", "widerface", "--data", tiny_wider)
    evidence = read_widerface(arrays, result)[""]
    metric = result.metric("ap/hard")
    assert evidence.weights(metric).sum() == metric.counts["faces"]
    assert evidence.decisions(metric, metric) is None
    assert evidence.rates(metric) is None
    wrong = tuple(
        changed(m, value=(m.value or 0) + 0.01) if m.name == "ap/hard" else m
        for m in result.metrics
    )
    with pytest.raises(InputError, match=r"do not give its ap/hard\. .*belong together"):
        read_widerface(arrays, result.model_copy(update={"metrics": wrong}))
    with pytest.raises(InputError, match="damaged: there is no array faces"):
        read_widerface({name: v for name, v in arrays.items() if name != "faces"}, result)

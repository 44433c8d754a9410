"""Results, speed measurements and a sign-off's record as files, made without any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evalkit.bench import BenchResult
from evalkit.core.results import Result
from evalkit.stats.matches import ImageCounts, weighted_ap
from evalkit.verdict.plan import Plan
from evalkit.verdict.signoff.record import Signoff

HOSTILE = "<img src=x onerror=document.title='owned'></script><script>document.title='owned'//"
"""A name that becomes script wherever it is not escaped."""

LEVEL = {"level": 0.95}


def ran(backend: str, precision: str) -> dict[str, Any]:
    return {
        "backend": backend,
        "version": "1.0",
        "device": "cpu",
        "precision_requested": precision,
        "precision_ran": precision,
        "threads": 2,
        "batch_size": 32,
        "details": {"kernels": {precision: 3}},
        "notes": [],
    }


def result(protocol: str, backend: str, precision: str, **other: Any) -> Result:
    given = {
        "schema_version": 1,
        "evalkit_version": "0.1.0",
        "protocol": protocol,
        "status": "complete",
        "started": "2026-01-02T03:04:05+00:00",
        "command": "evalkit lfw",
        "dataset": {
            "name": "a set",
            "sha256": "d" * 64,
            "content_sha256": "c" * 64,
            "counts": {"pairs": 600},
            "path": "nowhere",
        },
        "model": {"name": "net", "file": "net.onnx", "sha256": "a" * 64, "preprocessing": {}},
        "ran": ran(backend, precision),
        "settings": {"folds": "contiguous", "flip": "none"},
        "metrics": [],
        "failures_to_enrol": [],
        "stages": [{"name": "inference", "seconds": 2.5, "items": 1200}],
        "wall_seconds": 3.0,
        "throughput": 480.0,
        "peak_memory_mb": 300.0,
        "scores_file": None,
        "warnings": [],
        "environment": {"cpu": "a processor", "cores": 2},
    }
    return Result.model_validate({**given, **other})


def distances(loss: float) -> dict[str, Any]:
    """Squared distances of 200 genuine and 400 impostor pairs; one side failed to enrol."""
    rng = np.random.default_rng(3)
    issame = np.arange(600) < 200
    cosine = np.where(issame, rng.normal(0.7, 0.1, 600), rng.normal(0.1, 0.12, 600))
    cosine -= loss * issame * rng.random(600)
    squared = 2 - 2 * cosine.clip(-1, 1)
    squared[7] = np.inf
    return {"distances": squared, "issame": issame}


def pair_metrics(scores: dict[str, Any]) -> list[dict[str, Any]]:
    same = scores["issame"]
    called = scores["distances"] < 1.2
    right = int(np.count_nonzero(called == same))
    accepted, wrong = int(called[same].sum()), int(called[~same].sum())
    return [
        {
            "name": "accuracy/exact",
            "value": right / 600,
            "rule": "exact",
            "counts": {"correct": right, "pairs": 600},
            "at": {"threshold": 1.2, "cosine_threshold": 0.4},
            "series": {"fold_threshold": [1.2] * 10},
            "interval": {"low": right / 600 - 0.02, "high": 1.0, "method": "wilson", **LEVEL},
        },
        {
            "name": "tar@far=1e-01",
            "value": accepted / 200,
            "rule": "at_most",
            "counts": {
                "true_accepts": accepted,
                "same": 200,
                "false_accepts": wrong,
                "different": 400,
            },
            "at": {
                "target": 0.1,
                "far": wrong / 400,
                "cosine_threshold": 0.4,
                "threshold": 1.2,
            },
        },
    ]


def pairs_result(
    path: Path, backend: str, precision: str, loss: float = 0.0, **other: Any
) -> Result:
    """Write a result of pairs with its scores."""
    scores = distances(loss)
    made = result("LFW", backend, precision, metrics=pair_metrics(scores), **other)
    return made.save(path, scores)


def detector_result(path: Path, backend: str, precision: str) -> Result:
    """Write a result of a detector with counts of two images at four steps."""
    counts = {
        "subsets": np.array(["easy", "hard"]),
        "steps": np.array(4),
        "faces": np.array([[3, 2], [5, 4]]),
        "cell_offsets": np.array([0, 3, 5]),
        "cell_step": np.array([0, 1, 3, 0, 2]),
        "cell_proposals": np.array([[1, 1, 2, 1, 1], [2, 1, 3, 2, 2]]),
        "cell_recalled": np.array([[1, 1, 0, 1, 0], [2, 1, 1, 2, 1]]),
    }
    aps = weighted_ap(ImageCounts.from_arrays(counts), np.ones((1, 2)))[:, 0]
    interval = {"low": 0.6, "high": 0.8, "method": "image bootstrap", **LEVEL}
    metrics = [
        {
            "name": f"ap/{subset}",
            "value": value,
            "rule": "python",
            "interval": interval,
            "counts": {"faces": 5, "recalled": 4, "proposals": 9},
        }
        for subset, value in zip(counts["subsets"].tolist(), aps.tolist(), strict=True)
    ]
    made = result("WIDERFACE", backend, precision, metrics=metrics)
    return made.save(path, counts)


def write_bench(path: Path) -> BenchResult:
    """Write a speed measurement of two modes at three batch sizes, and of one that cannot run."""
    timings: list[dict[str, Any]] = []
    for precision, speed in (("fp32", 100.0), ("int8", 210.0)):
        for batch in (1, 8, 32):
            asked = {"backend": "onnxruntime", "precision": precision, "batch_size": batch}
            timings.append(
                {
                    **asked,
                    "threads": 2,
                    "device": "cpu",
                    "ran": ran("onnxruntime", precision),
                    "model": {"name": "net", "file": "n", "sha256": "a" * 64, "preprocessing": {}},
                    "images_per_second": {"median": speed, "low": speed - 9, "high": speed + 9},
                    "latency_ms": {"p50": 9.0 * batch, "p90": 10.0 * batch, "p99": 12.0 * batch},
                    "runs": 120,
                    "open_seconds": 0.1,
                    "memory_mb": 20.0,
                    "model_mb": 2.5,
                }
            )
    timings.append(
        {
            "backend": "openvino",
            "precision": "fp16",
            "batch_size": 1,
            "threads": None,
            "device": "cpu",
            "problem": f"not here {HOSTILE}",
        }
    )
    made = BenchResult.model_validate_json(
        BenchResult(
            evalkit_version="0.1.0",
            started="2026-01-02",
            command="evalkit bench",
            model="net",
            repeats=5,
            seconds=1.0,
            timings=(),
            environment={},
        )
        .model_copy(update={"timings": timings})
        .model_dump_json(warnings=False)
    )
    made.save(path)
    return made


def make_record(folder: Path, name: str = "release 1.4") -> Signoff:
    plan = Plan.model_validate(
        {
            "name": name,
            "models": {"recognition": "net.onnx"},
            "protocols": [
                {
                    "name": "pairs",
                    "kind": "lfw",
                    "data": "set.bin",
                    "primary": "accuracy/exact",
                    "margin": {"points": 2},
                    "limits": {"drift_cosine_p1": 0.95},
                }
            ],
            "matrix": {"backends": ["onnxruntime"], "precisions": ["fp32", "fp16", "int8"]},
            "reference": "onnxruntime",
        }
    )
    cells = []
    for precision, loss, outcome in _CELLS:
        path = folder / f"{precision}.json"
        held = pairs_result(path, "onnxruntime", precision, loss)
        cells.append(_cell(held, path.name, precision, outcome))
    return Signoff.model_validate_json(
        Signoff(
            evalkit_version="0.1.0",
            name=name,
            outcome="fail",
            exit_code=1,
            reason="failed: pairs/onnxruntime:int8",
            started="2026-01-02T03:04:05+00:00",
            finished="2026-01-02T04:04:05+00:00",
            command="evalkit signoff plan.yaml",
            plan=plan,
            plans=(),
            protocols=(),
            cells=(),
            environment={},
        )
        .model_copy(
            update={
                "cells": cells,
                "plans": [{"sha256": "e" * 64, "started": "2026-01-02", "changes": []}],
                "protocols": [
                    {
                        "name": "pairs",
                        "kind": "lfw",
                        "primary": "accuracy/exact",
                        "margin": "2 points",
                        "dataset": None,
                    }
                ],
            }
        )
        .model_dump_json(warnings=False)
    )


_CELLS = (("fp32", 0.0, "reference"), ("fp16", 0.001, "pass"), ("int8", 0.8, "fail"))


def _cell(held: Result, file: str, precision: str, outcome: str) -> dict[str, Any]:
    change = {"reference": 0.0, "pass": -0.001, "fail": -0.3}[outcome]
    test = {
        "metric": "accuracy/exact",
        "unit": "pairs",
        "units": 600,
        "method": "Tango",
        "reference": 0.98,
        "candidate": 0.98 + change,
        "difference": change,
        "low": change - 0.01,
        "high": change + 0.01,
        "level": 0.95,
        "margin": 0.02,
        "detectable": 0.01,
        "outcome": outcome,
        "reason": f"{outcome} {HOSTILE}",
    }
    limit = {
        "name": "drift cosine p1",
        "value": 0.19 if outcome == "fail" else 0.999,
        "limit": 0.95,
        "outcome": "fail" if outcome == "fail" else "pass",
        "message": "1 % of the images moved",
    }
    judged = outcome != "reference"
    return {
        "protocol": "pairs",
        "backend": "onnxruntime",
        "precision": precision,
        "optional": False,
        "outcome": outcome,
        "reason": f"because {HOSTILE}",
        "run": {
            "result": file,
            "model_bytes": 2_000_000 if precision == "fp32" else 600_000,
            "seconds": 3.0,
            **{
                name: getattr(held, name)
                for name in (
                    *("model", "ran", "metrics", "failures_to_enrol", "stages", "throughput"),
                    *("peak_memory_mb", "warnings"),
                )
            },
        },
        "test": test if judged else None,
        "limits": [limit] if judged else [],
    }

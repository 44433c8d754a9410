"""Write the files of this folder with the version of evalkit that is in the current folder.

usage: python make_files.py FOLDER

Everything is synthetic and made from fixed seeds: images of coloured patches, networks of one or
two layers. Absolute paths are cut from what evalkit wrote, so that the files hold anywhere: run
commands on them from inside FOLDER.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from make_data import (
    CELL,
    GRID,
    SIDE,
    write_models,
    write_pairs,
    write_plans,
    write_policies,
    write_ready,
    write_release,
    write_wider,
)

FAR = ["--far", "0.01,0.1,0.2"]
CODE = Path.cwd()


def run(*words: object) -> int:
    """Run a command of the current version in the folder of the files."""
    ours = {"PYTHONPATH": str(CODE), "EVALKIT_CACHE": "cache", "OMP_NUM_THREADS": "1"}
    variables = {**os.environ, **ours}
    line = [sys.executable, "-m", "evalkit", *map(str, words)]
    done = subprocess.run(line, check=False, env=variables, capture_output=True, text=True)
    if done.returncode not in {0, 1, 3}:
        raise RuntimeError(f"{' '.join(line)}: {done.returncode}: {done.stderr}")
    return done.returncode


RUNS: dict[str, tuple[str, str]] = {}
"""Results by name: the command, and the store that it fills; empty for ready-made input."""

for _precision in ("fp32", "int8"):
    _ijb = f"ijbc --data data/IJBC --model models/embed.yaml --precision {_precision} --one-to-n"
    RUNS[f"ijbc-{_precision}"] = (_ijb, f"ijbc-{_precision}")
    _lfw = f"lfw --data data/pairs.bin --model models/embed.yaml --precision {_precision}"
    RUNS[f"lfw-{_precision}"] = (f"{_lfw} --rules insightface,exact,facexzoo", f"lfw-{_precision}")
for _name, _model in (("fp32", "detect"), ("noisy", "detect-noisy")):
    RUNS[f"widerface-{_name}"] = (
        f"widerface --data data/WIDER --model models/{_model}.yaml --score-threshold 0.4",
        f"widerface-{_name}",
    )
RUNS["ijbc-partial"] = ("ijbc --data data/IJBC --model models/embed.yaml --limit 20", "partial")
RUNS["ijbb-features"] = ("ijbb --data data/IJBB --features ready/features.npy --flip none", "")
RUNS["lfw-embeddings"] = (
    "lfw --data data/pairs.bin --embeddings ready/embeddings.npy --folds interleaved",
    "",
)
RUNS["widerface-predictions"] = (
    "widerface --data data/WIDER --predictions ready/predictions.json --rule matlab",
    "",
)


def result_words(name: str) -> list[str]:
    """Return the command of a result, without where it is written."""
    command, store = RUNS[name]
    far = [] if command.startswith("widerface") else FAR
    where = ["--outputs-dir", f"stores/{store}"] if store else []
    return [*command.split(), *far, *where, "--quiet"]


def write_device() -> None:
    """Dump the pairs and the images, and run them as a board would: it knows nothing of evalkit."""
    lfw = "dump lfw --data data/pairs.bin --model models/embed.yaml --limit 24 --out dump/lfw"
    wider = "dump widerface --data data/WIDER --model models/detect.yaml --events 1--Handshaking"
    run(*lfw.split(), "--format", "bin", "--quiet")
    run(*wider.split(), "--out", "dump/widerface", "--format", "bin", "--quiet")
    for name, model, side in (("lfw", "embed", SIDE), ("widerface", "detect", GRID * CELL)):
        folder = Path(f"device/{name}")
        folder.mkdir(parents=True)
        session = ort.InferenceSession(f"models/{model}.onnx", providers=["CPUExecutionProvider"])
        rows = []
        for line in Path(f"dump/{name}/inputs.info").read_text().splitlines():
            file = Path(f"dump/{name}") / line.split()[1]
            tensor = np.fromfile(file, np.float32).reshape(-1, 3, side, side)
            values = session.run(None, {"x": tensor})
            rows.append(values[0][0])
            if name == "widerface":
                for number, value in enumerate(values):
                    np.save(folder / f"{file.stem}_{number}.npy", value)
        if name == "lfw":
            np.save(folder / "all.npy", np.stack(rows))
    Path("device/runtime-info.yaml").write_text(
        "device: board\nruntime: runner\nversion: '1'\nprecision: fp32\nbatch_size: 4\n"
        "outputs: [{name: boxes}, {name: scores}]\n"
    )
    Path("device/ais.log").write_text(
        "[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.0): 2000.5\n"
    )


DEVICES = {
    "lfw": "lfw --data data/pairs.bin --model models/embed.yaml --limit 24 "
    "--outputs device/lfw/all.npy",
    "widerface": "widerface --data data/WIDER --model models/detect.yaml --events 1--Handshaking "
    "--outputs device/widerface",
}


def device_words(name: str) -> list[str]:
    """Return the command that reads a device's outputs."""
    far = FAR if name == "lfw" else []
    more = f"--backend outputs --manifest dump/{name} --throughput-log device/ais.log --quiet"
    info = ["--runtime-info", f"device/{'lfw' if name == 'lfw' else 'runtime'}-info.yaml"]
    return [*DEVICES[name].split(), *more.split(), *far, *info]


PAIRS_COMPARED = {
    "ijbc": ("ijbc-fp32", "ijbc-int8"),
    "lfw": ("lfw-fp32", "lfw-int8"),
    "widerface": ("widerface-fp32", "widerface-noisy"),
    "partial": ("ijbc-fp32", "ijbc-partial"),
}


def make() -> None:
    """Run everything in the current folder."""
    data = Path("data")
    write_release(data)
    write_pairs(data)
    write_wider(data / "WIDER")
    write_models(Path("models"))
    write_ready()
    write_policies()
    write_plans()
    convert = "convert models/embed.yaml --to int8 --no-symmetric --calibration data/IJBC"
    convert += " --samples 18 --held-out 12 --least-cosine 0 --out models/embed-int8.onnx"
    run(*convert.split(), "--yaml", "models/embed.yaml", "--quiet")
    words = result_words("widerface-fp32")
    run(*words, "--write-predictions", "ready/predictions.json")
    for name in RUNS:
        run(*result_words(name), "--output", f"results/{name}.json")
    Path("baselines").mkdir()
    for name, (before, _) in PAIRS_COMPARED.items():
        if name != "partial":
            baseline = f"baselines/{name}.json"
            run("gate", f"results/{before}.json", "--baseline", baseline, "--update")
    run("signoff", "plans/first.yaml", "--out", "signoff", "--quiet")
    run("signoff", "plans/release.yaml", "--out", "signoff", "--quiet")
    write_device()
    info = Path("device/runtime-info.yaml").read_text().splitlines()[:-1]
    Path("device/lfw-info.yaml").write_text("\n".join(info) + "\n")


POLICIES = ("default", "strict", "policies/patterns.yaml", "policies/exact.yaml")


def expected() -> dict[str, Any]:
    """Return what this version says of the files."""
    told: dict[str, Any] = {"results": {}, "compare": {}, "gate": {}, "device": {}}
    told["exit codes"] = {}
    for name in RUNS:
        told["results"][name] = figures(read(f"results/{name}.json"))
    for name, (before, after) in PAIRS_COMPARED.items():
        a, b = f"results/{before}.json", f"results/{after}.json"
        code = run("compare", a, b, "--output", "told.json")
        if code == 0:
            told["compare"][name] = compared(read("told.json"))
        told["exit codes"][f"compare {name}"] = code
        told["gate"] |= gated(name, a, b)
    for name in DEVICES:
        run(*device_words(name), "--outputs-dir", f"cache/{name}", "--output", "told.json")
        told["device"][name] = figures(read("told.json"))
    told["signoff"] = signed(read("signoff/signoff.json"))
    for left_over in ("told.json", "told.scores.npz"):
        Path(left_over).unlink(missing_ok=True)
    return told


def gated(name: str, before: str, after: str) -> dict[str, Any]:
    """Return the verdicts on a result, against another result and against a baseline."""
    told = {}
    for kind, baseline in (("result", before), ("baseline", f"baselines/{name}.json")):
        for policy in POLICIES if Path(baseline).exists() else ():
            words = ["gate", after, "--baseline", baseline, "--policy", policy]
            code = run(*words, "--output", "told.json")
            checks = {check["name"]: checked(check) for check in read("told.json")["checks"]}
            told[f"{name} {kind} {policy}"] = {"exit code": code, "checks": checks}
    return told


def read(file: str) -> dict[str, Any]:
    """Read a JSON file."""
    value: dict[str, Any] = json.loads(Path(file).read_text())
    return value


def lines(told: dict[str, Any]) -> str:
    """Return JSON with one case a line."""
    parts = []
    for kind, cases in told.items():
        rows = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()]
        parts.append(f"{json.dumps(kind)}: {{\n " + ",\n ".join(rows) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def checked(check: dict[str, Any]) -> list[Any]:
    """Return a check's outcome, and its three figures where it has some."""
    numbers = [check[name] for name in ("baseline", "candidate", "limit")]
    return [check["outcome"], *(numbers if numbers != [None] * 3 else [])]


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result's figures: value and bounds of each metric."""
    return {m["name"]: [m["value"], *bounds(m["interval"])] for m in result["metrics"]}


def bounds(interval: dict[str, Any] | None) -> list[float]:
    """Return the two ends of an interval; nothing where there is none."""
    return [] if interval is None else [interval["low"], interval["high"]]


FLIPS = ("genuine_lost", "genuine_gained", "impostors_let_in", "impostors_kept_out")
DRIFT = ("samples", "cosine_mean", "cosine_p1", "cosine_min")


def compared(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return differences, bounds and p-values; decisions that flipped; drift."""
    return {
        "metrics": {
            m["name"]: [m["difference"], *bounds(m["interval"]), m["p_value"]]
            for m in comparison["metrics"]
        },
        "flips": {
            f"{f['metric']} {f['thresholds']}": [f[k] for k in FLIPS] for f in comparison["flips"]
        },
        "drift": {d["view"]: [d[k] for k in DRIFT] for d in comparison["drift"]},
    }


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a sign-off's outcome, the hash of its plans, and the test of each cell."""
    cells = {}
    for cell in record["cells"]:
        test = cell["test"]
        keys = ("metric", "unit", "units", "difference", "low", "high", "margin", "detectable")
        cells[f"{cell['protocol']}/{cell['backend']}:{cell['precision']}"] = {
            "outcome": cell["outcome"],
            "test": test and [test[k] for k in keys],
        }
    return {
        "outcome": record["outcome"],
        "exit code": record["exit_code"],
        "plans": [use["sha256"] for use in record["plans"]],
        "cells": cells,
    }


TEXTS = {".json", ".jsonl", ".yaml", ".info", ".txt", ".md", ".csv", ".xml"}


LEFT_OUT = (
    *("cache", "stores/partial", "stores/widerface-noisy", "stores/*/.lock", "dump/*/inputs"),
    *("signoff/*.html", "signoff/*.md", "signoff/*.xml", "signoff/*.csv"),
    *("signoff/cells/templates", "signoff/cells/*/*/log.txt", "signoff/cells/*/*/table.txt"),
)


def tidy(root: Path) -> None:
    """Cut this machine's paths, and leave out what no test reads."""
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in root.rglob("*"):
        if path.suffix not in TEXTS or not path.is_file():
            continue
        text = path.read_text().replace(platform.platform(), "Linux")
        for known in (f"{root}/plans/../", f"{root}/", f"{Path(sys.executable).parent.parent}/"):
            text = text.replace(known, "")
        if path.suffix == ".json" and "cells" not in path.parts:
            text = json.dumps(json.loads(text), separators=(",", ":")) + "\n"
        path.write_text(text)


def main(folder: Path) -> None:
    """Write everything."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    make()
    tidy(folder.resolve())
    Path("expected.json").write_text(lines(expected()))
    shutil.rmtree("cache", ignore_errors=True)
    for path in Path().rglob(".lock"):
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

"""Outputs stores of format 1, and what devices wrote for dumps of version 0.1, are scored again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from v1_files import figures, run, same

from evalkit.core.results import load_result

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")

FAR = ["--far", "0.01,0.1,0.2"]
STORES = {
    **{
        f"ijbc-{precision}": f"ijbc --data data/IJBC --model models/embed.yaml "
        f"--precision {precision} --one-to-n"
        for precision in ("fp32", "int8")
    },
    **{
        f"lfw-{precision}": f"lfw --data data/pairs.bin --model models/embed.yaml "
        f"--precision {precision} --rules insightface,exact,facexzoo"
        for precision in ("fp32", "int8")
    },
    "widerface-fp32": "widerface --data data/WIDER --model models/detect.yaml "
    "--score-threshold 0.4",
}
DEVICES = {
    "lfw": "lfw --data data/pairs.bin --model models/embed.yaml --limit 24 "
    "--outputs device/lfw/all.npy --runtime-info device/lfw-info.yaml",
    "widerface": "widerface --data data/WIDER --model models/detect.yaml --events 1--Handshaking "
    "--outputs device/widerface --runtime-info device/runtime-info.yaml",
}


def words_of(line: str) -> list[str]:
    return [*line.split(), *([] if line.startswith("widerface") else FAR), "--quiet"]


def take_over(store: Path, fresh: Path) -> None:
    """Name this machine's runtime in a store: it was filled by other versions of the libraries."""
    old, new = (json.loads((folder / "store.json").read_text()) for folder in (store, fresh))
    for part in ("ran", "preparation"):
        old["key"][part] = new["key"][part]
    assert old["key"] == new["key"]
    (store / "store.json").write_text(json.dumps(old))


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_scored_without_inference(
    name: str, files: Path, expected: dict[str, Any]
) -> None:
    words = words_of(STORES[name])
    assert run(*words, "--outputs-dir", "fresh") == 0
    store = files / "stores" / name
    take_over(store, files / "fresh")
    shards = {path.name: path.read_bytes() for path in store.glob("shard-*")}
    line = [*words, "--outputs-dir", store, "--overwrite", "never", "--output", "told.json"]
    assert run(*line) == 0
    assert figures("told.json") == same(expected["results"][name])
    assert {path.name: path.read_bytes() for path in store.glob("shard-*")} == shards
    conversion = load_result(files / "told.json").model.conversion
    assert (conversion is not None) == name.endswith("int8")


@pytest.mark.parametrize("name", DEVICES)
def test_a_devices_outputs_are_read(name: str, files: Path, expected: dict[str, Any]) -> None:
    line = f"{DEVICES[name]} --backend outputs --manifest dump/{name}"
    line += " --throughput-log device/ais.log --output told.json"
    assert run(*words_of(line)) == 0
    assert figures("told.json") == same(expected["device"][name])
    result = load_result(files / "told.json")
    assert (result.ran.device, result.ran.batch_size, result.throughput) == ("board", 4, 2000.5)

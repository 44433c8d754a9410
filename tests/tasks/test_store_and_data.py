"""What the outputs store notices: images that came, went or changed; other weights; other runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command import Command

from evalkit.core.results import Result, load_result
from evalkit.core.settings import RunSettings, load_model_config
from evalkit.run.inference import SAMPLE_MODEL
from evalkit.run.models import model_sha256

pytest.importorskip("onnxruntime", reason="needs the cpu extra")

MODEL = ("--model", SAMPLE_MODEL)


@pytest.fixture
def data(tiny_ijbc: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_ijbc, tmp_path / "IJBC")
    return tmp_path / "IJBC"


def crops(data: Path) -> list[Path]:
    return sorted((data / "loose_crop").iterdir())


def run(evalkit: Command, data: Path, *words: object) -> Result:
    out = data.parent / "r.json"
    assert evalkit("ijbc", "--data", data, *MODEL, "--shard-size", 16, "--output", out, *words) == 0
    return load_result(out)


def reused(result: Result) -> int:
    return next(stage for stage in result.stages if stage.name == "inference").reused_items


def test_a_mended_image_costs_one_shard(evalkit: Command, data: Path) -> None:
    image = crops(data)[0]
    held = image.read_bytes()
    image.unlink()
    before = run(evalkit, data)
    assert [failure.name for failure in before.failures_to_enrol] == [image.name]
    image.write_bytes(held)
    after = run(evalkit, data)
    assert after.failures_to_enrol == ()
    assert reused(after) == after.dataset.counts["faces"] - 16


def test_a_replaced_image_of_the_same_size_is_noticed(evalkit: Command, data: Path) -> None:
    before = run(evalkit, data)
    image = crops(data)[5]
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    after = run(evalkit, data)
    assert 0 < reused(after) < after.dataset.counts["faces"]
    assert after.dataset.content_sha256 != before.dataset.content_sha256


def test_a_copy_with_other_times_is_the_same(evalkit: Command, data: Path) -> None:
    run(evalkit, data)
    for image in crops(data):
        image.write_bytes(image.read_bytes())
    after = run(evalkit, data)
    assert reused(after) == after.dataset.counts["faces"]


def test_no_flip_reads_a_store_that_has_flips(evalkit: Command, data: Path) -> None:
    run(evalkit, data)
    plain = run(evalkit, data, "--flip", "none", "--overwrite", "never")
    assert plain.settings["flip"] == "none"
    assert reused(plain) == plain.dataset.counts["faces"]


def test_another_shard_size_takes_the_stores(evalkit: Command, data: Path) -> None:
    run(evalkit, data)
    assert reused(run(evalkit, data, "--shard-size", 8)) > 0


def test_failures_of_earlier_runs_count(
    evalkit: Command, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for image in crops(data)[:30]:
        image.unlink()
    words = ("ijbc", "--data", data, *MODEL, "--shard-size", 8, "--max-failures", 9)
    stores = data.parent / "cache" / "outputs"
    assert evalkit(*words) == 2
    kept = len(list(stores.glob("*/shard-*")))
    for _ in range(3):
        assert evalkit(*words) == 2
    assert len(list(stores.glob("*/shard-*"))) <= kept + 3
    assert "more than --max-failures 9" in capsys.readouterr().err


def test_weights_beside_an_onnx_file_are_part_of_its_hash(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    file = load_model_config(SAMPLE_MODEL, RunSettings()).file_for("onnxruntime")
    hashes = set()
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        model = onnx.load(file)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size > 1000:
                changed = values + np.float32(seed)
                tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
        onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.weights")
        hashes.add(model_sha256(folder / "m.onnx"))
    first, second = ((tmp_path / str(seed) / "m.onnx").read_bytes() for seed in (0, 1))
    assert first == second
    assert len(hashes) == 2

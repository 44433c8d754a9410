"""Adding converted files to a model's YAML, which stays the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evalkit.convert.writing import write_model_yaml
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config

BLOCK = """\
# Ours; do not touch the normalisation.
name: r50
files:
  onnxruntime: r50.onnx  # of July
  torch: r50.pt

  # built by hand
input: {size: [112, 112], mean: 127.5, std: 127.5} # as trained
head: embedding
"""
FLOW = """\
name: r50  # flow
files: {onnxruntime: r50.onnx, "torch": 'r50.pt'}  # two
head: embedding
"""
LAST = "name: r50\nfiles:\n    onnxruntime: r50.onnx"


def add(path: Path, **files: str) -> str:
    model = load_model_config(str(path), RunSettings())
    named = {key.replace("_", ":"): path.parent / file for key, file in files.items()}
    write_model_yaml(path, model, named)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", [BLOCK, FLOW, LAST])
def test_an_entry_is_added_and_nothing_else_changes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r50.yaml"
    path.write_text(text, encoding="utf-8")
    before = yaml.safe_load(text)
    after = add(path, openvino_int8="r50-int8.xml", tvm="a b/ü.so")
    wanted = {**before["files"], "openvino:int8": "r50-int8.xml", "tvm": "a b/ü.so"}
    assert yaml.safe_load(after) == {**before, "files": wanted}
    lines = [line.strip() for line in text.splitlines() if not line.startswith("files: {")]
    assert [line.strip() for line in after.splitlines() if line.strip() in lines] == lines
    assert all(comment in after for comment in ("# of July", "# as trained")) == (text == BLOCK)
    assert ("# two" in after) == (text == FLOW)


def test_an_entry_of_that_name_is_replaced_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "r50.yaml"
    path.write_text(BLOCK, encoding="utf-8")
    assert add(path, onnxruntime="new.onnx") == BLOCK.replace("r50.onnx", "new.onnx")


@pytest.mark.parametrize("name", ["true", "null", "1.5", "x: y", "# no comment", "a, b}", "-"])
def test_any_name_of_a_file_is_read_back(tmp_path: Path, name: str) -> None:
    for text in (BLOCK, FLOW, LAST):
        path = tmp_path / "r50.yaml"
        path.write_text(text, encoding="utf-8")
        assert yaml.safe_load(add(path, tvm_fp16=name))["files"]["tvm:fp16"] == name


def test_a_new_file_holds_the_whole_model(tmp_path: Path) -> None:
    model = ModelConfig(name="r50", files={"torch": "r50.pt"}, head="embedding", folder=tmp_path)
    path = tmp_path / "new.yaml"
    write_model_yaml(path, model, {"torch:int8": tmp_path / "int8.pt"})
    held = load_model_config(str(path), RunSettings())
    assert held.files == {"torch": "r50.pt", "torch:int8": "int8.pt"}

"""Configuration: precedence, clear errors, safe YAML."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli import main
from evalkit.cli.options import resolve
from evalkit.core.errors import InputError
from evalkit.core.settings import ModelConfig, RunSettings, load_model_config
from evalkit.core.validation import read_yaml, validate
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.widerface.settings import WiderFaceSettings


def namespace(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(command="ijbc", **values)


def test_command_line_beats_yaml_beats_default(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("batch_size: 8\nthreads: 3\nfar: [1e-3, 1e-4]\n")
    config = resolve(namespace(config=path, threads=1), IjbSettings)
    assert (config.batch_size, config.threads, config.device) == (8, 1, "cpu")
    assert config.far == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize: 8", "batchsize: unknown setting; known: .*batch_size"),
        ("batch_size: 0", "--batch-size must be at least 1, not 0"),
        ("precision: fp8", "--precision must be 'fp32', .*'int8', not 'fp8'"),
        ("far: [2.0]", "--far: .*between 0 and 1"),
        ("far: [a]", "--far must be a number, not 'a'"),
        ("one_to_n: 7", "--one-to-n must be true or false, not 7"),
        ("limit: 1.5", "--limit must be a whole number, not 1.5"),
        ("features_flip: a.npy", "--features-flip needs --features"),
        ("scores: a\nfeatures: b", "only one of --features and --scores"),
        ("scores: a\nlimit: 5", "--limit takes a part .* --scores .*leave out --limit"),
        ("features: a\nlimit: 5", "--limit takes a part .* --features .*leave out --limit"),
        ("scores: a\none_to_n: true", "--one-to-n needs templates, not scores"),
        ("- 1", "must hold a mapping"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['touch owned']", "is not YAML"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        resolve(namespace(config=Path("run.yaml")), IjbSettings)
    assert not Path("owned").exists()


def test_a_quick_look_takes_ready_made_templates_but_no_embeddings() -> None:
    templates = {"templates": "t.npz", "limit": 5}
    assert validate(IjbSettings, templates, "x").limit == 5  # their ids say which ones are meant
    with pytest.raises(InputError, match=r"--limit takes a part .* --embeddings"):
        validate(LfwSettings, {"embeddings": "e.npy", "limit": 5}, "x")


def test_a_rule_counts_once() -> None:
    assert LfwSettings(rules=("exact", "insightface", "exact")).rules == ("exact", "insightface")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ijbc", "--far", "abc"), "argument --far: 'abc' is not a number"),
        (("ijbc", "--far", "1e-4,"), "argument --far: '1e-4,' is not a number"),
        (("lfw", "--far", "x"), "argument --far: 'x' is not a number"),
        (("ijbc", "--mean", "1,2,x"), "argument --mean: '1,2,x' is not a number"),
        (("ijbc", "--std", "1,2"), "argument --std: give one number, or three"),
    ],
)
def test_wrong_numbers_are_named(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_a_missing_yaml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")


def test_a_model_yaml_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "m.yaml").write_text("name: m\nfiles: {onnxruntime: m.onnx}\ninput: {color: bgr}\n")
    config = load_model_config(str(tmp_path / "m.yaml"), RunSettings(mean=(1.0, 2.0, 3.0)))
    assert config.file_for("onnxruntime") == tmp_path / "m.onnx"
    assert (config.input.color, config.input.mean) == ("bgr", (1.0, 2.0, 3.0))
    with pytest.raises(InputError, match=r"no file for backend 'torch' at fp32"):
        config.file_for("torch")


def test_a_file_for_a_precision_goes_before_that_of_its_backend(tmp_path: Path) -> None:
    for name in ("fp32.onnx", "int8.onnx", "other.pt"):
        (tmp_path / name).write_bytes(b"")
    files = "{onnxruntime: fp32.onnx, 'onnxruntime:int8': int8.onnx, any: other.pt}"
    (tmp_path / "m.yaml").write_text(f"name: m\nfiles: {files}\n")
    config = load_model_config(str(tmp_path / "m.yaml"), RunSettings())
    assert config.file_for("onnxruntime", "int8") == tmp_path / "int8.onnx"
    assert config.file_for("onnxruntime", "fp16") == tmp_path / "fp32.onnx"
    assert config.file_for("torch", "int8") == tmp_path / "other.pt"


def test_a_bare_model_file_serves_every_backend(tmp_path: Path) -> None:
    file = tmp_path / "backbone.onnx"
    file.write_bytes(b"")
    config = load_model_config(str(file), RunSettings(std=128.0))
    assert config.file_for("torch") == config.file_for("onnxruntime") == file
    assert (config.name, config.input.std) == ("backbone", 128.0)


def test_mxnet_models_go_by_their_prefix(tmp_path: Path) -> None:
    symbol = tmp_path / "model.v2-symbol.json"
    symbol.write_text("{}")
    config = load_model_config(str(tmp_path / "model.v2"), RunSettings())
    assert config.name == "model.v2"
    assert config.files == {"any": str(symbol)}


@pytest.mark.parametrize("named", ["nope", "nope/nope", "/nope/nope.onnx"])
def test_an_unknown_model_lists_the_ready_ones(named: str) -> None:
    with pytest.raises(InputError, match=rf"no model file .{named}.*sample-recognition"):
        load_model_config(named, RunSettings())


@pytest.mark.parametrize(
    ("kind", "named", "others"),
    [
        (IjbSettings, "sample-recognition", "sample-detection"),
        (LfwSettings, "sample-recognition", "sample-detection"),
        (WiderFaceSettings, "sample-detection", "sample-recognition"),
    ],
)
def test_only_models_that_a_command_takes_are_named(
    kind: type[RunSettings], named: str, others: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        load_model_config("nothing", kind())
    assert others not in str(caught.value)


def test_settings_of_a_file_keep_their_names() -> None:
    with pytest.raises(InputError, match=r"m\.yaml: files is missing"):
        validate(ModelConfig, {"name": "m"}, "m.yaml")
    with pytest.raises(InputError, match="command line: --std: std must not be 0"):
        load_model_config("sample-recognition", RunSettings(std=0.0))


def test_a_file_that_the_yaml_names_must_exist(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("name: m\nfiles: {any: gone.onnx}\n")
    with pytest.raises(InputError, match=r"gone\.onnx does not exist"):
        load_model_config(str(tmp_path / "m.yaml"), RunSettings()).file_for("torch")


def test_std_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"input\.std.*must not be 0"):
        validate(ModelConfig, {"name": "m", "files": {"any": "f"}, "input": {"std": 0}}, "m.yaml")

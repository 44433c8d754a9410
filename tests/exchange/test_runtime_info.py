"""What the user and the device's log say of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.backends.outputs.runtime_info import (
    OutputSpec,
    read_runtime_info,
    read_throughput,
    write_template,
)
from evalkit.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        (
            "[INFO] NPU_compute_time (ms): min = 2.4, max = 3.9, mean = 3.5\n"
            "[INFO] throughput 1000*batchsize.mean(1)/NPU_compute_time.mean(3.55): 281.38893\n",
            281.38893,
        ),
        ("[INFO] throughput 1000*batchsize(16)/NPU_compute_time.mean(8.0): 2000\n", 2000),
        ("Throughput (qps): 5123.4\nLatency (ms): 0.19\n", 5123.4),
        ("throughput (QPS)  : 1.5e3\n", 1500),
        (
            "throughput 1000*batchsize.mean(1)/NPU_compute_time.mean(2): 500\n"
            "throughput 1000*batchsize.mean(1)/NPU_compute_time.mean(2): 501\n",
            1001,
        ),
    ],
)
def test_logs_of_the_devices_tools(tmp_path: Path, text: str, rate: float) -> None:
    log = tmp_path / "device.log"
    log.write_text(f"[INFO] acl init success\n{text}done\n")
    assert read_throughput(log) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Latency: 3 ms", "states no throughput"),
        ("Throughput (qps): 0", "states no throughput"),
        ("Throughput (qps): 1.2.3", "no number"),
    ],
)
def test_a_log_without_a_rate_is_refused(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "device.log"
    log.write_text(text)
    with pytest.raises(InputError, match=message):
        read_throughput(log)


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.log"):
        read_throughput(tmp_path / "gone.log")


def test_the_template_is_read_once_it_is_filled_in(tmp_path: Path) -> None:
    outputs = (OutputSpec(name="score", shape=(1, -1, 1)), OutputSpec(name="box"))
    file = write_template(tmp_path, outputs)
    info = read_runtime_info(file)
    assert info.outputs == outputs
    assert info.precision == "fp16"
    assert (info.device, info.runtime) == ("unknown", "unknown")
    file.write_text("device: mine\n")
    assert write_template(tmp_path, ()) == file
    assert read_runtime_info(file).device == "mine"


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "info.yaml").write_text("gadget: 1\n")
    with pytest.raises(InputError, match="gadget: unknown setting"):
        read_runtime_info(tmp_path / "info.yaml")


def test_another_precision_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "info.yaml").write_text("precision: int8\n")
    assert read_runtime_info(tmp_path / "info.yaml", "int8").precision == "int8"
    with pytest.raises(InputError, match="ran int8, but fp32 was asked for"):
        read_runtime_info(tmp_path / "info.yaml", "fp32")

"""Boards: what can be held without their SDK. None of it stands for a run on hardware."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from evalkit.backends import BACKENDS
from evalkit.backends.base import Probe, SessionOptions, TensorInfo
from evalkit.backends.tensors import check_offered, free_device, only_input
from evalkit.core.errors import InputError, UnavailableError

SDK = {"ascend": "ais_bench", "magicmind": "magicmind"}
without_sdk = pytest.mark.parametrize(
    "name", [name for name, module in SDK.items() if importlib.util.find_spec(module) is None]
)


@without_sdk
def test_the_probe_says_what_to_install(name: str) -> None:
    probe = BACKENDS.get(name).probe()
    assert not probe.available
    assert SDK[name] in probe.reason
    assert "evalkit dump" in probe.remedy


@without_sdk
def test_opening_is_refused_with_the_same_words(name: str, tmp_path: Path) -> None:
    backend = BACKENDS.get(name)
    with pytest.raises(UnavailableError, match="evalkit dump"):
        backend.open(tmp_path / "m.om", SessionOptions("fp16"))


@pytest.mark.parametrize(("device", "number"), [("cpu", 0), ("npu", 0), ("npu:0", 0), ("npu:3", 3)])
def test_devices_by_name(device: str, number: int) -> None:
    probe = Probe(True, "1", ("npu:0", "npu:3"), ("fp16",))
    assert free_device("ascend", probe, device, "npu") == number


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"no device npu:7 here; it has npu:0"):
        free_device("ascend", Probe(True, "1", ("npu:0",), ("fp16",)), "npu:7", "npu")


@pytest.mark.parametrize(
    ("devices", "device", "told"),
    [
        (("cpu", "gpu.0"), "gpu", "no device gpu here; it has cpu, gpu.0. Choose one of them."),
        (("cpu",), "cuda", "no device cuda:0 here; it has cpu. Choose one of them, or mend the"),
    ],
)
def test_a_device_is_refused_by_naming_those_that_are_there(
    devices: tuple[str, ...], device: str, told: str
) -> None:
    with pytest.raises(UnavailableError, match=told):
        check_offered("openvino", Probe(True, "1", devices, ("fp32",)), device, "fp32")


@pytest.mark.parametrize(
    ("names", "told"), [((), r"0 inputs \(none is declared\)"), (("a", "b"), r"2 inputs \(a, b\)")]
)
def test_a_model_must_take_one_image(names: tuple[str, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        only_input(tuple(TensorInfo(name, "float32", ()) for name in names), Path("m.om"))

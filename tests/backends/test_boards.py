"""Boards: what can be held without their SDK. None of it stands for a run on hardware."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from evalkit.backends import BACKENDS
from evalkit.backends.base import Probe, SessionOptions, TensorInfo
from evalkit.backends.boards import BoardBackend, BoardSession
from evalkit.backends.tensors import check_offered, only_input
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


class StandIn(BoardSession):
    def _compute(self, batch: np.ndarray) -> list[np.ndarray]:
        return [batch]


class Boards(BoardBackend):
    name = StandIn.backend = "boards"
    kind = "npu"
    session = StandIn

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, "1", ("npu:0", "npu:3"), ("fp16",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m.om").write_bytes(b"x")
    return tmp_path / "m.om"


@pytest.mark.parametrize(("device", "number"), [("cpu", 0), ("npu", 0), ("npu:0", 0), ("npu:3", 3)])
def test_devices_by_name(model: Path, device: str, number: int) -> None:
    session = Boards.open(model, SessionOptions("fp16", device=device))
    assert isinstance(session, StandIn)
    assert session.device == number


def test_the_precision_is_recorded_as_the_users_word(model: Path) -> None:
    session = Boards.open(model, SessionOptions("fp16"))
    ran = session._on_board("1", "a note", mode="static")  # type: ignore[attr-defined]
    assert (ran.device, ran.threads) == ("npu:0", None)
    assert ran.precision_ran == "fp16 (as its user says)"
    assert ran.details == {"mode": "static"}


def test_a_device_that_is_not_there_is_named(model: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no device npu:7 here; it has npu:0, npu:3"):
        Boards.open(model, SessionOptions("fp16", device="npu:7"))


@pytest.mark.parametrize(
    ("devices", "device", "message"),
    [
        (("cpu", "gpu.0"), "gpu", "no device gpu here; it has cpu, gpu.0. Choose one of them."),
        (("cpu",), "cuda", "no device cuda:0 here; it has cpu. Choose one of them, or repair the"),
    ],
)
def test_a_device_is_refused_by_naming_those_that_are_there(
    devices: tuple[str, ...], device: str, message: str
) -> None:
    with pytest.raises(UnavailableError, match=message):
        check_offered("openvino", Probe(True, "1", devices, ("fp32",)), device, "fp32")


@pytest.mark.parametrize(
    ("names", "message"),
    [((), r"0 inputs \(none is declared\)"), (("a", "b"), r"2 inputs \(a, b\)")],
)
def test_a_model_must_take_one_image(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        only_input(tuple(TensorInfo(name, "float32", ()) for name in names), Path("m.om"))

"""The benchmark: figures by a clock that only runs tell, turns, and what cannot run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import evalkit.bench
from evalkit.backends import BACKENDS
from evalkit.backends.base import Backend, Probe, Ran, Session, SessionOptions, TensorInfo
from evalkit.bench import BenchResult, Setup, bench, model_bytes
from evalkit.cli import main
from evalkit.core.errors import InputError
from evalkit.core.registry import Entry
from evalkit.core.settings import InputSpec, ModelConfig
from evalkit.report.bench import describe


class Clock:
    now: ClassVar[float] = 0.0


class TimedSession(Session):
    """Takes 10 ms and 1 ms an image, twice as long every tenth run."""

    outputs = (TensorInfo("y", "float32", ("n", 1)),)
    log: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, options: SessionOptions, fixed: int | None) -> None:
        self.inputs = (TensorInfo("x", "float32", (fixed, 3, None, None)),)
        self.precision = options.precision
        self.runs = 0
        self.closed = False
        self.ran = Ran("timed", "1", "cpu", options.precision, "fp32", options.threads)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        assert not self.closed
        assert batch.shape[1:] == (3, 8, 6)
        if self.inputs[0].batch not in {None, len(batch)}:
            raise InputError(f"takes batches of {self.inputs[0].batch}")
        if self.precision == "fp16" and self.runs == 25:
            raise InputError("broke down")
        self.runs += 1
        self.log.append((self.precision, len(batch)))
        Clock.now += (0.010 + 0.001 * len(batch)) * (2 if self.runs % 10 == 0 else 1)
        return {"y": np.zeros((len(batch), 1), np.float32)}

    def close(self) -> None:
        self.closed = True


class TimedBackend(Backend):
    name = "timed"
    fixed: ClassVar[int | None] = None
    opened: ClassVar[list[TimedSession]] = []

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, "1", ("cpu",), ("fp32", "fp16"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        if options.precision == "int8":
            raise InputError("no int8 here")
        cls.opened.append(TimedSession(options, cls.fixed))
        return cls.opened[-1]


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry = Entry(f"{__name__}:TimedBackend")
    monkeypatch.setitem(BACKENDS._entries, "timed", entry)
    monkeypatch.setattr(evalkit.bench.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(TimedSession, "log", [])
    monkeypatch.setattr(TimedBackend, "opened", [])
    return


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    file = tmp_path / "m.bin"
    file.write_bytes(bytes(3 * 1024 * 1024))
    return ModelConfig(
        name="m", files={"timed": "m.bin"}, input=InputSpec(size=(8, 6)), folder=tmp_path
    )


def test_rates_and_latencies_are_those_of_the_clock(model: ModelConfig) -> None:
    (timing,) = bench(model, [Setup("timed", batch_size=10)], repeats=2, seconds=0.5).timings
    # Runs take 20 ms, every tenth 40: warm-up ends after ten of them (nine of 20 and one of 40).
    assert timing.images_per_second is not None
    assert timing.latency_ms is not None
    assert timing.latency_ms.p50 == pytest.approx(20)
    assert timing.latency_ms.p99 == pytest.approx(40)
    assert timing.images_per_second.median == pytest.approx(10 / 0.022, rel=0.05)
    assert timing.images_per_second.low <= timing.images_per_second.median
    assert timing.images_per_second.median <= timing.images_per_second.high
    assert timing.model_mb == pytest.approx(3)
    assert timing.memory_mb is not None
    assert timing.memory_mb >= 0
    assert timing.ran is not None
    assert timing.ran.batch_size == 10
    assert timing.model is not None
    assert timing.model.sha256 is not None
    assert timing.runs == sum(size == 10 for _, size in TimedSession.log) - 10


def test_configurations_take_turns(model: ModelConfig) -> None:
    setups = [Setup("timed", batch_size=1), Setup("timed", "fp16", 1), Setup("timed", batch_size=2)]
    bench(model, setups, repeats=3, seconds=1e-3)
    assert TimedSession.log[-9:] == 3 * [("fp32", 1), ("fp16", 1), ("fp32", 2)]
    assert len(TimedBackend.opened) == 2, "batch sizes share a session"
    assert all(session.closed for session in TimedBackend.opened)


def test_what_cannot_run_says_why_and_stops_nothing(model: ModelConfig) -> None:
    setups = [
        Setup("timed", "int8"),
        Setup("nowhere"),
        Setup("timed", "fp16"),
        Setup("onnxruntime"),
        Setup("timed"),
    ]
    int8, unknown, broken, no_file, good = bench(model, setups, repeats=3, seconds=0.1).timings
    assert int8.problem == "no int8 here"
    assert "nowhere" in (unknown.problem or "")
    assert broken.problem == "broke down"
    assert broken.images_per_second is None
    assert "onnxruntime" in (no_file.problem or "")
    assert good.problem is None


def test_a_fixed_batch_size_refuses_the_others(
    model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedBackend, "fixed", 4)
    setups = [Setup("timed", batch_size=size) for size in (1, 4)]
    one, four = bench(model, setups, repeats=1, seconds=0.01).timings
    assert one.problem == "takes batches of 4"
    assert four.problem is None


def test_the_record_survives_its_file(model: ModelConfig, tmp_path: Path) -> None:
    setups = [Setup("timed"), Setup("timed", "int8")]
    result = bench(model, setups, repeats=1, seconds=0.01, command="evalkit bench")
    result.save(tmp_path / "bench.json")
    assert BenchResult.model_validate_json((tmp_path / "bench.json").read_bytes()) == result
    assert json.loads((tmp_path / "bench.json").read_text())["schema_version"] == 1


def test_the_table_has_every_configuration_and_its_fault(model: ModelConfig) -> None:
    setups = [Setup("timed", "int8", size) for size in (1, 8)] + [Setup("timed", batch_size=8)]
    shown = describe(bench(model, setups, repeats=2, seconds=0.2))
    assert "cannot run timed int8 (batch 1, 8):\n  no int8 here" in shown
    assert "fewer than 100 runs" in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("timed"))
    assert row[:5] == [
        "timed",
        "fp32",
        "fp32",
        "8",
        str(evalkit.bench.environment.available_cores()),
    ]


def test_size_counts_the_weights_beside(tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(b"12345")
    (tmp_path / "m.bin").write_bytes(b"123")
    (tmp_path / "other.bin").write_bytes(b"1")
    assert model_bytes(tmp_path / "m.xml") == 8
    assert model_bytes(tmp_path) == 9


def test_command_prints_and_writes(
    model: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = tmp_path / "m.yaml"
    yaml.write_text("name: m\nfiles: {timed: m.bin}\ninput: {size: [8, 6]}\n")
    words = ["bench", "--model", str(yaml), "--batch-sizes", "1,2", "--repeats", "2", "--quiet"]
    words += ["--seconds", "0.01", "--precisions", "fp32,int8"]
    assert main([*words, "--output", str(tmp_path / "b.json")]) == 0
    assert "cannot run timed int8 (batch 1, 2)" in capsys.readouterr().out
    held = BenchResult.model_validate_json((tmp_path / "b.json").read_bytes())
    assert [(t.precision, t.batch_size) for t in held.timings] == [
        ("fp32", 1),
        ("fp32", 2),
        ("int8", 1),
        ("int8", 2),
    ]


def test_command_fails_where_nothing_ran(model: ModelConfig, tmp_path: Path) -> None:
    yaml = tmp_path / "m.yaml"
    yaml.write_text("name: m\nfiles: {timed: m.bin}\ninput: {size: [8, 6]}\n")
    assert main(["bench", "--model", str(yaml), "--precisions", "int8", "--quiet"]) == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--batch-sizes", "0"), ("--seconds", "-1"), ("--repeats", "0")),
        *(("--threads", "0"), ("--worker-timeout", "0"), ("--backends", ",")),
    ],
)
def test_command_refuses_numbers_that_are_none(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", f"{option}={value}"]) == 2
    assert f"command line: {option} must" in capsys.readouterr().err


def test_command_refuses_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "--threads=1,x"])
    assert exit_.value.code == 2
    assert "--threads" in capsys.readouterr().err


def test_command_refuses_an_unknown_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--precisions", "fp8"]) == 2
    assert (
        "--precisions must be 'fp32', 'fp16', 'bf16' or 'int8', not 'fp8'"
        in capsys.readouterr().err
    )

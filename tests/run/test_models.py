"""Opening a run's model: what a backend says of itself decides, not its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from evalkit.backends.base import (
    PRECISIONS,
    Backend,
    Probe,
    Ran,
    Session,
    SessionOptions,
    Speed,
    TensorInfo,
)
from evalkit.backends.outputs.device import OutputsOptions
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.core.settings import InputSpec, ModelConfig, RunSettings
from evalkit.run import models
from evalkit.run.embedder import Embedder
from evalkit.run.inference import fill
from evalkit.run.models import open_model


class Sums(Session):
    """The sum of each image."""

    inputs = (TensorInfo("input", "float32", ("n", 3, 4, 4)),)
    outputs = (TensorInfo("embedding", "float32", ("n", 1)),)
    ran = Ran("reader", "0", "board", "fp32", "fp32", None)

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": batch.sum(axis=(1, 2, 3))[:, None].astype(np.float32)}


class Reader(Backend):
    """Reads what another device wrote, under a name of its own."""

    name: ClassVar[str] = "reader"
    reads_outputs: ClassVar[bool] = True
    speed: ClassVar[Speed | None] = None
    opened: ClassVar[list[tuple[Path, SessionOptions]]] = []

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, "0", ("board",), PRECISIONS, reads_outputs=cls.reads_outputs)

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        cls.opened.append((model, options))
        session = Sums()
        session.speed = cls.speed
        return session


class Images:
    """Four random images, of which nothing has a file."""

    def __len__(self) -> int:
        return 4

    def name(self, index: int) -> str:
        return str(index)

    def path(self, index: int) -> None:
        return None

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        return np.full((4, 4, 3), index, np.uint8), bytes(8)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> type[Reader]:
    class Fresh(Reader):
        opened: ClassVar[list[tuple[Path, SessionOptions]]] = []

    monkeypatch.setattr(models, "choose_backend", lambda run, config: Fresh)
    return Fresh


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    (tmp_path / "model.bin").write_bytes(b"weights")
    spec = InputSpec(size=(4, 4))
    return ModelConfig(name="m", files={"any": "model.bin"}, input=spec, folder=tmp_path)


def test_a_backend_that_reads_outputs_opens_them_in_place_of_a_model(
    reader: type[Reader], config: ModelConfig, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs.bin"
    outputs.write_bytes(b"numbers")
    run = RunSettings(backend="reader", outputs=outputs, manifest=tmp_path, verify=3)
    with open_model(run, config) as model:
        assert model.info.file == str(outputs)
    ((path, options),) = reader.opened
    assert path == outputs
    assert isinstance(options, OutputsOptions)
    assert (options.manifest, options.verify, options.image) == (tmp_path, 3, (3, 4, 4))
    assert options.task == "recognition"
    assert options.compare is None  # no backend has a .bin


def test_a_backend_that_reads_outputs_needs_some(
    reader: type[Reader], config: ModelConfig, tmp_path: Path
) -> None:
    for run, told in (
        (RunSettings(backend="reader"), "--backend reader needs --outputs"),
        (RunSettings(backend="reader", outputs=tmp_path / "gone"), "There are no outputs"),
    ):
        with pytest.raises(InputError, match=told), open_model(run, config):
            pass


@pytest.mark.parametrize("name", ["outputs", "manifest", "verify"])
def test_a_backend_that_runs_models_refuses_a_devices_files(
    reader: type[Reader], config: ModelConfig, tmp_path: Path, name: str
) -> None:
    reader.reads_outputs = False
    value: Any = 3 if name == "verify" else tmp_path
    run = RunSettings(backend="reader", **{name: value})
    with pytest.raises(InputError, match=f"--{name} belongs to outputs"), open_model(run, config):
        pass
    with open_model(RunSettings(backend="reader"), config):
        ((path, options),) = reader.opened
    assert path == config.folder / "model.bin"
    assert not isinstance(options, OutputsOptions)


@pytest.mark.parametrize(
    "speed", [None, Speed(16, 2000.5), Speed(None, None)], ids=["measured", "told", "unknown"]
)
def test_a_session_may_tell_its_own_speed(
    reader: type[Reader], config: ModelConfig, tmp_path: Path, speed: Speed | None
) -> None:
    reader.reads_outputs, reader.speed = False, speed
    run = RunSettings(backend="reader", outputs_dir=tmp_path / "store", batch_size=3)
    with open_model(run, config) as model:
        embedder = Embedder(model.session, config.input, flip=False, output=None, batch_size=3)
        inferred = fill(model, Images(), "data", run, Progress(quiet=True), embedder)
    if speed is None:
        assert inferred.ran.batch_size == 3
        assert inferred.throughput is not None
    else:
        assert inferred.ran.batch_size == speed.batch_size
        assert inferred.throughput == speed.images_per_second

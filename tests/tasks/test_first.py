"""What a task holds open around its ``yield`` stays open until the images were read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.convert.image_sets import load_images
from evalkit.core.errors import InputError
from evalkit.core.progress import Progress
from evalkit.exchange.inputs import prepare_inputs
from evalkit.exchange.settings import DumpSettings
from evalkit.tasks.base import Samples, first
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.lfw.task import Lfw

QUIET = Progress(quiet=True)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note when the data of LFW are opened and closed."""
    notes: list[str] = []
    own = Lfw.open

    def opened(task: Lfw, settings: LfwSettings, progress: Progress) -> Iterator[Samples]:
        notes.append("open")
        try:
            yield from own(task, settings, progress)
        finally:
            notes.append("closed")

    monkeypatch.setattr(Lfw, "open", opened)
    return notes


def test_data_are_open_while_inputs_are_dumped(
    log: list[str], tiny_lfw: Path, tmp_path: Path
) -> None:
    config = DumpSettings(kind="lfw", data=tiny_lfw, model="sample-recognition", out=tmp_path)
    with prepare_inputs(config, QUIET) as inputs:
        image, _ = inputs.source.load_with_digest(0)
        assert image.ndim == 3
        assert log == ["open"]
    assert log == ["open", "closed"]


def test_data_are_open_while_a_model_is_calibrated(log: list[str], tiny_lfw: Path) -> None:
    with load_images(tiny_lfw, "faces", 112, QUIET) as images:
        assert images.content(0)
        assert log == ["open"]
    assert log == ["open", "closed"]


def test_data_are_closed_after_an_error(log: list[str], tiny_lfw: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        first(Lfw().open(LfwSettings(data=tiny_lfw), QUIET)),
    ):
        raise ZeroDivisionError
    assert log == ["open", "closed"]


def test_data_without_a_set_are_refused() -> None:
    with pytest.raises(InputError, match="no set of images"), first(iter(())):
        pass

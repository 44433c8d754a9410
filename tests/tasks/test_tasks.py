"""Tasks by name: what is asked of each without a model or data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.core.errors import InputError
from evalkit.tasks import TASKS, settings_of, task_of
from evalkit.tasks.base import Task
from evalkit.tasks.ijb.settings import IjbSettings
from evalkit.tasks.lfw.settings import LfwSettings
from evalkit.tasks.widerface.settings import WiderFaceSettings


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_is_registered_by_its_own_name(name: str) -> None:
    task = TASKS.get(name)()
    assert isinstance(task, Task)
    assert task.name == name
    assert settings_of(name) is task.Settings
    assert TASKS.entry(name).summary
    assert task.primaries(task.Settings())


def test_names_and_settings_are_had_without_the_rest() -> None:
    code = (
        "import sys; from evalkit.tasks import TASKS, settings_of; TASKS.names();"
        "heavy = {'numpy', 'cv2', 'scipy', 'pydantic'}; assert not heavy & set(sys.modules);"
        "settings_of('lfw'); assert not (heavy - {'pydantic'}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_sign_off_may_test_follows_from_the_settings() -> None:
    lfw, ijbc = TASKS.get("lfw")(), TASKS.get("ijbc")()
    assert lfw.primaries(LfwSettings(far=(1e-3,), rules=("exact", "facexzoo"))) == (
        "tar@far=1e-03",
        "val@far=1e-03",
        "auc",
        "accuracy/exact",
    )
    assert ijbc.primaries(IjbSettings(far=(1e-4, 1e-3))) == ("tar@far=1e-04", "tar@far=1e-03")
    with pytest.raises(ValueError, match="the rule at_most, not of interpolated"):
        ijbc.primaries(IjbSettings(rule="interpolated"))


def test_mirrored_images_are_an_input_where_the_settings_add_them() -> None:
    lfw, ijbc = TASKS.get("lfw")(), TASKS.get("ijbc")()
    assert lfw.views(LfwSettings()) == ("plain", "flip")
    assert lfw.views(LfwSettings(flip=False)) == ("plain",)
    assert ijbc.views(IjbSettings(flip="none")) == ("plain",)
    assert TASKS.get("widerface")().views(WiderFaceSettings()) == ("plain",)


def test_data_are_recognised_by_what_lies_there(tmp_path: Path) -> None:
    def found() -> list[str]:
        return [name for name in TASKS if TASKS.get(name)().finds(tmp_path)]

    assert not found()
    (tmp_path / "IJBC/meta").mkdir(parents=True)
    (tmp_path / "IJBC/meta/ijbc_face_tid_mid.txt").touch()
    assert found() == ["ijbc"]
    (tmp_path / "a.bin").touch()
    (tmp_path / "wider_face_val_bbx_gt.txt").touch()
    assert found() == ["ijbc", "lfw", "widerface"]
    (tmp_path / "b.bin").touch()
    assert found() == ["ijbc", "widerface"]
    task = task_of(tmp_path)
    assert task is not None
    assert task.name == "ijbc"
    assert task_of(tmp_path / "IJBC/meta") is None


def test_a_folder_with_the_files_of_both_releases_is_ijbc(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    for name in ("ijbb", "ijbc"):
        (tmp_path / f"meta/{name}_face_tid_mid.txt").touch()
    task = task_of(tmp_path)
    assert task is not None
    assert task.name == "ijbc"


def test_images_are_counted_for_estimates(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.jpg", "below/B.PNG", "c.txt"):
        (tmp_path / name).touch()
    assert TASKS.get("ijbc")().images(tmp_path) == 2
    with pytest.raises(InputError, match="name one"):
        TASKS.get("lfw")().images(tmp_path)

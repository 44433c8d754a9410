"""Workers: the contract over a proxied session, and every way in which a worker can go wrong."""

from __future__ import annotations

import ast
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the cpu or gpu extra")
pytest.importorskip("onnx", reason="needs the test extra")

from tiny_network import Tiny, batch, write_onnx

from evalkit.backends.base import SessionOptions
from evalkit.backends.onnxruntime.backend import OnnxRuntimeBackend
from evalkit.backends.worker import process
from evalkit.backends.worker.process import Worker, find_interpreter
from evalkit.backends.worker.session import WorkerSession, isolated
from evalkit.backends.worker.wire import SharedArea
from evalkit.cli import main
from evalkit.core.errors import InputError, UnavailableError, WorkerError
from evalkit.testing import BackendContract

HERE = isolated("onnxruntime", sys.executable)
ONE = SessionOptions(threads=1)


@pytest.mark.slow
class TestProxiedSession(BackendContract):
    backend = HERE

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tiny: Tiny, models: Path) -> None:
        cls.model = write_onnx(tiny, models / "proxied.onnx")
        cls.batch = batch()
        cls.reference = {"output0": tiny(cls.batch)}


@pytest.fixture(scope="module")
def model(tiny: Tiny, models: Path) -> Path:
    return write_onnx(tiny, models / "worker.onnx")


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(sys.executable, timeout=60)
    yield worker
    worker.close()


def call(worker: Worker, target: str, **arguments: Any) -> Any:
    return worker.ask("being tested", do="call", target=target, arguments=arguments)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_figures_and_record_are_those_of_this_process(model: Path) -> None:
    images = batch(3)
    with OnnxRuntimeBackend.open(model, ONE) as plain, HERE.open(model, ONE) as proxied:
        for given in (images, images[:1], images[..., ::-1], batch(64), images):
            wanted, held = plain.run(given), proxied.run(given)
            assert list(held) == list(wanted)
            assert all(np.array_equal(held[name], wanted[name]) for name in wanted)
        assert (proxied.inputs, proxied.outputs) == (plain.inputs, plain.outputs)
        details = dict(proxied.ran.details)
        interpreter = details.pop("interpreter")
        assert replace(proxied.ran, details=details) == plain.ran
    assert interpreter["path"] == sys.executable
    assert interpreter["python"] == ".".join(map(str, sys.version_info[:3]))
    assert HERE.probe() == OnnxRuntimeBackend.probe()


def test_errors_arrive_as_they_were_raised(model: Path, tmp_path: Path) -> None:
    for missing, options in ((tmp_path / "none.onnx", ONE), (model, replace(ONE, device="cuda:9"))):
        with pytest.raises((InputError, UnavailableError)) as wanted:
            OnnxRuntimeBackend.open(missing, options)
        with pytest.raises(type(wanted.value)) as given:
            HERE.open(missing, options)
        assert str(given.value) == str(wanted.value)
    with HERE.open(model, ONE) as session:
        with pytest.raises(InputError, match="takes shape"):
            session.run(batch()[:, :2])
        with pytest.raises(InputError, match="objects"):
            session.run(np.array([None]))
        session.run(batch())  # refusing is no reason to end


def test_a_fault_in_the_worker_is_told_with_its_trace(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        call(worker, "json:loads", s="{")
    assert call(worker, "json:loads", s="[1]") == [1]


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of another environment that has NumPy, by a line to this one's folder."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))
    return folder / "bin" / "python"


def path_of(worker: Worker) -> str:
    with pytest.raises(RuntimeError) as told:
        call(worker, "timeit:timeit", stmt="import sys; assert False, sys.path", number=1)
    return str(told.value).rpartition("AssertionError")[2]


def test_the_worker_sees_no_packages_and_settings_of_this_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other_python: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('of the other environment')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    worker = Worker(other_python, threads=3)
    path = path_of(worker)
    for folder in (tmp_path, Path(__file__).parents[2] / "evalkit" / "backends" / "worker"):
        assert repr(str(folder)) not in path
    assert "''" not in path
    assert call(worker, "os:getenv", key="OMP_NUM_THREADS") == "3"
    assert call(worker, "os:getenv", key="OMP_WAIT_POLICY") == "PASSIVE"
    worker.close()


@pytest.mark.parametrize("named", ["python", "python3"])
def test_a_worker_of_this_interpreter_finds_what_this_process_finds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    python = Path(sys.executable).with_name(named)
    if not python.exists():
        pytest.skip(f"the interpreter here has no name {named}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(python)
    assert repr(str(tmp_path)) in path_of(worker)
    worker.close()


@pytest.mark.parametrize(
    ("target", "arguments", "told"),
    [
        ("os:abort", {}, "SIGABRT"),
        ("os:_exit", {"status": 7}, "exit code 7"),
        ("ctypes:string_at", {"ptr": 1, "size": 1}, "SIGSEGV"),
        ("os:system", {"command": "kill -9 $PPID"}, "SIGKILL, perhaps for lack of memory"),
    ],
)
def test_a_worker_that_dies_is_told_with_its_last_words(
    worker: Worker, target: str, arguments: dict[str, Any], told: str
) -> None:
    call(worker, "os:system", command="echo the device is on fire >&2")
    with pytest.raises(WorkerError, match=told) as error:
        call(worker, target, **arguments)
    assert "while being tested" in str(error.value)
    assert "the device is on fire" in str(error.value)
    assert sys.executable in str(error.value)
    with pytest.raises(WorkerError, match="has ended"):
        call(worker, "os:getpid")


def test_a_worker_that_hangs_is_ended() -> None:
    worker = Worker(sys.executable, timeout=60)
    worker.timeout = 0.3
    pid = worker._process.pid
    with pytest.raises(WorkerError, match=r"no answer within 0\.3 s.*--worker-timeout"):
        call(worker, "signal:pause")
    assert gone(pid)


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """An interpreter that never answers."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    return program


def test_a_start_that_hangs_does_not_advise_what_cannot_help(
    monkeypatch: pytest.MonkeyPatch, hanging: Path
) -> None:
    monkeypatch.setattr(process, "_START_LIMIT", 0.3)
    with pytest.raises(WorkerError, match=r"within 0\.3 s.*No start may take longer") as told:
        Worker(hanging)
    assert "--worker-timeout" not in str(told.value)
    with pytest.raises(WorkerError, match=r"within 0\.2 s.*Allow more with --worker-timeout"):
        Worker(hanging, timeout=0.2)


@pytest.mark.parametrize(
    "words",
    [
        ["backends", "--check", "onnxruntime"],
        ["bench", "--backends", "onnxruntime", "--quiet"],
        ["convert", "sample-recognition", "--to", "int8", "--quiet"],
        ["lfw", "--limit", "8", "--quiet"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_runs_workers_takes_their_timeout(
    hanging: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "--python", str(hanging), "--worker-timeout", "0.4"]
    out = ["--out", str(tmp_path / "out.onnx")] if words[0] == "convert" else []
    assert main([*words, *out]) == 2
    told = capsys.readouterr()
    assert "no answer within 0.4 s while starting" in told.out + told.err


@pytest.mark.parametrize("command", [["backends"], ["backends", "--check", "torch"]])
def test_a_timeout_of_nothing_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--worker-timeout", "0"]) == 2
    assert "worker_timeout" in capsys.readouterr().err.replace("-", "_")


def test_a_flood_neither_blocks_nor_breaks_the_protocol(worker: Worker) -> None:
    flood = "head -c 20000000 /dev/zero | tr '\\0' 'x'; printf '\\033[31m\\n'; echo done >&2"
    assert call(worker, "os:system", command=flood) == 0
    assert call(worker, "os:getpid") == worker._process.pid
    with pytest.raises(WorkerError) as told:
        call(worker, "os:abort")
    assert len(str(told.value)) < 5000
    assert "done" in str(told.value)
    assert "\033" not in str(told.value)


def test_closing_ends_the_worker_and_what_it_started(worker: Worker) -> None:
    call(worker, "os:system", command="sleep 600 & echo $! > /proc/self/fd/1; true")
    pid, children = worker._process.pid, Path("/proc")
    started = [
        int(entry.name)
        for entry in children.iterdir()
        if entry.name.isdecimal() and _group(int(entry.name)) == pid
    ]
    assert len(started) == 2
    worker.close()
    worker.close()
    assert all(comes_true(lambda pid=pid: gone(pid)) for pid in started)
    assert worker._process.returncode is not None  # reaped: no zombie


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_nothing_is_left_behind(model: Path) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    HERE.open(model, ONE).close()
    before = held()
    pids = []
    for _ in range(2):
        session = WorkerSession("onnxruntime", model, ONE, Worker(sys.executable, threads=1))
        session.run(batch(64))
        assert session._worker is not None
        pids.append(session._worker._process.pid)
        del session  # never closed
    gc.collect()
    assert comes_true(lambda: held() == before)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_needs_numpy_alone(worker: Worker) -> None:
    script = "import sys; assert False, sorted({name.partition('.')[0] for name in sys.modules})"
    with pytest.raises(RuntimeError) as told:
        call(worker, "timeit:timeit", stmt=script, number=1)
    names = set(ast.literal_eval(str(told.value).rpartition("AssertionError: ")[2].strip()))
    ours = names - sys.stdlib_module_names - {"__main__", "__mp_main__"}
    hooks = {name for name in ours if "editable" in name or "distutils" in name}  # of a .pth file
    assert ours - hooks == {"evalkit", "numpy"}


SCRIPT = """
import signal, sys, threading
from evalkit.backends.worker.process import Worker
worker = Worker(sys.executable)
print(worker._process.pid, flush=True)
worker.ask("hanging", do="call", target=sys.argv[1], arguments=eval(sys.argv[2]))
"""
HOLDS_THE_LOCK = ("re:match", "dict(pattern='(a+)+$', string='a' * 60 + 'b')")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hang", [("signal:pause", "{}"), HOLDS_THE_LOCK])
def test_a_worker_ends_with_its_parent(how: signal.Signals, hang: tuple[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *hang],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert not gone(pid)
        parent.send_signal(how)
        parent.wait(20)
        assert comes_true(lambda: gone(pid))


@pytest.mark.parametrize("memory", [batch(), batch(64)], ids=["as before", "more"])
def test_a_session_whose_worker_died_says_so_every_time(model: Path, memory: Any) -> None:
    with HERE.open(model, ONE) as session:
        session.run(batch())
        assert isinstance(session, WorkerSession)
        assert session._worker is not None
        os.kill(session._worker._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="killed by SIGKILL"):
            session.run(batch())
        for _ in range(2):
            with pytest.raises(WorkerError, match=r"has ended\. Open the model again"):
                session.run(memory)


@pytest.mark.slow
def test_a_run_resumes_after_its_worker_died(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path))
    words = ["lfw", "--limit", "24", "--batch-size", "4", "--shard-size", "4", "--threads", "1"]
    isolated_run = [*words, "--python", sys.executable]
    plain, runs = WorkerSession.run, 0

    def dies(self: WorkerSession, images: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs == 6:
            assert self._worker is not None
            os.kill(self._worker._process.pid, signal.SIGKILL)
        return plain(self, images)

    monkeypatch.setattr(WorkerSession, "run", dies)
    assert main(isolated_run) == 2
    told = capsys.readouterr().err
    assert "killed by SIGKILL" in told
    assert "same command" in told
    assert "Traceback" not in told
    monkeypatch.setattr(WorkerSession, "run", plain)
    assert main(isolated_run) == 0
    resumed = capsys.readouterr()
    assert "resuming: 8 of" in resumed.err
    assert main(words) == 0
    figures = [out.partition("stage")[0] for out in (resumed.out, capsys.readouterr().out)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("named", ["nowhere/python", "folder", "file"])
def test_what_is_no_interpreter_is_refused(named: str, tmp_path: Path) -> None:
    (tmp_path / "folder" / "bin").mkdir(parents=True)
    (tmp_path / "folder" / "bin" / "python").touch()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"no Python interpreter .*{named}") as told:
        find_interpreter(tmp_path / named)
    assert ("bin/python" in str(told.value)) == (named == "folder")
    assert not isolated("onnxruntime", tmp_path / named).probe().available


def test_a_program_that_is_no_python_is_told() -> None:
    with pytest.raises(WorkerError, match=r"while starting(?s:.*)No such file"):
        Worker("cat")


def test_an_interpreter_without_numpy_says_so(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    probe = isolated("onnxruntime", bare / "bin" / "python").probe()
    assert not probe.available
    assert f"{bare}/bin/python -m pip install numpy" in probe.reason


def test_a_backend_that_is_not_known_is_told(worker: Worker) -> None:
    with pytest.raises(InputError, match="no backend 'nothing'"):
        worker.ask("probing", do="probe", backend="nothing")


def test_links_of_an_interpreter_are_kept(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert find_interpreter(link) == link


def test_shared_memory_grows_and_keeps_values() -> None:
    ours = SharedArea.create()
    theirs = SharedArea(os.dup(ours.descriptor))
    for count in (1, 1000, 3):
        arrays = {"a": np.arange(count, dtype=np.uint8), "b": np.full((count, 2), 0.5, ">f8")}
        views = theirs.read(ours.write(arrays.items()))
        assert all(np.array_equal(views[name], arrays[name]) for name in arrays)
    empty = theirs.read(ours.write([("none", np.empty((0, 3), np.float32))]))
    assert empty["none"].shape == (0, 3)
    ours.close()
    theirs.close()


def test_memory_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"no room for 4,032 bytes.*smaller batch"):
        SharedArea.create().write([("batch", np.zeros(1000, np.float32))])


def test_nameless_files_stand_in_where_the_system_has_no_memory_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    area = SharedArea.create()
    assert area.read(area.write([("x", np.arange(3))]))["x"].tolist() == [0, 1, 2]
    area.close()

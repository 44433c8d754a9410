"""The contract of a backend as tests that any backend can be put through.

Derive a class from `BackendContract`, and give it a backend, a model and a batch::

    from pathlib import Path

    import numpy as np

    from evalkit.testing import BackendContract
    from my_package.backend import MyBackend


    class TestMyBackend(BackendContract):
        backend = MyBackend
        model = Path("tests/tiny.bin")
        batch = np.random.default_rng(0).random((4, 3, 16, 16), np.float32)

``model``, ``batch`` and ``reference`` may be properties too, or be set on the class by a fixture.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import PRECISIONS, Backend, Probe, Ran, Session, SessionOptions
from evalkit.core.errors import EvalkitError, InputError, UnavailableError


class BackendContract:
    """Tests of one backend with one model.

    Attributes
    ----------
    backend : type of Backend
        The backend.
    model : Path
        A small model with one input.
    batch : ndarray of float32
        At least two images that the model accepts; as many as its fixed batch size, if it has one.
    reference : dict of str to ndarray, or None
        What the outputs for ``batch`` must be, by another runtime.
    options : SessionOptions
        How to open the model.
    rtol, atol : float
        Tolerance to the reference, and between an image alone and the same in a batch:
        ``|a - b| <= atol + rtol * max|b|``. The default is the field's yardstick for fp32.
    """

    backend: type[Backend]
    model: Path
    batch: NDArray[np.float32]
    reference: dict[str, NDArray[np.float32]] | None = None
    options: SessionOptions = SessionOptions(threads=1)
    rtol: float = 1e-3
    atol: float = 1e-6

    def open(self, **changes: Any) -> Session:
        """Open the model with the options, changed where named."""
        return self.backend.open(self.model, replace(self.options, **changes))

    def close_to(self, given: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
        """Whether two outputs agree within the tolerance."""
        bound = self.atol + self.rtol * float(np.abs(wanted).max())
        return given.shape == wanted.shape and float(np.abs(given - wanted).max()) <= bound

    def test_probe_answers_alike_and_fully(self) -> None:
        """Two probes agree; what is available names version, devices and precisions."""
        probe = self.backend.probe()
        assert isinstance(probe, Probe)
        assert self.backend.probe() == probe
        assert probe.available, "the contract needs a backend that can run here"
        assert probe.version
        assert probe.devices
        assert probe.precisions
        assert set(probe.precisions) <= set(PRECISIONS)

    def test_ran_is_recorded_as_json(self) -> None:
        """The record is complete from the start and survives JSON."""
        with self.open() as session:
            ran = session.ran
        assert isinstance(ran, Ran)
        assert ran.backend == self.backend.name
        assert ran.version == self.backend.probe().version
        assert ran.device in self.backend.probe().devices
        assert ran.precision_requested == self.options.precision
        assert ran.precision_ran
        fields = asdict(ran)
        held = json.loads(json.dumps(fields))
        assert held["details"] == fields["details"], "details holds what JSON would change"

    def test_record_is_the_same_for_every_opening(self) -> None:
        """Stored outputs are found again by this record."""
        with self.open() as first, self.open() as second:
            assert first.ran == second.ran

    def test_threads_are_those_asked_for(self) -> None:
        """Thread counts are set, not inherited."""
        for threads in (1, 2):
            with self.open(threads=threads) as session:
                assert session.ran.threads in {threads, None}

    def test_input_is_described(self) -> None:
        """One input, whose shape and element type the batch fits."""
        with self.open() as session:
            (info,) = session.inputs
        assert info.name
        assert np.dtype(info.dtype).kind in "fiu"
        assert len(info.shape) == self.batch.ndim
        for held, given in zip(info.shape, self.batch.shape, strict=True):
            assert not isinstance(held, int) or held == given

    def test_outputs_are_described_float32_and_named(self) -> None:
        """Names come in the order of `Session.outputs`, arrays with the described shape."""
        with self.open() as session:
            outputs = session.run(self.batch)
            described = session.outputs
        assert list(outputs) == [info.name for info in described]
        for info, value in zip(described, outputs.values(), strict=True):
            assert value.dtype == np.float32
            assert len(info.shape) == value.ndim
            for held, given in zip(info.shape, value.shape, strict=True):
                assert not isinstance(held, int) or held == given
            assert np.isfinite(value).all()

    def test_outputs_belong_to_the_caller(self) -> None:
        """Neither a later run nor closing changes them, and they can be written to."""
        with self.open() as session:
            held = session.run(self.batch)
            copies = {name: value.copy() for name, value in held.items()}
            session.run(self.batch[::-1].copy())
        for name, value in held.items():
            assert np.array_equal(value, copies[name])
            assert value.flags.writeable
            value[...] = 0

    def test_input_is_left_alone(self) -> None:
        """The batch may be read-only, and is not changed."""
        batch = self.batch.copy()
        batch.flags.writeable = False
        with self.open() as session:
            session.run(batch)
        assert np.array_equal(batch, self.batch)

    def test_the_callers_thread_keeps_subnormals(self) -> None:
        """Neither opening, running nor closing leaves flush-to-zero on for NumPy."""
        smallest = np.float64(5e-324)
        assert smallest * 1.0 != 0, "something flushed subnormals before the backend did anything"
        with self.open() as session:
            assert smallest * 1.0 != 0, "opening"
            session.run(self.batch)
            assert smallest * 1.0 != 0, "running"
        assert smallest * 1.0 != 0, "closing"

    def test_repeated_runs_agree_exactly(self) -> None:
        """Same session, same batch, same figures; a new session likewise."""
        with self.open() as session:
            runs = [session.run(self.batch) for _ in range(3)]
        with self.open() as session:
            runs.append(session.run(self.batch))
        for run in runs[1:]:
            for name, value in run.items():
                assert np.array_equal(value, runs[0][name])

    def test_an_image_gives_the_same_alone_and_in_a_batch(self) -> None:
        """Order is kept, and images do not influence each other."""
        with self.open() as session:
            together = session.run(self.batch)
            if session.inputs[0].batch is None:
                parts = [session.run(self.batch[i : i + 1]) for i in range(len(self.batch))]
                order = range(len(self.batch))
            else:
                parts = [session.run(self.batch[::-1].copy())]
                order = range(len(self.batch))[::-1]
        for name, value in together.items():
            apart = np.concatenate([part[name] for part in parts])
            assert self.close_to(apart, value[list(order)])
            assert not self.close_to(value[:1], value[1:2]), "the batch needs different images"

    def test_strided_batches_are_read_right(self) -> None:
        """A view of a larger array is as good as its copy."""
        wide = np.repeat(self.batch, 2, axis=-1)
        with self.open() as session:
            given = session.run(wide[..., ::2])
            wanted = session.run(self.batch)
        assert all(self.close_to(given[name], wanted[name]) for name in wanted)

    def test_uint8_runs_as_its_values_or_is_refused(self) -> None:
        """Pixels are cast, never scaled in silence."""
        pixels = (np.arange(self.batch.size) % 256).astype(np.uint8).reshape(self.batch.shape)
        with self.open() as session:
            outputs = session.run(pixels)
            if session.inputs[0].dtype.startswith("float"):
                wanted = session.run(pixels.astype(np.float32))
                assert all(self.close_to(outputs[name], wanted[name]) for name in wanted)

    def test_batches_that_do_not_fit_are_refused(self) -> None:
        """A wrong rank, channel count, element type, and no image at all."""
        one_more = np.concatenate([self.batch, self.batch[:, :1]], axis=1)
        with self.open() as session:
            for bad in (self.batch[0], self.batch[:0], one_more, self.batch.astype(np.float64)):
                message = _refusal(InputError, session.run, bad)
                assert str(self.model) in message or self.model.name in message
            if session.inputs[0].batch is not None:
                _refusal(InputError, session.run, self.batch[:1])
            session.run(self.batch)

    def test_files_that_are_no_model_are_refused(self) -> None:
        """Missing, empty, garbage, cut short, a folder: each names the file."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            whole = self.model.read_bytes() if self.model.is_file() else b""
            contents = {"empty": b"", "garbage": bytes(range(256)) * 16}
            if whole:
                contents["cut"] = whole[: len(whole) // 2]
            for stem, content in contents.items():
                (folder / f"{stem}{self.model.suffix}").write_bytes(content)
            for stem in (*contents, "missing"):
                file = folder / f"{stem}{self.model.suffix}"
                assert str(file) in _refusal(InputError, self.backend.open, file, self.options)
            assert name in _refusal(InputError, self.backend.open, folder, self.options)

    def test_unknown_devices_are_refused(self) -> None:
        """A device of no kind, and one of a kind with too high a number."""
        for device in ("abacus", "cuda:4096", "cuda:x"):
            message = _refusal(UnavailableError, self.open, device=device)
            assert device in message

    def test_precisions_not_offered_are_refused(self) -> None:
        """Asking for what the probe does not offer never opens a session."""
        for precision in set(PRECISIONS) - set(self.backend.probe().precisions):
            assert precision in _refusal(EvalkitError, self.open, precision=precision)

    def test_precision_is_never_pretended(self) -> None:
        """Every other precision either says that it ran, or is refused, or names what ran."""
        for precision in self.backend.probe().precisions:
            try:
                session = self.open(precision=precision)
            except EvalkitError as error:
                message = str(error)
            else:
                with session:
                    ran = session.ran
                assert ran.precision_requested == precision
                assert ran.precision_ran.startswith(precision) or ran.notes
                continue
            assert precision in message

    def test_closing_twice_is_harmless_and_use_after_is_refused(self) -> None:
        """The context manager closes; a closed session says so."""
        with self.open() as session:
            session.run(self.batch)
        session.close()
        assert "closed" in _refusal(InputError, session.run, self.batch)

    def test_agrees_with_the_reference(self) -> None:
        """The outputs are those of the other runtime, where given."""
        if self.reference is None:
            return
        with self.open() as session:
            outputs = session.run(self.batch)
        assert list(outputs) == list(self.reference)
        for name, wanted in self.reference.items():
            assert self.close_to(outputs[name], wanted), name


def _refusal(kind: type[EvalkitError], call: Any, *args: Any, **options: Any) -> str:
    """Return the message of the error that a call must raise."""
    try:
        call(*args, **options)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was not raised for {args or options}")

"""Which backends are here, and whether one of them gives what another one gives.

Backends are asked in processes of their own: some of their libraries cannot be loaded together, and
one that crashes on import must not take the others with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import BACKENDS
from evalkit.backends.base import PRECISIONS, Precision, Probe, Ran
from evalkit.backends.worker.process import Worker
from evalkit.backends.worker.session import probe_in
from evalkit.convert.calibration import Drawn, ImageBatches
from evalkit.convert.image_sets import ImageSet, load_images
from evalkit.convert.trials import Prepared, kind_of, side_of
from evalkit.core.errors import EvalkitError, InputError, UnavailableError
from evalkit.core.progress import Progress
from evalkit.core.registry import Entry
from evalkit.core.settings import ModelConfig, RunSettings, RuntimeConfig, load_model_config
from evalkit.datasets.sample import SAMPLE_OF, sample_path
from evalkit.run.models import OpenModel, choose_backend, open_model
from evalkit.stats.drift import Drift, drift

TESTED_ON = {
    "caffe": "cpu",
    "mxnet": "cpu",
    "onnxruntime": "cpu",
    "openvino": "cpu",
    "outputs": "cpu",
    "torch": "cpu",
    "tvm": "cpu",
}
"""Kinds of device that evalkit's own backends have been tested on; those left out on none yet."""

REFERENCES = ("onnxruntime", "torch", "openvino")
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.97}
"""Least cosine to the reference, of any image and output; see `Comparison.least_cosine`."""

_SAMPLE = "sample-recognition"
_PROBE_LIMIT_S = 120.0
_AT_ONCE = 2
_PHOTOGRAPHS = 4
_NOISE_SIDE = 640


@dataclass(frozen=True, slots=True)
class Listed:
    """A registered backend and what it can do here.

    Attributes
    ----------
    name, origin : str
        Its name, and the distribution that registered it.
    probe : Probe
    tested_on : str or None
        As in `TESTED_ON`, empty for nothing yet; None for backends of other packages.
    """

    name: str
    origin: str
    probe: Probe
    tested_on: str | None


def survey(python: str | Path = sys.executable, timeout: float | None = None) -> list[Listed]:
    """Probe every registered backend under an interpreter, each in a process of its own.

    Parameters
    ----------
    python : str or Path
        The interpreter.
    timeout : float or None
        Seconds that a process may take to start, and to probe; 120 if None.

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.core.errors.WorkerError
        The interpreter cannot be started; no backend has anything to say then.
    """
    limit = _PROBE_LIMIT_S if timeout is None else timeout
    Worker(python, timeout=limit).close()  # else every backend would wait for one that hangs
    names = BACKENDS.names()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        probes = list(pool.map(lambda name: probe_in(python, name, limit), names))
    return [
        _listed(name, BACKENDS.entry(name), probe)
        for name, probe in zip(names, probes, strict=True)
    ]


def _listed(name: str, entry: Entry, probe: Probe) -> Listed:
    # What the registry says of a library that is missing ends in the command that brings it.
    reason, found, remedy = probe.reason.partition(" Install it: ")
    if found and not probe.remedy:
        probe = Probe(available=False, reason=reason, remedy=f"Run: {remedy}")
    tested = TESTED_ON.get(name, "") if not entry.foreign else None
    return Listed(name, entry.origin, probe, tested)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one output of the two sessions compares on some images.

    Attributes
    ----------
    images : str
        ``random`` or ``real``.
    output : str
        Its name in the checked session.
    drift : Drift
        From the reference to the checked session, an image a row.
    least_cosine : float or None
        What every image must reach; None where that is not asked: int8 ranges are calibrated on
        real images, so that on random ones they promise nothing.
    """

    images: Literal["random", "real"]
    output: str
    drift: Drift
    least_cosine: float | None

    @property
    def agrees(self) -> bool:
        """Whether all images are usable alike and reach the bound."""
        if self.drift.lost or self.drift.gained:
            return False
        return self.least_cosine is None or bool(
            np.nanmin(self.drift.cosines, initial=1.0) >= self.least_cosine
        )


@dataclass(frozen=True, slots=True)
class Checkup:
    """What the doctor found.

    Attributes
    ----------
    model : str
    file : str
    ran : Ran
        What the checked session says.
    reference : Ran or None
        What the reference says; None where no other backend opens the model.
    reference_file : str
    refusals : tuple of str
        Why others could not be the reference, where none could.
    comparisons : tuple of Comparison
    real : str
        Where the real images are from.
    """

    model: str
    file: str
    ran: Ran
    reference: Ran | None
    reference_file: str
    refusals: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    real: str

    @property
    def agrees(self) -> bool:
        """Whether every comparison is within its bound."""
        return all(comparison.agrees for comparison in self.comparisons)


def model_to_check(named: str | None, run: RunSettings) -> ModelConfig:
    """Resolve the model that a backend is checked with: the embedded network if none is named.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no such model, or the embedded network is in no format of the backend.
    """
    config = load_model_config(named or _SAMPLE, run)
    names = {f"{run.backend}:{run.precision}", run.backend, "any"}
    if named is not None or config.files.keys() & names:
        return config
    BACKENDS.entry(run.backend)  # a name that is not known is told as that
    if not _reads_outputs(run, config):
        raise InputError(
            f"The embedded network has no file in a format of {run.backend!r}, only for "
            f"{', '.join(sorted(config.files))}. Name a model of that format: --check "
            f"{run.backend} --model FILE."
        )
    return config


def _reads_outputs(run: RunSettings, config: ModelConfig) -> bool:
    try:
        return choose_backend(run, config).probe().reads_outputs
    except UnavailableError:
        return False


def check(
    config: ModelConfig,
    run: RunSettings,
    *,
    reference: str | None = None,
    images: int = 16,
    least_cosine: float | None = None,
    progress: Progress | None = None,
) -> Checkup:
    """Open a model, run random and real images, and compare with another backend.

    Parameters
    ----------
    config : ModelConfig
    run : RunSettings
        Its backend, precision, device and threads are checked; its `data` are the real images:
        faces, or photographs for a detector; evalkit's sample if None.
    reference : str or None
        The other backend; None takes the first of `REFERENCES` that opens the model: its fp32 file
        where the configuration names one by backend, else the same file.
    images : int
        At most so many of each kind; at most four photographs.
    least_cosine : float or None
        Instead of `LEAST_COSINE`.
    progress : Progress, optional

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The model does not open or run on the backend, the named reference does not, or the images
        cannot be read.
    """
    progress = progress or Progress(quiet=True)
    with ExitStack() as stack:
        model = stack.enter_context(open_model(run, config))
        sets = [_noise(config, images), _real(config, run.data, progress)]
        given = [_outputs(model, held, images) for held in sets]
        other, refusals = _open_reference(config, run, reference, stack)
        comparisons: list[Comparison] = []
        if other is not None:
            bound = LEAST_COSINE[run.precision] if least_cosine is None else least_cosine
            for kind, held, outputs in zip(_KINDS, sets, given, strict=True):
                promised = run.precision != "int8" or kind == "real"
                wanted = _outputs(other, held, images)
                comparisons += _compare(kind, outputs, wanted, bound if promised else None)
        return Checkup(
            model=config.name,
            file=str(model.info.file),
            ran=model.session.ran,
            reference=None if other is None else other.session.ran,
            reference_file="" if other is None else str(other.info.file),
            refusals=refusals,
            comparisons=tuple(comparisons),
            real=sets[1].name,
        )


_KINDS: tuple[Literal["random", "real"], ...] = ("random", "real")


def _open_reference(
    config: ModelConfig, run: RunSettings, named: str | None, stack: ExitStack
) -> tuple[OpenModel | None, tuple[str, ...]]:
    """Open the model on the first other backend that can."""
    if named == run.backend:
        raise InputError(f"--reference {named} is the backend that is checked: name another one.")
    here = config.model_copy(update={"runtime": RuntimeConfig()})
    refusals: dict[str, str] = {}
    for backend in [named] if named else [name for name in REFERENCES if name != run.backend]:
        for precision in dict.fromkeys((PRECISIONS[0], run.precision)):
            # A graph runs as it was built: one of int8 has no fp32 but that of the source.
            changes = {"backend": backend, "precision": precision, "device": "cpu", "python": None}
            held = run.model_copy(update=changes)
            try:
                return stack.enter_context(open_model(held, here)), ()
            except EvalkitError as error:
                refusals.setdefault(backend, str(error))
    if named:
        raise InputError(f"The reference cannot open the model. {refusals[named]}")
    return None, tuple(f"{backend}: {refusal}" for backend, refusal in refusals.items())


def _outputs(model: OpenModel, images: ImageSet, most: int) -> dict[str, NDArray[np.float32]]:
    """Run a model over the first images; return each output, a row an image."""
    if images.kind == "photographs":
        most = min(most, _PHOTOGRAPHS)
    rows = np.arange(min(most, len(images.source)))
    drawn = Drawn(calibration=rows, held_out=rows, record={}, warnings=())
    parts: list[dict[str, NDArray[np.float32]]] = [
        {name: _by_image(value, len(batch), name) for name, value in outputs.items()}
        for batch, outputs in _runs(model, Prepared.of(model, images, drawn).calibration(model))
    ]
    return {name: np.concatenate([part[name] for part in parts])[: len(rows)] for name in parts[0]}


def _runs(model: OpenModel, batches: ImageBatches) -> Iterator[tuple[Any, dict[str, Any]]]:
    for batch in batches:
        yield batch, model.session.run(batch)


def _by_image(value: NDArray[np.float32], count: int, name: str) -> NDArray[np.float32]:
    """Flatten an output to a row an image; some detectors put the anchors of a batch in a row."""
    if not value.size or value.size % count:
        raise InputError(
            f"The output {name!r} of shape {value.shape} is not of {count} images. Export the "
            "model with one row, or one block, an image."
        )
    return value.reshape(count, -1)


def _compare(
    kind: Literal["random", "real"],
    given: dict[str, NDArray[np.float32]],
    wanted: dict[str, NDArray[np.float32]],
    bound: float | None,
) -> list[Comparison]:
    """Compare outputs of the same name; those that bear other names, in their order."""
    others: Sequence[str] = list(given) if set(given) == set(wanted) else list(wanted)
    shapes = [value.shape for value in given.values()]
    if shapes != [wanted[name].shape for name in others]:
        raise InputError(
            f"The outputs are {_words(given)}, but the reference gives {_words(wanted)}: they are "
            "not of the same network. Correct 'files' in the model's YAML."
        )
    return [
        Comparison(kind, name, drift(wanted[other], given[name]), bound)
        for name, other in zip(given, others, strict=True)
    ]


def _words(outputs: dict[str, NDArray[np.float32]]) -> str:
    return ", ".join(f"{name} ({value.shape[1]} values)" for name, value in outputs.items())


def _real(config: ModelConfig, data: Path | None, progress: Progress) -> ImageSet:
    kind = kind_of(config)
    if data is None:
        data = sample_path(SAMPLE_OF[kind], size="tiny")
    return load_images(data, kind, side_of(config), progress)


def _noise(config: ModelConfig, count: int) -> ImageSet:
    source = _Noise(count, side_of(config) or _NOISE_SIDE)
    return ImageSet(
        name="random pixels",
        path=Path(),
        sha256="",
        kind=kind_of(config),
        source=source,
        content=lambda index: source.load_with_digest(index)[0].tobytes(),
        groups=np.arange(count),
    )


class _Noise:
    """Images of random pixels, the same each time."""

    def __init__(self, count: int, side: int) -> None:
        self._count = count
        self._side = side

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"random {index}"

    def path(self, index: int) -> Path | None:
        return None

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        shape = (self._side, self._side, 3)
        return np.random.default_rng(index).integers(0, 256, shape, np.uint8), bytes(8)

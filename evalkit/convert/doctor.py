"""The available backends, and the comparison of one backend's outputs with another's.

Each backend is probed in a process of its own: some libraries cannot be loaded together, and one
that crashes on import must not end the others.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import BACKENDS
from evalkit.backends.base import PRECISIONS, Precision, Probe, Ran
from evalkit.backends.worker.process import Worker
from evalkit.backends.worker.session import probe_in
from evalkit.convert.calibration import Drawn
from evalkit.convert.image_sets import ImageSet, load_images
from evalkit.convert.trials import Prepared, kind_of, side_of
from evalkit.core.errors import EvalkitError, InputError, UnavailableError
from evalkit.core.progress import Progress
from evalkit.core.registry import Entry
from evalkit.core.settings import ModelConfig, RunSettings, RuntimeConfig, load_model_config
from evalkit.datasets.sample import SAMPLE_OF, sample_path
from evalkit.run.models import OpenModel, choose_backend, open_model
from evalkit.stats.drift import Drift, drift

TESTED_ON = dict.fromkeys(
    ("caffe", "mxnet", "onnxruntime", "openvino", "outputs", "torch", "tvm"), "cpu"
)
"""The kind of device that each of evalkit's own backends was tested on; others were not tested."""

REFERENCES = ("onnxruntime", "torch", "openvino")
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.97}
"""The least allowed cosine to the reference; see `Comparison.least_cosine`."""

_SAMPLE = "sample-recognition"
_PROBE_LIMIT_S = 120.0
_AT_ONCE = 2
_PHOTOGRAPHS = 4
_NOISE_SIDE = 640


@dataclass(frozen=True, slots=True)
class Listed:
    """A registered backend and its probe.

    Attributes
    ----------
    name, origin : str
        Its name, and the distribution that registered it.
    probe : Probe
    tested_on : str or None
        As in `TESTED_ON`, empty if it was not tested; None for backends of other packages.
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
        Seconds that a process may take to start, and to probe; None is 120.

    Raises
    ------
    evalkit.core.errors.InputError, evalkit.core.errors.WorkerError
        The interpreter cannot be started.
    """
    limit = _PROBE_LIMIT_S if timeout is None else timeout
    Worker(python, timeout=limit).close()  # an interpreter that hangs must not delay each backend
    names = BACKENDS.names()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        probes = list(pool.map(lambda name: probe_in(python, name, limit), names))
    return [
        _listed(name, BACKENDS.entry(name), probe)
        for name, probe in zip(names, probes, strict=True)
    ]


def _listed(name: str, entry: Entry, probe: Probe) -> Listed:
    # The registry's message about a missing library ends in the command that installs it.
    reason, mark, remedy = probe.reason.partition(" Install it: ")
    if mark and not probe.remedy:
        probe = Probe(available=False, reason=reason, remedy=f"Run: {remedy}")
    tested = TESTED_ON.get(name, "") if not entry.foreign else None
    return Listed(name, entry.origin, probe, tested)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one output of two sessions on some images.

    Attributes
    ----------
    images : str
        ``random`` or ``real``.
    output : str
        Its name in the checked session.
    drift : Drift
        From the reference to the checked session, one row for each image.
    least_cosine : float or None
        The bound for every image. None for int8 on random images: its ranges are calibrated on real
        ones.
    """

    images: Literal["random", "real"]
    output: str
    drift: Drift
    least_cosine: float | None

    @property
    def agrees(self) -> bool:
        """Whether both sessions can use the same images, and all reach the bound."""
        if self.drift.lost or self.drift.gained:
            return False
        return self.least_cosine is None or bool(
            np.nanmin(self.drift.cosines, initial=1.0) >= self.least_cosine
        )


@dataclass(frozen=True, slots=True)
class Checkup:
    """The result of a check.

    Attributes
    ----------
    model : str
    file : str
    ran : Ran
        Of the checked session.
    reference : Ran or None
        Of the reference; None if no other backend opens the model.
    reference_file : str
    refusals : tuple of str
        Why no other backend could be the reference.
    comparisons : tuple of Comparison
    real : str
        The data set of the real images.
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


def model_to_check(model: str | None, run: RunSettings) -> ModelConfig:
    """Return the model to check a backend with: `model`, else the embedded network.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no such model, or the embedded network has no file in the backend's format.
    """
    config = load_model_config(model or _SAMPLE, run)
    names = {f"{run.backend}:{run.precision}", run.backend, "any"}
    if model is not None or config.files.keys() & names:
        return config
    BACKENDS.entry(run.backend)  # an unknown name is an error of its own
    if not _reads_outputs(run, config):
        raise InputError(
            f"The embedded network has no file in a format of {run.backend!r}, only for "
            f"{', '.join(sorted(config.files))}. Give a model of that format: --check "
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
        Its backend, precision, device and threads are checked. Its `data` are the real images:
        faces, or photographs for a detector; None is evalkit's sample.
    reference : str or None
        The other backend; None is the first of `REFERENCES` that opens the model. It opens its fp32
        file if the configuration has one for the backend, else the same file.
    images : int
        The largest number of images of each kind, at most four photographs.
    least_cosine : float or None
        Replaces `LEAST_COSINE`.
    progress : Progress, optional

    Raises
    ------
    evalkit.core.errors.EvalkitError, evalkit.datasets.errors.DatasetError
        The model does not open or run on the backend or the reference, or the images cannot be
        read.
    """
    progress = progress or Progress(quiet=True)
    with ExitStack() as stack:
        model = stack.enter_context(open_model(run, config))
        real = stack.enter_context(_real(config, run.data, progress))
        sets = [_noise(config, images), real]
        outputs = [_outputs(model, image_set, images) for image_set in sets]
        other, refusals = _open_reference(config, run, reference, stack)
        comparisons: list[Comparison] = []
        if other is not None:
            bound = LEAST_COSINE[run.precision] if least_cosine is None else least_cosine
            for kind, image_set, actual in zip(_KINDS, sets, outputs, strict=True):
                bounded = run.precision != "int8" or kind == "real"
                expected = _outputs(other, image_set, images)
                comparisons += _compare(kind, actual, expected, bound if bounded else None)
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
    config: ModelConfig, run: RunSettings, reference: str | None, stack: ExitStack
) -> tuple[OpenModel | None, tuple[str, ...]]:
    """Open the model on the first other backend that can."""
    if reference == run.backend:
        raise InputError(
            f"--reference {reference} is the backend that is checked. Choose another one."
        )
    here = config.model_copy(update={"runtime": RuntimeConfig()})
    refusals: dict[str, str] = {}
    others = [name for name in REFERENCES if name != run.backend]
    for backend in [reference] if reference else others:
        for precision in dict.fromkeys((PRECISIONS[0], run.precision)):
            # A graph runs as it was built: an int8 graph does not run in fp32.
            changes = {"backend": backend, "precision": precision, "device": "cpu", "python": None}
            try:
                opened = open_model(run.model_copy(update=changes), here)
                return stack.enter_context(opened), ()
            except EvalkitError as error:
                refusals.setdefault(backend, str(error))
    if reference:
        raise InputError(f"The reference cannot open the model. {refusals[reference]}")
    return None, tuple(f"{backend}: {refusal}" for backend, refusal in refusals.items())


def _outputs(model: OpenModel, images: ImageSet, most: int) -> dict[str, NDArray[np.float32]]:
    """Run a model on the first images; return each output, one row for each image."""
    if images.kind == "photographs":
        most = min(most, _PHOTOGRAPHS)
    rows = np.arange(min(most, len(images.source)))
    drawn = Drawn(calibration=rows, held_out=rows, record={}, warnings=())
    parts = []
    for batch in Prepared.of(model, images, drawn).calibration(model):
        values = model.session.run(batch).items()
        parts.append({name: _by_image(value, len(batch), name) for name, value in values})
    return {name: np.concatenate([part[name] for part in parts])[: len(rows)] for name in parts[0]}


def _by_image(value: NDArray[np.float32], count: int, name: str) -> NDArray[np.float32]:
    """Flatten an output to one row for each image; some detectors join the anchors of a batch."""
    if not value.size or value.size % count:
        raise InputError(
            f"The output {name!r} of shape {value.shape} is not of {count} images. Export the "
            "model with one row, or one block, for each image."
        )
    return value.reshape(count, -1)


def _compare(
    kind: Literal["random", "real"],
    actual: dict[str, NDArray[np.float32]],
    expected: dict[str, NDArray[np.float32]],
    bound: float | None,
) -> list[Comparison]:
    """Compare outputs of the same name; if the names differ, in their order."""
    names = list(actual if set(actual) == set(expected) else expected)
    shapes = [value.shape for value in actual.values()]
    if shapes != [expected[name].shape for name in names]:
        raise InputError(
            f"The outputs are {_describe(actual)}, but the reference gives {_describe(expected)}: "
            "they are not of the same network. Correct 'files' in the model's YAML."
        )
    return [
        Comparison(kind, name, drift(expected[other], actual[name]), bound)
        for name, other in zip(actual, names, strict=True)
    ]


def _describe(outputs: dict[str, NDArray[np.float32]]) -> str:
    return ", ".join(f"{name} ({value.shape[1]} values)" for name, value in outputs.items())


def _real(
    config: ModelConfig, data: Path | None, progress: Progress
) -> AbstractContextManager[ImageSet]:
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


@dataclass(frozen=True, slots=True)
class _Noise:
    """Images of random pixels, the same each time."""

    count: int
    side: int

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"random {index}"

    def path(self, index: int) -> Path | None:
        return None

    def load_with_digest(self, index: int) -> tuple[NDArray[np.uint8], bytes]:
        shape = (self.side, self.side, 3)
        return np.random.default_rng(index).integers(0, 256, shape, np.uint8), bytes(8)

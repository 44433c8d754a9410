"""A run's model, opened on its backend: which file, which interpreter, what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from evalkit.backends import BACKENDS
from evalkit.backends.base import Backend, Session, SessionOptions
from evalkit.backends.onnx_files import external_data
from evalkit.backends.outputs.device import OutputsOptions
from evalkit.backends.worker.session import isolated
from evalkit.core.errors import InputError, UnavailableError
from evalkit.core.files import sha256_file, sha256_json
from evalkit.core.machine import available_cores
from evalkit.core.results import ModelInfo
from evalkit.core.settings import ModelConfig, RunSettings
from evalkit.core.sidecar import conversion_of
from evalkit.run.verify import compare

_HOSTS = {
    "onnxruntime": {".onnx"},
    "torch": {".pt", ".pth", ".pt2"},
    "openvino": {".xml", ".onnx"},
}
"""What can run a model here to check a device's outputs, and the files that each reads."""
_DETECTOR_TRIAL = (320, 320)


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A session, and what it was opened from."""

    session: Session
    config: ModelConfig
    info: ModelInfo


@contextmanager
def open_model(run: RunSettings, config: ModelConfig) -> Iterator[OpenModel]:
    """Open a model on the run's backend.

    Raises
    ------
    evalkit.core.errors.EvalkitError
        The model, the backend or the precision is not available here, or the model's input is
        not what its configuration says.
    """
    backend = choose_backend(run, config)
    probe = backend.probe()
    if not probe.reads_outputs:
        _refuse_device_files(run)
    if not probe.available:
        raise UnavailableError(f"Backend {run.backend!r}: {probe.reason} {probe.remedy}".rstrip())
    file = _outputs(run) if probe.reads_outputs else config.file_for(run.backend, run.precision)
    options = SessionOptions(
        precision=run.precision,
        device=run.device,
        threads=run.threads or available_cores(),
        architecture=config.architecture,
        image=image_shape(config),
        provider=config.runtime.provider,
    )
    if probe.reads_outputs:
        options = _outputs_options(options, run, config)
    sha256 = model_sha256(file)
    info = ModelInfo(
        name=config.name,
        file=str(file),
        sha256=sha256,
        conversion=conversion_of(file, sha256),
        preprocessing={
            **config.input.model_dump(mode="json"),
            "head": config.head,
            "output": config.output,
            "architecture": config.architecture,
        },
    )
    with backend.open(file, options) as session:
        yield OpenModel(session, config, info)


def choose_backend(run: RunSettings, config: ModelConfig) -> type[Backend]:
    """Return the run's backend, of another interpreter where the run or the model names one.

    What a device wrote is always read in this process.
    """
    python = run.python
    if python is None and config.runtime.python is not None:
        # A bare name is looked up like a command; what has folders is relative to the YAML file.
        python = config.runtime.python.expanduser()
        if python.parent != Path():
            python = config.folder / python
    if python is None or _device_files(run):
        return BACKENDS.get(run.backend)
    return isolated(run.backend, python, run.worker_timeout or config.runtime.timeout)


def _device_files(run: RunSettings) -> list[str]:
    """Return the settings that only outputs of a device have."""
    names = ("outputs", "manifest", "verify")
    return [name for name in names if getattr(run, name) is not None]


def _refuse_device_files(run: RunSettings) -> None:
    names = _device_files(run)
    if names:
        raise InputError(
            f"--{names[0]} belongs to outputs of a device, but the backend {run.backend!r} runs "
            f"the model here. Add --backend outputs, or leave out --{names[0]}."
        )


def _outputs(run: RunSettings) -> Path:
    """Return what a device wrote, which stands in the place of a model file."""
    if run.outputs is None:
        raise InputError(
            f"--backend {run.backend} needs --outputs: the folder that the device wrote."
        )
    if not run.outputs.exists():
        raise InputError(f"There are no outputs {run.outputs}. Name what the device wrote.")
    return run.outputs


def _outputs_options(
    options: SessionOptions, run: RunSettings, config: ModelConfig
) -> OutputsOptions:
    reference = host_reference(config, run.threads)
    return OutputsOptions(
        **{field.name: getattr(options, field.name) for field in fields(options)},
        manifest=run.manifest,
        runtime_info=run.runtime_info,
        throughput_log=run.throughput_log,
        task="recognition" if config.head == "embedding" else "detection",
        verify=run.verify,
        compare=None if reference is None else partial(compare, reference),
    )


def host_reference(config: ModelConfig, threads: int | None) -> Callable[[], Session] | None:
    """Return what opens the model here at fp32, None where no backend can."""
    for name, suffixes in _HOSTS.items():
        try:
            backend = BACKENDS.get(name)
            file = config.file_for(name)
        except (UnavailableError, InputError):
            continue
        if file.suffix in suffixes and backend.probe().available:
            options = SessionOptions(
                threads=threads or available_cores(),
                architecture=config.architecture,
                image=image_shape(config),
            )
            return partial(backend.open, file, options)
    return None


def model_sha256(file: Path) -> str:
    """Hash a model: its file, or all files of its folder, and the weights that lie beside it.

    ONNX keeps large weights in files of their own, which the model names as ``location`` in its
    tensors' ``external_data``; OpenVINO, MXNet and Caffe keep them under the same stem.
    """
    if file.is_dir():
        files = sorted(path for path in file.rglob("*") if path.is_file())
        return sha256_json([(str(path.relative_to(file)), sha256_file(path)) for path in files])
    beside = sorted(weights_beside(file))
    if not beside:
        return sha256_file(file)
    return sha256_json([sha256_file(file), *((path.name, sha256_file(path)) for path in beside)])


def weights_beside(file: Path) -> set[Path]:
    """Find the files beside a model that hold its weights; see `model_sha256`."""
    stem = file.name.removesuffix("-symbol.json")
    patterns = {
        ".xml": f"{file.stem}.bin",
        ".json": f"{stem}-*.params",
        ".params": f"{file.stem.rpartition('-')[0]}-symbol.json",
        ".prototxt": f"{file.stem}.caffemodel",
        ".caffemodel": f"{file.stem}.prototxt",
    }
    if file.suffix != ".onnx":
        return set(file.parent.glob(patterns[file.suffix])) if file.suffix in patterns else set()
    located = {data.file(file) for data in external_data(file) if data.inside}
    return {path for path in located if path.is_file()}


def image_shape(config: ModelConfig) -> tuple[int, int, int]:
    """Return the sizes of one image, in the model's layout; a detector's is for a first trial."""
    height, width = config.input.size
    if config.head != "embedding" and "size" not in config.input.model_fields_set:
        height, width = _DETECTOR_TRIAL
    return (3, height, width) if config.input.layout == "nchw" else (height, width, 3)


def face_side(config: ModelConfig) -> int:
    """Return the side of the aligned faces that a model takes, in pixels."""
    height, width = config.input.size
    if height != width:
        raise InputError(
            f"The model {config.name!r} takes {height} x {width} images, but aligned faces are "
            "square. Correct 'input.size' in its YAML."
        )
    return height


def check_input(session: Session, config: ModelConfig) -> None:
    """Refuse a model whose input is not the image that its configuration describes."""
    if len(session.inputs) != 1:
        named = ", ".join(info.name for info in session.inputs)
        raise InputError(
            f"The model {config.name!r} has {len(session.inputs)} inputs ({named}); one image is "
            "expected."
        )
    info = session.inputs[0]
    image = image_shape(config)
    fits = len(info.shape) == 4 and all(
        not isinstance(size, int) or size == configured
        for size, configured in zip(info.shape[1:], image, strict=False)
    )
    if not fits:
        raise InputError(
            f"The model {config.name!r} takes {info.name} of shape {list(info.shape)}, but its "
            f"configuration says {config.input.layout} with {list(image)} an image. Correct "
            "'input' in the model's YAML, or --layout."
        )

"""Frozen models of the YAML files: what a model file wants, how a run is set up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from evalkit.core.errors import InputError
from evalkit.core.option import Option
from evalkit.core.validation import COMMAND_LINE, read_yaml, validate

_LEAST_STD = 1e-9
MOST_THREADS = 1024

Scale = float | tuple[float, float, float]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class InputSpec(_Config):
    """How an image becomes the model's input: ``(pixel - mean) / std``.

    Attributes
    ----------
    size : tuple of int
        Height and width.
    color : str
        Order of the channels.
    layout : str
        ``nchw`` or ``nhwc``.
    mean, std : float or three floats
        In pixel units, 0 to 255; three are in the order of `color`.
    """

    size: tuple[int, int] = (112, 112)
    color: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: Scale = 127.5
    std: Scale = 127.5

    @field_validator("mean", "std")
    @classmethod
    def _finite(cls, value: Scale) -> Scale:
        if not all(
            math.isfinite(part) for part in (value if isinstance(value, tuple) else (value,))
        ):
            raise ValueError("give finite numbers")
        return value

    @field_validator("std")
    @classmethod
    def _no_zero(cls, std: Scale) -> Scale:
        if any(abs(value) < _LEAST_STD for value in (std if isinstance(std, tuple) else (std,))):
            raise ValueError("std must not be 0")
        return std


class RuntimeConfig(_Config):
    """Where a model's sessions run.

    Attributes
    ----------
    python : Path or None
        Interpreter of a worker process, relative to the YAML file; this process if None.
    timeout : float or None
        Seconds that a worker may take to open the model, and for each batch.
    provider : str or None
        What runs the model on a GPU by ONNX Runtime: ``cuda`` or ``tensorrt``.
    """

    python: Path | None = None
    provider: Literal["cuda", "tensorrt"] | None = None
    timeout: float | None = Field(default=None, gt=0)


class ModelConfig(_Config):
    """A model and what it wants.

    Attributes
    ----------
    name : str
        For tables and results.
    files : dict of str to str
        Where the model is, relative to the YAML file: by ``BACKEND:PRECISION`` (``torch:int8``),
        else by ``BACKEND``, else ``any``. ``sample:NAME`` is a file that evalkit brings.
    architecture : str or None
        Registered architecture, where the file holds weights alone.
    input : InputSpec
        Preparation of the images.
    head : str
        ``embedding``, or a registered detection head.
    head_settings : dict
        Attributes of the detection head that differ from its defaults.
    sizing : str
        Of a detector's input, see `evalkit.heads.sizing`.
    detection : dict
        What happens to a detector's candidates: fields of
        `evalkit.heads.detection.DetectionOptions` that differ from the head's own.
    output : str or None
        The output that the head reads; the only one if None.
    runtime : RuntimeConfig
        The interpreter that runs it.
    """

    name: str = Field(min_length=1)
    files: dict[str, str] = Field(min_length=1)
    architecture: str | None = None
    input: InputSpec = InputSpec()
    head: str = "embedding"
    head_settings: dict[str, Any] = {}
    sizing: str = "original"
    detection: dict[str, Any] = {}
    output: str | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    folder: Path = Field(default=Path(), exclude=True)

    def file_for(self, backend: str, precision: str = "fp32") -> Path:
        """Return the model's file for a backend and a precision.

        Raises
        ------
        evalkit.core.errors.InputError
            The configuration names none, or it does not exist.
        """
        keys = (f"{backend}:{precision}", backend, "any")
        named = next((self.files[key] for key in keys if key in self.files), None)
        if named is None:
            raise InputError(
                f"The model {self.name!r} has no file for backend {backend!r} at {precision}, only "
                f"for {', '.join(sorted(self.files))}. Add {backend!r} or '{backend}:{precision}' "
                "under 'files', or choose another backend."
            )
        if named.startswith("sample:"):
            from evalkit.datasets import sample  # noqa: PLC0415 - heavy

            return Path(sample.__path__[0]) / Path(named.removeprefix("sample:")).name
        path = self.folder / Path(named).expanduser()
        if not path.exists():
            raise InputError(
                f"The model file {path} does not exist. Put it there, or write its path under "
                f"'files' in a copy of the YAML of {self.name!r}."
            )
        return path


DATA = "data"
MODEL = "model"
DEVICE = "outputs of a device (--backend outputs)"
SPEED = "speed"
PROTOCOL = "protocol"
READY = "ready-made input, instead of a model"
OUTPUT = "output"

PREPARATION = ("color", "layout", "mean", "std")
"""Settings of how an image becomes a model's input."""


class RunSettings(_Config):
    """Settings that every evaluation shares; defaults < YAML (``--config``) < command line."""

    takes: ClassVar[Literal["embedding", "detection"] | None] = None
    """Which kind of models to name where an unknown one is asked for; None for all."""

    examples: ClassVar[str] = ""
    """Command lines for the end of ``--help``; ``{name}`` stands for the command."""

    shared: ClassVar[frozenset[str] | None] = None
    """The fields of this class that a command offers which is no evaluation; None for all."""

    data: Annotated[
        Path | None,
        Option("data set", DATA, "cell", "PATH", default="$EVALKIT_DATA, else the sample"),
    ] = None
    limit: Annotated[
        int | None, Option("use only about N images", DATA, "cell", "N", chooses=True)
    ] = Field(default=None, ge=1)
    max_failures: Annotated[
        int,
        Option(
            "stop if more than N images fail: unreadable, or without a usable output",
            DATA,
            "run",
            "N",
        ),
    ] = Field(default=100, ge=0)
    model: Annotated[
        str | None,
        Option(
            "model file, model YAML, or the name of a ready model",
            MODEL,
            "cell",
            "FILE",
            default="the embedded network, on a sample only",
        ),
    ] = None
    backend: Annotated[str, Option("runtime", MODEL, "cell", "NAME")] = "onnxruntime"
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"], Option("arithmetic of the model", MODEL, "cell")
    ] = "fp32"
    device: Annotated[str, Option("cpu, cuda, cuda:1, ...", MODEL, "cell", "DEVICE")] = "cpu"
    architecture: Annotated[
        str | None, Option("network of a file that holds only weights", MODEL, "figure", "NAME")
    ] = None
    python: Annotated[
        Path | None,
        Option("run the backend in a worker process of this interpreter", MODEL, "cell", "FILE"),
    ] = None
    worker_timeout: Annotated[
        float | None,
        Option(
            "seconds that a worker may take to open the model, and for each batch",
            MODEL,
            "run",
            "S",
            default="600",
        ),
    ] = Field(default=None, gt=0, allow_inf_nan=False)
    color: Annotated[
        Literal["rgb", "bgr"] | None,
        Option("channel order", MODEL, "figure", default="model YAML, else rgb"),
    ] = None
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        Option("tensor layout", MODEL, "figure", default="model YAML, else nchw"),
    ] = None
    mean: Annotated[
        Scale | None,
        Option(
            "subtract this from each pixel",
            MODEL,
            "figure",
            "X[,X,X]",
            default="model YAML, else 127.5",
        ),
    ] = None
    std: Annotated[
        Scale | None,
        Option(
            "then divide each pixel by this",
            MODEL,
            "figure",
            "X[,X,X]",
            default="model YAML, else 127.5",
        ),
    ] = None
    outputs: Annotated[
        Path | None,
        Option("folder that the device wrote for an 'evalkit dump'", DEVICE, "file", "DIR"),
    ] = None
    manifest: Annotated[Path | None, Option("folder of that dump", DEVICE, "file", "DIR")] = None
    runtime_info: Annotated[
        Path | None,
        Option("names the device, its runtime, precision and outputs", DEVICE, "file", "YAML"),
    ] = None
    throughput_log: Annotated[
        Path | None,
        Option(
            "log of ais_bench or mm_run with images/s; several lines are added up",
            DEVICE,
            "file",
            "FILE",
        ),
    ] = None
    verify: Annotated[
        Annotated[int, Field(ge=0)] | Literal["all"] | None,
        Option(
            "compare N outputs with the model run here, if it can run here",
            DEVICE,
            "run",
            "N|all",
            default="all of a detector; 32 faces, and mirror images check the rest",
        ),
    ] = None
    batch_size: Annotated[int, Option("images in a batch", SPEED, "run", "N")] = Field(
        default=32, ge=1
    )
    threads: Annotated[
        int | None, Option("threads of the runtime", SPEED, "cell", "N", default="all cores")
    ] = Field(default=None, ge=1, le=MOST_THREADS)
    decode_threads: Annotated[
        int | None, Option("threads that decode images", SPEED, "run", "N", default="all cores")
    ] = Field(default=None, ge=1, le=MOST_THREADS)
    output: Annotated[
        Path | None,
        Option(
            "write the result to this file",
            OUTPUT,
            "file",
            "JSON",
            writes="file",
        ),
    ] = None
    outputs_dir: Annotated[
        Path | None,
        Option(
            "store of this run's outputs",
            OUTPUT,
            "file",
            "DIR",
            default="in the cache, $EVALKIT_CACHE",
        ),
    ] = None
    overwrite: Annotated[
        Literal["always", "never", "only-missing"],
        Option("which stored outputs to compute again", OUTPUT, "cell"),
    ] = "only-missing"
    shard_size: Annotated[
        int | None,
        Option("images in a shard: an interruption loses at most one", OUTPUT, "run", "N"),
    ] = Field(default=None, ge=1)


def refuse_limit(config: RunSettings, *names: str) -> None:
    """Refuse a quick look with ready-made input that has a row for each item of the whole set."""
    for name in names:
        if config.limit is not None and getattr(config, name) is not None:
            raise ValueError(
                f"--limit takes a part of the data, but --{name} holds rows for all of it; leave "
                "out --limit"
            )


def _ready_models(folder: Path, takes: Literal["embedding", "detection"] | None) -> list[str]:
    """Return the names of those whose head is an embedding's, or is not; or all."""
    heads = {path.stem: read_yaml(path).get("head", "embedding") for path in folder.glob("*.yaml")}
    return sorted(
        name
        for name, head in heads.items()
        if takes is None or (head == "embedding") == (takes == "embedding")
    )


def load_model_config(named: str, run: RunSettings) -> ModelConfig:
    """Resolve ``--model``: a YAML file, the name of one in ``configs/models``, or a model file.

    Options of the run (``--mean``, ``--color``, ...) override what the YAML file says.

    Raises
    ------
    evalkit.core.errors.InputError
        Nothing of that name exists, or its YAML is wrong.
    """
    import evalkit.configs  # noqa: PLC0415 - a folder of data files, found only where asked

    path = Path(named).expanduser()
    folder = Path(evalkit.configs.__path__[0]) / "models"
    ready = folder / f"{named}.yaml"
    if path.suffix in {".yaml", ".yml"} or (not path.exists() and ready.is_file()):
        chosen = path if path.suffix in {".yaml", ".yml"} else ready
        values = read_yaml(chosen)
        values["folder"] = chosen.parent
    elif path.exists():
        values = {"name": path.stem, "files": {"any": str(path.absolute())}}
    elif (symbol := Path(f"{path}-symbol.json")).is_file():  # MXNet names a model by its prefix
        values = {"name": path.name, "files": {"any": str(symbol.absolute())}}
    else:
        known = ", ".join(_ready_models(folder, run.takes))
        raise InputError(
            f"There is no model file {named!r}. Give a file, a model YAML, or one of: {known}."
        )
    config = validate(ModelConfig, values, str(named))
    override = {
        name: value
        for name in ("color", "layout", "mean", "std")
        if (value := getattr(run, name)) is not None
    }
    prepared = validate(
        InputSpec, {**config.input.model_dump(exclude_unset=True), **override}, COMMAND_LINE
    )
    changes: dict[str, Any] = {"input": prepared}
    if run.architecture is not None:
        changes["architecture"] = run.architecture
    return config.model_copy(update=changes)

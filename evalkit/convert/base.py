"""The contract between evalkit and a toolchain that builds a lower precision.

A converter belongs to a backend: it reads the fp32 model and writes one that the backend runs at
the requested precision. `evalkit.convert.convert` does the rest for all converters: it chooses and
prepares calibration images, writes atomically, compares with fp32, and writes the record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile")


class Batches(Protocol):
    """Prepared calibration images: finite, in the model's own layout and input type.

    Each iteration gives the same images. They are decoded batch by batch, so that a thousand
    photographs take the memory of one batch.
    """

    def __len__(self) -> int:
        """Count the batches."""

    def __iter__(self) -> Iterator[NDArray[np.float32] | NDArray[np.uint8]]:
        """Iterate over batches of equal shape (n, ...); only the last may have fewer rows.

        A model of a fixed batch size gets batches of exactly that size.
        """


@dataclass(frozen=True, slots=True)
class ConvertSettings:
    """Settings of a conversion, for the toolchain.

    Attributes
    ----------
    precision : str
        One of the converter's `targets`.
    method : str
        How int8 ranges come from the calibration images; one of the converter's `methods`.
    per_channel : bool
        One int8 scale for each output channel of a weight, instead of one for all.
    symmetric : bool
        int8 ranges are centred on zero.
    exclude : tuple of str
        Layers that stay in fp32: exact names of the converter's `layers`.
    threads : int or None
        CPU threads of the toolchain; None uses the cores that this process may use.
    seed : int
        For toolchains that draw at random.
    python : Path or None
        Interpreter that has the toolchain, if it is another one.
    architecture : str or None
        Registered architecture, for sources that hold weights only.
    shape : tuple of int
        Of one input with the batch, for tracing. The batch is the model's own where that is fixed,
        else 1.
    """

    precision: Precision
    method: Method = "minmax"
    per_channel: bool = True
    symmetric: bool = True
    exclude: tuple[str, ...] = ()
    threads: int | None = None
    seed: int = 0
    python: Path | None = None
    architecture: str | None = None
    shape: tuple[int, ...] = (1, 3, 112, 112)


@dataclass(frozen=True, slots=True)
class Built:
    """How a model was built.

    Attributes
    ----------
    versions : mapping of str to str
        Of the toolchain's packages.
    details : mapping
        Other facts that can change figures: opset, operators kept in fp32, ...: JSON values only.
    notes : tuple of str
        Sentences for the user.
    """

    versions: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Build: TypeAlias = Callable[[Path, tuple[str, ...]], Built]
"""Builds to a path, with some layers excluded; see `Converter.builder`."""


class Converter(ABC):
    """A toolchain that builds lower precisions for one backend.

    Attributes
    ----------
    name : str
        The backend that runs the built model.
    targets : tuple of str
        Precisions that it builds.
    methods : tuple of str
        Calibration methods that it knows; the first is the default.
    refusals : mapping of str to str
        For precisions that it does not build: why not, and what to do instead, in whole sentences.
    suffix : str
        Of the model file: ``.onnx``; empty for a folder.
    reference : str or None
        The backend that opens the source as fp32; None where it is the same one.
    """

    name: ClassVar[str]
    targets: ClassVar[tuple[Precision, ...]]
    methods: ClassVar[tuple[Method, ...]] = METHODS
    refusals: ClassVar[Mapping[Precision, str]] = {}
    suffix: ClassVar[str] = ""
    reference: ClassVar[str | None] = None

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """Name the convolutions and products that can be excluded, in the network's order.

        Empty where the toolchain cannot leave single layers out.
        """
        return ()

    @classmethod
    @abstractmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """Write the model.

        Parameters
        ----------
        source : Path
            The fp32 model; it has been opened and run before.
        out : Path
            Where to write. It does not exist, and lies in an empty folder of its own. Other files
            written into that folder (weights beside a graph) are moved along with it.
        settings : ConvertSettings
        batches : Batches or None
            Calibration images; None unless the target is int8.

        Raises
        ------
        evalkit.core.errors.EvalkitError
            The toolchain is not installed, or cannot convert this model.
        """

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """Yield a function that builds with any layers excluded, for trials of many exclusions.

        This default calibrates each time; see `CalibratesOnce`.
        """

        def build(out: Path, exclude: tuple[str, ...]) -> Built:
            return cls.build(source, out, replace(settings, exclude=exclude), batches)

        yield build


class CalibratesOnce(Converter):
    """A toolchain that calibrates once for many exclusions: it has a `builder`."""

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        with cls.builder(source, settings, batches) as build:
            return build(out, settings.exclude)

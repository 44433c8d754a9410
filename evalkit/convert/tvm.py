"""TVM: ONNX compiled to a library, in fp16 by its own pass or in int8 from a QDQ graph.

The QDQ graph is what ONNX Runtime's tools make; TVM runs it as simulated int8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import tvm

from evalkit.backends.base import Precision
from evalkit.backends.tvm.build import compile_graph, write_library
from evalkit.backends.tvm.onnx import load_onnx, onnx_infos
from evalkit.convert.base import Batches, Build, Built, Converter, ConvertSettings


class TvmConverter(Converter):
    """ONNX to a library (``.so``) for this processor, with its record beside it."""

    name: ClassVar[str] = "tvm"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "TVM's pass for lower floats makes fp16 alone. Build fp16, or take bf16 with "
        "--backend openvino or torch.",
    }
    suffix: ClassVar[str] = ".so"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`: those of the QDQ graph; fp16 leaves none out."""
        return _quantiser().layers(source, settings) if settings.precision == "int8" else ()

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        with cls.builder(source, settings, batches) as build:
            return build(out, settings.exclude)

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`: calibrates once."""
        if settings.precision == "fp16":
            yield lambda out, exclude: _compile(source, out, settings)
            return
        with (
            _quantiser().builder(source, settings, batches) as quantise,
            tempfile.TemporaryDirectory(prefix="evalkit-") as folder,
        ):

            def build(out: Path, exclude: tuple[str, ...]) -> Built:
                graph = Path(folder) / "qdq.onnx"
                made = quantise(graph, exclude)
                compiled = _compile(graph, out, settings)
                return Built(
                    versions={**made.versions, **compiled.versions},
                    details={**made.details, **compiled.details},
                    notes=made.notes,
                )

            yield build


def _quantiser() -> Any:
    from evalkit.convert.onnxruntime import OnnxRuntimeConverter  # noqa: PLC0415 - for int8 alone

    return OnnxRuntimeConverter


def _compile(source: Path, out: Path, settings: ConvertSettings) -> Built:
    proto = load_onnx(source)
    info, _ = onnx_infos(proto)
    shape = (info.batch, *settings.shape[1:])
    executable, record = compile_graph(proto, shape, settings.precision, source)
    write_library(executable, record, out)
    return Built(
        versions={"apache-tvm": tvm.__version__, "apache-tvm-ffi": record.ffi},
        details={"processor": record.cpu, "products": record.kernels},
    )

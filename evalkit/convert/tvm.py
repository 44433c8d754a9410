"""TVM: ONNX compiled to a library, in fp16 by its own pass or in int8 from a QDQ graph.

ONNX Runtime's tools write the QDQ graph; TVM runs it as simulated int8.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import tvm

from evalkit.backends.base import Precision
from evalkit.backends.tvm.build import compile_graph, write_library
from evalkit.backends.tvm.onnx import load_onnx, onnx_infos
from evalkit.convert.base import Built, ConvertSettings
from evalkit.convert.onnx_compiler import OnnxCompiler


class TvmConverter(OnnxCompiler):
    """ONNX to a library (``.so``) for this processor, with its record beside it."""

    name: ClassVar[str] = "tvm"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "int8")
    lowered: ClassVar[tuple[Precision, ...]] = ("int8",)
    refusals: ClassVar[dict[Precision, str]] = {
        "bf16": "TVM's pass for lower floats makes fp16 only. Build fp16, or build bf16 with "
        "--backend openvino or torch.",
    }
    suffix: ClassVar[str] = ".so"

    @classmethod
    def compile(cls, graph: Path, out: Path, settings: ConvertSettings) -> Built:
        """See `OnnxCompiler.compile`."""
        proto = load_onnx(graph)
        info, _ = onnx_infos(proto)
        shape = (info.batch, *settings.shape[1:])
        executable, record = compile_graph(proto, shape, settings.precision, graph)
        write_library(executable, record, out)
        return Built(
            versions={"apache-tvm": tvm.__version__, "apache-tvm-ffi": record.ffi},
            details={"processor": record.cpu, "products": record.kernels},
        )

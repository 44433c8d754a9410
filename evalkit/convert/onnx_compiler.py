"""Toolchains that compile an ONNX graph after ONNX Runtime's tools have lowered its precision."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from evalkit.backends.base import Precision
from evalkit.convert.base import Batches, Build, Built, CalibratesOnce, ConvertSettings


class OnnxCompiler(CalibratesOnce):
    """A toolchain that compiles ONNX graphs.

    Attributes
    ----------
    lowered : tuple of str
        Precisions for which ONNX Runtime's tools write the graph; the toolchain itself lowers the
        fp32 graph to the others.
    """

    lowered: ClassVar[tuple[Precision, ...]]

    @classmethod
    @abstractmethod
    def compile(cls, graph: Path, out: Path, settings: ConvertSettings) -> Built:
        """Compile a graph."""

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`: those that ONNX Runtime's tools can exclude."""
        if settings.precision not in cls.lowered:
            return ()
        names: tuple[str, ...] = _graphs().layers(source, settings)
        return names

    @classmethod
    @contextmanager
    def builder(
        cls, source: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Iterator[Build]:
        """See `Converter.builder`."""
        if settings.precision not in cls.lowered:
            yield lambda out, exclude: cls.compile(source, out, settings)
            return
        with (
            _graphs().builder(source, settings, batches) as write,
            tempfile.TemporaryDirectory(prefix="evalkit-") as folder,
        ):

            def build(out: Path, exclude: tuple[str, ...]) -> Built:
                graph = Path(folder) / "graph.onnx"
                lower = write(graph, exclude)
                compiled = cls.compile(graph, out, settings)
                return Built(
                    {**lower.versions, **compiled.versions},
                    {**lower.details, **compiled.details},
                    lower.notes,
                )

            yield build


def _graphs() -> Any:
    from evalkit.convert.onnxruntime import OnnxRuntimeConverter  # noqa: PLC0415 - optional

    return OnnxRuntimeConverter

"""Compiled libraries of TVM: made from an ONNX file, kept in the cache, read with their record.

A library is a shared object. Beside it lies a JSON file, its name plus ``.json``: the input
sizes, the precision of the operators, the processor, and the library's SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import transform
from tvm.s_tir import dlight
from tvm.support import cc

from evalkit.backends.base import Precision, TensorInfo
from evalkit.backends.kernels import count_arithmetic
from evalkit.backends.tensors import check_file, explained, first_line, wrong_precision
from evalkit.backends.tvm import graphs
from evalkit.backends.tvm.onnx import onnx_infos
from evalkit.backends.tvm.schedule import CpuRule
from evalkit.core.errors import InputError, UnavailableError
from evalkit.core.files import cache_dir, sha256_file, sha256_json

RECIPE = 1  # raise it when a change here makes other libraries of the same model
_MAKERS = {
    "fp16": "an fp32 model, which TVM rounds itself when it is opened with --precision fp16",
    "int8": "a QDQ model (python -m evalkit convert MODEL --to int8 --backend tvm)",
    "fp32": "the model as it was exported",
}


@dataclass(frozen=True, slots=True)
class Record:
    """The facts about a compiled library.

    Attributes
    ----------
    tvm, ffi : str
        Versions that compiled it.
    cpu : str
        LLVM's name of the processor that it was compiled for.
    features : tuple of str
        Features that the processor must have.
    precision, built : str
        The requested precision, and that of the graph.
    kernels : mapping of str to int
        Convolutions and products by the precision of their operands.
    input, outputs : TensorInfo
        All sizes of the input are numbers, except that the batch may be open.
    """

    tvm: str
    ffi: str
    cpu: str
    features: tuple[str, ...]
    precision: Precision
    built: Precision
    kernels: dict[str, int]
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]


def record_file(library: Path) -> Path:
    """Return the path of the record beside a library."""
    return library.with_name(f"{library.name}.json")


def host() -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return LLVM's name of this processor, and the features that it has and lacks.

    The name alone would imply features that a virtual machine may hide.
    """
    features = dict(tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")())
    has = tuple(sorted(str(name) for name, present in features.items() if present))
    lacks = tuple(sorted(str(name) for name, present in features.items() if not present))
    return str(tvm_ffi.get_global_func("tvm.codegen.llvm.GetHostCPUName")()), has, lacks


def compile_graph(
    proto: Any, shape: graphs.Shape, precision: Precision, model: Path
) -> tuple[Any, Record]:
    """Compile for this processor and one input shape; the batch may stay open.

    Raises
    ------
    evalkit.core.errors.InputError
        The graph was built in another precision, or TVM cannot compile it.
    """
    graph = graphs.import_graph(proto, shape, model)
    built = graphs.built_in(graph)
    half = built == "fp32" and precision == "fp16"
    if built != precision and not half:
        raise wrong_precision(model, built, precision, _MAKERS[precision])
    cpu, has, lacks = host()
    flags = [f"+{name}" for name in has] + [f"-{name}" for name in lacks]
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, **({"mattr": flags} if flags else {})})
    action = (
        f"{model}: TVM {tvm.__version__} cannot compile it at {precision} for a batch of shape "
    )
    remedy = "Run it with --backend onnxruntime, or export it with other operators."
    with explained(action + graphs.shape_text(shape), remedy):
        graph = graphs.lower(graph, half=half)
        executable = _built(graph, target)
    image, declared = onnx_infos(proto)
    outputs = zip(declared, graphs.output_types(graph), strict=True)
    return executable, Record(
        tvm=tvm.__version__,
        ffi=tvm_ffi.__version__,
        cpu=cpu,
        features=has,
        precision=precision,
        built=built,
        kernels=dict(count_arithmetic(graphs.graph_kernels(graph), graphs.HEAVY_OPS)),
        input=TensorInfo(image.name, image.dtype, (shape[0] or graphs.BATCH, *shape[1:])),
        outputs=tuple(TensorInfo(info.name, *kind) for info, kind in outputs),
    )


def _built(graph: Any, target: Any) -> Any:
    fused = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        dlight.ApplyDefaultSchedule(CpuRule()),
    ]
    with target:
        graph = tvm.transform.Sequential(fused)(graph)
    return relax.build(graph, target=target)


def write_library(executable: Any, record: Record, library: Path) -> None:
    """Write the shared object and its record.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        There is no compiler to link it with.
    """
    if cc.get_cc() is None:
        raise UnavailableError(
            "TVM needs a C++ compiler to link a library. Install one: apt-get install g++."
        )
    executable.export_library(str(library))
    fields = {"format": RECIPE, "sha256": sha256_file(library), **asdict(record)}
    record_file(library).write_text(json.dumps(fields, indent=1), encoding="utf-8")


def read_record(library: Path) -> Record:
    """Read the record beside a library and check it, before any code of the library is loaded.

    Raises
    ------
    evalkit.core.errors.InputError
        There is no record, or it belongs to another library.
    evalkit.core.errors.UnavailableError
        The library was compiled for another processor or by another TVM.
    """
    check_file(library)
    beside = record_file(library)
    try:
        fields = json.loads(beside.read_text(encoding="utf-8"))
        digest, form = fields.pop("sha256"), fields.pop("format")
        image = _info(fields.pop("input"))
        outputs = tuple(_info(output) for output in fields.pop("outputs"))
        features = tuple(fields.pop("features"))
        record = Record(features=features, input=image, outputs=outputs, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{library} has no record {beside.name} beside it, or one of another version. Give "
            "the ONNX file, or compile it again: python -m evalkit convert --backend tvm."
        ) from error
    if digest != sha256_file(library):
        raise InputError(
            f"{library} is not the library that {beside.name} describes, or is incomplete. Compile "
            "it again."
        )
    if form != RECIPE or (record.tvm, record.ffi) != (tvm.__version__, tvm_ffi.__version__):
        raise UnavailableError(
            f"{library} was compiled by TVM {record.tvm}, and this is {tvm.__version__}. Compile "
            "it again with this one."
        )
    missing = sorted(set(record.features) - set(host()[1]))
    if missing:
        raise UnavailableError(
            f"{library} was compiled for {record.cpu}; this processor lacks {', '.join(missing)}. "
            "Compile it again here."
        )
    return record


def _info(fields: dict[str, Any]) -> TensorInfo:
    return TensorInfo(fields["name"], fields["dtype"], tuple(fields["shape"]))


def cached(proto: Any, shape: graphs.Shape, precision: Precision, model: Path) -> Any:
    """Return a loaded module or executable and its record, from the cache or newly compiled.

    Without a C++ compiler to link with, nothing is cached.
    """
    key = sha256_json(
        {
            "model": hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
            "shape": shape,
            "precision": precision,
            "host": host(),
            "versions": [RECIPE, tvm.__version__, tvm_ffi.__version__],
        }
    )
    folder = cache_dir() / "tvm" / key
    library = folder / "model.so"
    with contextlib.suppress(InputError, UnavailableError):
        record = read_record(library)
        return load_library(library), record
    executable, record = compile_graph(proto, shape, precision, model)
    if cc.get_cc() is None:
        return executable, record
    _keep(executable, record, library)
    return load_library(library), record


def load_library(library: Path) -> Any:
    """Load a shared object, which runs its code; call `read_record` first.

    Raises
    ------
    evalkit.core.errors.InputError
        The system cannot load it.
    """
    with explained(f"{library} cannot be loaded", "Compile it again."):
        return tvm.runtime.load_module(str(library))


def _keep(executable: Any, record: Record, library: Path) -> None:
    """Write both files, then rename their folder: no process sees half of it."""
    folder = library.parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as work:
            whole = Path(work) / "whole"
            whole.mkdir()
            write_library(executable, record, whole / library.name)
            shutil.rmtree(folder, ignore_errors=True)
            whole.rename(folder)
    except (OSError, RuntimeError) as error:
        if library.is_file():  # another process was faster
            return
        raise InputError(
            f"Cannot store the compiled model in {folder.parent}: {first_line(error)}. Free some "
            "space, or name another folder in the environment variable EVALKIT_CACHE."
        ) from error

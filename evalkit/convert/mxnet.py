"""MXNet's int8 by oneDNN, built in an interpreter that has MXNet.

The toolchain is MXNet's own: fusion and quantisation for oneDNN, its ranges or its entropy
thresholds. Its collector is a callback of the engine, which prints an error and goes on. ``naive``
fails in this way on every tensor that oneDNN holds in a layout of its own. Layers without a range
are then quantised batch by batch, at a cosine of .9. So this module makes the layers outputs of the
network, and checks that each has a range.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision
from evalkit.backends.mxnet.backend import REMEDY, import_mxnet
from evalkit.backends.mxnet.network import SYMBOL, Network, cause, find_files, load_network
from evalkit.backends.tensors import first_line
from evalkit.convert.base import Batches, Built, Converter, ConvertSettings, Method
from evalkit.convert.toolchain import check_range, required
from evalkit.core.errors import InputError, UnavailableError

LAYERS = frozenset({"Convolution", "FullyConnected"})
_FUSION = "MKLDNN_QUANTIZE"
_LONGEST = 6 * 3600.0
"""Seconds that a conversion may take."""
_METHODS: dict[Method, str] = {"minmax": "naive", "entropy": "entropy"}
_SETTINGS = ("precision", "method", "per_channel", "symmetric", "exclude")


class MxnetConverter(Converter):
    """A symbol and its parameters to the same in int8."""

    name: ClassVar[str] = "mxnet"
    targets: ClassVar[tuple[Precision, ...]] = ("int8",)
    methods: ClassVar[tuple[Method, ...]] = tuple(_METHODS)
    refusals: ClassVar[dict[Precision, str]] = {
        precision: f"MXNet has no {precision} operators on a CPU. Build int8, or build {precision} "
        "with --backend openvino or torch."
        for precision in ("fp16", "bf16")
    }
    suffix: ClassVar[str] = SYMBOL

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`."""
        nodes = json.loads(find_files(source)[0].read_text(encoding="utf-8"))["nodes"]
        return tuple(node["name"] for node in nodes if node["op"] in LAYERS)

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        from evalkit.backends.worker.process import Worker  # noqa: PLC0415 - not in a worker

        with (
            closing(
                Worker(mxnet_python(settings.python), threads=settings.threads, timeout=_LONGEST)
            ) as worker,
            tempfile.TemporaryDirectory(prefix="evalkit-") as folder,
        ):
            files = []
            for number, batch in enumerate(required(batches)):
                files.append(str(Path(folder, f"{number}.npy")))
                np.save(files[-1], batch, allow_pickle=False)
            details = worker.ask(
                f"quantising {source}",
                do="call",
                target="evalkit.convert.mxnet:quantise",
                arguments={
                    "source": str(source),
                    "out": str(out),
                    "batches": files,
                    "settings": {name: getattr(settings, name) for name in _SETTINGS},
                },
            )
        versions = {"mxnet": details.pop("mxnet"), "numpy": worker.versions["numpy"]}
        return Built(versions, details)


def mxnet_python(python: Path | None) -> Path:
    """Return the interpreter that has MXNet: `python`, this one, or that of ``evalkit env``.

    Raises
    ------
    evalkit.core.errors.UnavailableError
        There is none.
    """
    from evalkit.backends.environments import ready_interpreter  # noqa: PLC0415 - not in a worker

    here = Path(sys.executable) if importlib.util.find_spec("mxnet") is not None else None
    interpreter = python or here or ready_interpreter("mxnet")
    if interpreter is None:
        raise UnavailableError(f"MXNet is not installed here. {REMEDY}")
    return interpreter


def quantise(source: str, out: str, batches: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Quantise a model, in an interpreter that has MXNet.

    Parameters
    ----------
    source, out : str
        Symbols; the parameters are written beside the latter.
    batches : list of str
        Files of NumPy's, each a calibration batch.
    settings : dict
        Fields of `ConvertSettings`. With `symmetric`, int8 is signed everywhere; else it is uint8
        where no value is negative.

    Returns
    -------
    dict
        MXNet's version, and how many layers there are of each kind: JSON values.

    Raises
    ------
    evalkit.core.errors.InputError
        MXNet cannot read, fuse or quantise the model, or a layer gave no range.
    """
    mxnet = import_mxnet()
    network = load_network(Path(source), mxnet)
    try:
        graph, arguments, states, count = _quantised(network, batches, ConvertSettings(**settings))
    except ImportError as error:
        raise UnavailableError(
            f"MXNet's entropy calibration lacks a package: {first_line(error)}. Run: "
            f"{sys.executable} -m pip install scipy==1.11.4, or use --method minmax."
        ) from error
    except mxnet.MXNetError as error:
        raise InputError(
            f"{source}: MXNet cannot quantise it: {cause(error)}. Leave the layer out with "
            "--exclude, or build int8 with another backend."
        ) from error
    graph.save(out)
    arrays = {f"arg:{name}": value for name, value in arguments.items()}
    arrays.update({f"aux:{name}": value for name, value in states.items()})
    mxnet.nd.save(out.removesuffix(SYMBOL) + "-0000.params", arrays)
    return {"mxnet": mxnet.__version__, "fusion": _FUSION, "calibrated_tensors": count}


def _quantised(
    network: Network, batches: list[str], settings: ConvertSettings
) -> tuple[Any, dict[str, Any], dict[str, Any], int]:
    """Return the quantised symbol, its arguments and states, and the number of ranges."""
    from mxnet.contrib import quantization  # noqa: PLC0415 - optional

    kind = "int8" if settings.symmetric else "auto"
    method = _METHODS[settings.method]
    fused = network.symbol.get_backend_symbol(_FUSION)
    graph, _, states, collector = quantization.quantize_graph(
        fused,
        network.arguments,
        network.states,
        excluded_sym_names=_fused_names(fused, set(settings.exclude)),
        calib_mode=method,
        quantized_dtype=kind,
        quantize_mode="smart",
        quantize_granularity="channel-wise" if settings.per_channel else "tensor-wise",
    )
    count = _collect(network._replace(symbol=fused), batches, collector)
    graph, arguments, states = quantization.calib_graph(
        graph, network.arguments, states, collector, method, quantized_dtype=kind
    )
    return graph.get_backend_symbol(_FUSION), arguments, states, count


def _fused_names(fused: Any, exclude: set[str]) -> list[str]:
    """Name the nodes that hold the excluded layers after fusion."""
    nodes = json.loads(fused.tojson())["nodes"]

    def layers(node: dict[str, Any]) -> set[str]:
        inner = (part["name"] for graph in node.get("subgraphs", ()) for part in graph["nodes"])
        return {node["name"], *inner}

    return [node["name"] for node in nodes if layers(node) & exclude]


def _collect(network: Network, batches: list[str], collector: Any) -> int:
    """Fill the toolchain's collector from tensors that are made outputs; return their number."""
    mxnet = import_mxnet()
    internals = network.symbol.get_internals()
    names = [name for name in internals.list_outputs() if name in collector.include_layer]
    watched = mxnet.sym.Group([internals[name] for name in names])
    (image,) = set(watched.list_arguments()) - set(network.arguments)
    arguments = {name: network.arguments.get(name) for name in watched.list_arguments()}
    states = {name: network.states[name] for name in watched.list_auxiliary_states()}
    for file in batches:
        batch = mxnet.nd.array(np.load(file, allow_pickle=False), dtype="float32")
        executor = watched.bind(
            mxnet.cpu(), {**arguments, image: batch}, aux_states=states, grad_req="null"
        )
        for name, output in zip(names, executor.forward(is_train=False), strict=True):
            _add(collector, name, output.asnumpy())
    return len(names)


def _add(collector: Any, name: str, values: NDArray[np.float32]) -> None:
    """Do the work of the toolchain's own callback, for one tensor of one batch."""
    from mxnet.contrib import quantization  # noqa: PLC0415 - optional

    low, high = float(values.min()), float(values.max())
    check_range(name, np.array([low, high]))
    if hasattr(collector, "min_max_dict"):
        lowest, highest = collector.min_max_dict.get(name, (low, high))
        collector.min_max_dict[name] = (min(low, lowest), max(high, highest))
        return
    top = max(abs(low), abs(high))
    if name in collector.hist_dict:
        histogram = quantization.combine_histogram(
            collector.hist_dict[name], values, low, high, top
        )
    else:
        counts, edges = np.histogram(values, bins=collector.num_bins, range=(-top, top))
        histogram = (counts, edges, low, high, top)
    collector.hist_dict[name] = histogram

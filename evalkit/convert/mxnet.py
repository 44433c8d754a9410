"""MXNet's int8 by oneDNN, built in an interpreter that has MXNet.

The toolchain is MXNet's own: fusion and quantisation for oneDNN, its ranges or its entropy
thresholds. What it gets wrong if it is left to itself: its collector is a callback of the engine,
in which an error is printed and passed over, and ``naive`` fails so on every tensor that oneDNN
holds in a layout of its own. The layers without a range are then quantised batch by batch, at a
cosine of .9. Here the layers are outputs of the network, and each must have a range.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Precision
from evalkit.backends.mxnet.backend import REMEDY, import_mxnet
from evalkit.backends.mxnet.network import SYMBOL, Network, cause, find_files, load_network
from evalkit.backends.tensors import first_line
from evalkit.convert.base import Batches, Built, Converter, ConvertSettings, Method
from evalkit.core.errors import InputError, UnavailableError

LAYERS = frozenset({"Convolution", "FullyConnected"})
_FUSION = "MKLDNN_QUANTIZE"
_LONGEST = 6 * 3600.0
"""Seconds that a conversion may take."""
_METHODS: dict[Method, str] = {"minmax": "naive", "entropy": "entropy"}


class MxnetConverter(Converter):
    """A symbol and its parameters to the same in int8."""

    name: ClassVar[str] = "mxnet"
    targets: ClassVar[tuple[Precision, ...]] = ("int8",)
    methods: ClassVar[tuple[Method, ...]] = tuple(_METHODS)
    refusals: ClassVar[dict[Precision, str]] = {
        precision: f"MXNet has no {precision} operators on a CPU. Build int8, or take {precision} "
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

        assert batches is not None
        worker = Worker(_interpreter(settings), threads=settings.threads, timeout=_LONGEST)
        try:
            with tempfile.TemporaryDirectory(prefix="evalkit-") as folder:
                files = []
                for number, batch in enumerate(batches):
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
                        "method": settings.method,
                        "per_channel": settings.per_channel,
                        "symmetric": settings.symmetric,
                        "exclude": settings.exclude,
                    },
                )
        finally:
            worker.close()
        versions = {"mxnet": details.pop("mxnet"), "numpy": worker.versions["numpy"]}
        return Built(versions, details)


def _interpreter(settings: ConvertSettings) -> Path:
    from evalkit.backends.environments import ready_interpreter  # noqa: PLC0415 - not in a worker

    here = Path(sys.executable) if importlib.util.find_spec("mxnet") is not None else None
    python = settings.python or here or ready_interpreter("mxnet")
    if python is None:
        raise UnavailableError(f"MXNet is not installed here. {REMEDY}")
    return python


def quantise(
    source: str,
    out: str,
    batches: list[str],
    method: Method,
    *,
    per_channel: bool,
    symmetric: bool,
    exclude: list[str],
) -> dict[str, Any]:
    """Quantise a model, in an interpreter that has MXNet.

    Parameters
    ----------
    source, out : str
        Symbols; the parameters go beside the latter.
    batches : list of str
        Files of NumPy's, each a calibration batch.
    method : str
        ``minmax`` or ``entropy``.
    per_channel : bool
        A scale for each output channel of a weight.
    symmetric : bool
        Signed int8 everywhere; else uint8 where no value is negative.
    exclude : list of str
        Layers that stay in fp32.

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
    from mxnet.contrib import quantization  # noqa: PLC0415 - optional

    network = load_network(Path(source), mxnet)
    kind = "int8" if symmetric else "auto"
    try:
        fused = network.symbol.get_backend_symbol(_FUSION)
        graph, _, states, collector = quantization.quantize_graph(
            fused,
            network.arguments,
            network.states,
            excluded_sym_names=_fused_names(fused, set(exclude)),
            calib_mode=_METHODS[method],
            quantized_dtype=kind,
            quantize_mode="smart",
            quantize_granularity="channel-wise" if per_channel else "tensor-wise",
        )
        watched = _collect(network._replace(symbol=fused), batches, collector)
        graph, arguments, states = quantization.calib_graph(
            graph, network.arguments, states, collector, _METHODS[method], quantized_dtype=kind
        )
        graph = graph.get_backend_symbol(_FUSION)
    except ImportError as error:
        raise UnavailableError(
            f"MXNet's entropy calibration lacks a package: {first_line(error)}. Run: "
            f"{sys.executable} -m pip install scipy==1.11.4, or take --method minmax."
        ) from error
    except mxnet.MXNetError as error:
        raise InputError(
            f"{source}: MXNet cannot quantise it: {cause(error)}. Leave the layer out with "
            "--exclude, or take another backend's int8."
        ) from error
    graph.save(out)
    held = {f"arg:{name}": value for name, value in arguments.items()}
    held.update({f"aux:{name}": value for name, value in states.items()})
    mxnet.nd.save(out.removesuffix(SYMBOL) + "-0000.params", held)
    return {"mxnet": mxnet.__version__, "fusion": _FUSION, "calibrated_tensors": watched}


def _fused_names(fused: Any, exclude: set[str]) -> list[str]:
    """Name the nodes that hold the excluded layers after fusion."""
    nodes = json.loads(fused.tojson())["nodes"]

    def layers(node: dict[str, Any]) -> set[str]:
        inner = (held["name"] for graph in node.get("subgraphs", ()) for held in graph["nodes"])
        return {node["name"], *inner}

    return [node["name"] for node in nodes if layers(node) & exclude]


def _collect(network: Network, batches: list[str], collector: Any) -> int:
    """Fill the toolchain's collector from its tensors as outputs; return how many they are."""
    mxnet = import_mxnet()
    internals = network.symbol.get_internals()
    names = [name for name in internals.list_outputs() if name in collector.include_layer]
    watched = mxnet.sym.Group([internals[name] for name in names])
    (given,) = set(watched.list_arguments()) - set(network.arguments)
    arguments = {name: network.arguments.get(name) for name in watched.list_arguments()}
    states = {name: network.states[name] for name in watched.list_auxiliary_states()}
    for file in batches:
        batch = mxnet.nd.array(np.load(file, allow_pickle=False), dtype="float32")
        executor = watched.bind(
            mxnet.cpu(), {**arguments, given: batch}, aux_states=states, grad_req="null"
        )
        for name, output in zip(names, executor.forward(is_train=False), strict=True):
            _add(collector, name, output.asnumpy())
    return len(names)


def _add(collector: Any, name: str, values: NDArray[np.float32]) -> None:
    """Do what the toolchain's own callback would, for one tensor of one batch."""
    from mxnet.contrib import quantization  # noqa: PLC0415 - optional

    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"The layer output {name} is not finite on the calibration images.")
    if hasattr(collector, "min_max_dict"):
        held = collector.min_max_dict.get(name, (low, high))
        collector.min_max_dict[name] = (min(low, held[0]), max(high, held[1]))
        return
    top = max(abs(low), abs(high))
    if name in collector.hist_dict:
        held = quantization.combine_histogram(collector.hist_dict[name], values, low, high, top)
    else:
        counts, edges = np.histogram(values, bins=collector.num_bins, range=(-top, top))
        held = (counts, edges, low, high, top)
    collector.hist_dict[name] = held

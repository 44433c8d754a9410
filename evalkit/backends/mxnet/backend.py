"""MXNet 1.9: a symbol and its parameters, on the CPU.

MXNet needs NumPy 1.23 and system libraries, so that it mostly runs in an environment of its own,
which ``evalkit env create mxnet`` builds and this backend then finds. Where MXNet can be imported
it runs in this process.

Three settings are made before MXNet is first imported, none of them where the user has set it. Its
subgraphs for oneDNN are off, since they crash on some networks (depthwise convolutions under
PReLU). Its engine is the one that works in the calling thread, the only one whose number of
threads can be chosen later. Its own number of threads is half of the cores.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import (
    Backend,
    Precision,
    Probe,
    Ran,
    Session,
    SessionOptions,
    TensorInfo,
)
from evalkit.backends.kernels import (
    Kernel,
    count_arithmetic,
    describe_precision,
    is_int8,
)
from evalkit.backends.mxnet.network import Network, cause, load_network
from evalkit.backends.tensors import (
    check_batch,
    check_offered,
    first_line,
    float32_outputs,
    trial_shapes,
)
from evalkit.core.errors import InputError
from evalkit.core.machine import available_cores

HEAVY_OPS = frozenset(
    {
        "Convolution",
        "Deconvolution",
        "FullyConnected",
        "dot",
        "batch_dot",
        "RNN",
        "_sg_mkldnn_conv",
        "_sg_mkldnn_fully_connected",
        "_contrib_quantized_conv",
        "_contrib_quantized_fully_connected",
    }
)
_EXECUTORS = 4  # kept, one for each shape of batch
_MORE = 32  # images or pixels, to see which sizes a network leaves open
_LEFT_OVER = "IsMKLDNNData"
"""In the error of some int8 networks whose buffers kept oneDNN's layout from the batch before."""
_ENGINE = {"MXNET_SUBGRAPH_BACKEND": "NONE", "MXNET_ENGINE_TYPE": "NaiveEngine"}
REMEDY = (
    "Run: evalkit env create mxnet. It builds an environment that is found from then on; or name "
    "an interpreter that has MXNet with --python."
)


class MxnetBackend(Backend):
    """MXNet's symbols: in this process, else in the environment that evalkit made."""

    name: ClassVar[str] = "mxnet"

    @classmethod
    def probe(cls) -> Probe:
        """See `Backend.probe`."""
        if importlib.util.find_spec("mxnet") is None:
            elsewhere = _elsewhere()
            if elsewhere is not None:
                return elsewhere.probe()
            return Probe(False, reason="MXNet is not installed here.", remedy=REMEDY)
        try:
            mxnet = import_mxnet()
        except Exception as error:
            reason = f"MXNet cannot be imported: {cause(error)}."
            return Probe(False, reason=reason, remedy=REMEDY)
        return Probe(True, mxnet.__version__, ("cpu",), ("fp32", "int8"))

    @classmethod
    def open(cls, model: Path, options: SessionOptions) -> Session:
        """See `Backend.open`.

        Parameters
        ----------
        model : Path
            ``NAME-symbol.json``, ``NAME-0000.params``, or the ``NAME`` before them.
        options : SessionOptions

        Raises
        ------
        evalkit.core.errors.InputError
            Besides: the parameters are not those of the symbol.
        """
        check_offered(cls.name, cls.probe(), options.device, options.precision)
        elsewhere = _elsewhere() if importlib.util.find_spec("mxnet") is None else None
        if elsewhere is None:
            return MxnetSession(model, options)
        session = elsewhere.open(model, options)
        path = session.ran.details["interpreter"]["path"]
        note = f"MXNet ran in {path}, the environment that 'evalkit env create mxnet' made."
        session.ran = replace(session.ran, notes=(*session.ran.notes, note))
        return session


class MxnetSession(Session):
    """One symbol with its parameters; see `Session`.

    Parameters
    ----------
    model : Path
    options : SessionOptions
        Checked against the probe already.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self.model = model
        self.threads = options.threads or available_cores()
        self._mxnet = import_mxnet()
        network = load_network(model, self._mxnet)
        given = _only_input(model, network)
        self._runs_once = False
        self._executors: OrderedDict[tuple[int, ...], Any] | None = OrderedDict()
        self._network, self._input = network, given
        sizes, self.outputs = _sizes(model, network, given, options.image)
        self.inputs = (TensorInfo(given, "float32", sizes),)
        kernels = self._kernels(options)
        built = _built_precision(kernels)
        if built != options.precision:
            raise InputError(_mismatch(model, built, options.precision))
        counts = count_arithmetic(kernels, HEAVY_OPS)
        self.ran = Ran(
            backend=MxnetBackend.name,
            version=self._mxnet.__version__,
            device="cpu",
            precision_requested=options.precision,
            precision_ran=describe_precision(counts, built),
            threads=self.threads,
            details={
                "heavy_kernels_by_precision": dict(counts),
                "subgraph_backend": os.environ["MXNET_SUBGRAPH_BACKEND"],
                "engine": os.environ["MXNET_ENGINE_TYPE"],
                "parameters": network.parameters_file.name,
            },
        )

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See `Session.run`."""
        if self._executors is None:
            raise InputError(f"The session of {self.model} is closed; open the model again.")
        (info,) = self.inputs
        given = check_batch(batch, info, self.model)
        try:
            values = self._forward(given)
        except self._mxnet.MXNetError as error:
            raise InputError(
                f"{self.model}: MXNet cannot run a batch of shape {batch.shape}: "
                f"{cause(error)}. Give the size that the symbol was made for, or a smaller "
                "batch."
            ) from error
        return float32_outputs((output.name for output in self.outputs), values, self.model)

    def close(self) -> None:
        """See `Session.close`."""
        self._executors = None

    def _forward(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        """Run the batch; a bound network that cannot run twice is bound for every batch."""
        assert self._executors is not None
        self._mxnet.base._LIB.MXSetNumOMPThreads(self.threads)
        if self._runs_once:
            self._executors.clear()
        try:
            return self._run_bound(batch)
        except self._mxnet.MXNetError as error:
            if self._runs_once or _LEFT_OVER not in str(error):
                raise
        self._runs_once = True
        self._executors.clear()
        return self._run_bound(batch)

    def _run_bound(self, batch: NDArray[Any]) -> list[NDArray[Any]]:
        executor = self._executor(batch.shape)
        executor.arg_dict[self._input][:] = batch
        return [output.asnumpy() for output in executor.forward(is_train=False)]

    def _executor(self, shape: tuple[int, ...]) -> Any:
        """Return the network bound to a shape; the last few are kept, and share their memory."""
        assert self._executors is not None
        held = self._executors.pop(shape, None)
        if held is None:
            network = self._network
            batch = self._mxnet.nd.zeros(shape)
            held = network.symbol.bind(
                self._mxnet.cpu(),
                {**network.arguments, self._input: batch},
                aux_states=network.states,
                grad_req="null",
                shared_exec=next(reversed(self._executors.values()), None),
            )
            if len(self._executors) == _EXECUTORS:
                self._executors.popitem(last=False)
        self._executors[shape] = held
        return held

    def _kernels(self, options: SessionOptions) -> list[Kernel]:
        """List the operators of the graph that is executed, with the types of what they read."""
        (info,) = self.inputs
        shape = trial_shapes(info, options.image)[0]
        try:
            self.run(np.zeros(shape, np.float32))
            graph = self._executor(shape).get_optimized_symbol()
            types = {name: value.dtype for name, value in self._network.arguments.items()}
            return _read_kernels(graph, {**types, self._input: np.float32})
        except self._mxnet.MXNetError as error:
            raise InputError(
                f"{self.model} loads but MXNet cannot run it: {cause(error)}. Check that "
                "this version has its operators."
            ) from error


def import_mxnet() -> Any:
    """Import MXNet under any NumPy, with the settings that the module describes."""
    for name, value in {**_ENGINE, "OMP_NUM_THREADS": str(available_cores())}.items():
        os.environ.setdefault(name, value)
    with _names_that_numpy_dropped():
        import mxnet  # noqa: PLC0415 - optional, and slow to import

    return mxnet


@contextmanager
def _names_that_numpy_dropped() -> Iterator[None]:
    """Give NumPy the names that MXNet looks up while it is imported."""

    def gone(*_: Any) -> None:
        raise AttributeError("NumPy has this function no more.")

    dropped: dict[str, Any] = {
        **{"PZERO": 0.0, "NZERO": -0.0, "PINF": np.inf, "NINF": -np.inf, "Inf": np.inf},
        **{"NaN": np.nan, "NAN": np.nan, "bool": bool, "alltrue": np.all, "sometrue": np.any},
        **{"product": np.prod, "round_": np.round, "msort": np.sort, "in1d": gone, "trapz": gone},
        **dict.fromkeys(("mirr", "npv", "pmt", "ppmt", "pv", "rate"), gone),
    }
    added = [name for name in dropped if name not in vars(np)]
    for name in added:
        setattr(np, name, dropped[name])
    try:
        yield
    finally:
        for name in added:
            delattr(np, name)


def _elsewhere() -> type[Backend] | None:
    """Return the backend in the environment that evalkit made, if there is one."""
    from evalkit.backends.environments import ready_interpreter  # noqa: PLC0415
    from evalkit.backends.worker.process import in_worker  # noqa: PLC0415 - not needed elsewhere
    from evalkit.backends.worker.session import isolated  # noqa: PLC0415

    python = None if in_worker() else ready_interpreter(MxnetBackend.name)
    return None if python is None else isolated(MxnetBackend.name, python)


def _only_input(model: Path, network: Network) -> str:
    wanted = network.symbol.list_arguments()
    missing = [name for name in wanted if name not in network.arguments]
    if len(missing) != 1:
        held = ", ".join(missing[:5]) or "none"
        raise InputError(
            f"{model}: {len(missing)} of the symbol's {len(wanted)} arguments are not in "
            f"{network.parameters_file.name} ({held}); just one is expected, the image. Use the "
            "parameters of this symbol, and a symbol that ends at its embedding, without labels "
            "(symbol.get_internals()['fc1_output'])."
        )
    return str(missing[0])


def _sizes(
    model: Path, network: Network, given: str, image: tuple[int, int, int] | None
) -> tuple[tuple[int | None, ...], tuple[TensorInfo, ...]]:
    """Find which sizes the network takes, which of them it leaves open, and what it gives."""
    failures = []
    for shape in trial_shapes(TensorInfo(given, "float32", (None,) * 4), image):
        try:
            outputs = _infer(network, given, shape)
        except ValueError as error:
            failures.append(f"{shape}: {error}")
            continue
        sizes: list[int | None] = list(shape)
        variants = [outputs]
        for axes in ((0,), (2, 3)):
            other = tuple(n + _MORE if axis in axes else n for axis, n in enumerate(shape))
            with suppress(ValueError):  # else the network is bound to this size
                variants.append(_infer(network, given, other))
                for axis in axes:
                    sizes[axis] = None
        names = network.symbol.list_outputs()
        infos = (
            TensorInfo(name, "float32", _common(held))
            for name, held in zip(names, zip(*variants, strict=True), strict=True)
        )
        return tuple(sizes), tuple(infos)
    raise InputError(
        f"{model}: the parameters do not fit the symbol, or it takes other images; tried "
        f"{'; '.join(failures)}. Use the parameters of this symbol, and state its size under "
        "'input' in the model's YAML."
    )


def _common(shapes: tuple[tuple[int, ...], ...]) -> tuple[int | None, ...]:
    """Keep the sizes that are the same in all shapes."""
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _infer(network: Network, given: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Infer the outputs' shapes.

    Raises
    ------
    ValueError
        The network does not take the shape, or its parameters have other shapes.
    """
    symbol = network.symbol
    try:
        arguments, outputs, states = symbol.infer_shape(**{given: shape})
    except import_mxnet().MXNetError as error:
        raise ValueError(first_line(error)) from error
    if arguments is None:
        raise ValueError("the shapes cannot be inferred")
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    held = {**network.arguments, **network.states}
    for name, wanted in zip(names, [*arguments, *states], strict=True):
        if name != given and held[name].shape != wanted:
            raise ValueError(f"{name} should be {wanted} and is {held[name].shape}")
    if any(not output or output[0] != shape[0] for output in outputs):
        raise ValueError("an output has not one row an image")
    return list(outputs)


def _read_kernels(graph: Any, types: dict[str, Any]) -> list[Kernel]:
    """Read operators, and the type of what each reads first, out of a symbol."""
    internals = graph.get_internals()
    known = {name: kind for name, kind in types.items() if name in graph.list_arguments()}
    inferred = internals.infer_type(**known)[1] or ()
    described = json.loads(internals.tojson())
    places = [tuple(head[:2]) for head in described["heads"]]
    kinds = dict(zip(places, (np.dtype(kind).name for kind in inferred), strict=False))
    return [
        Kernel(node["op"], "mxnet", (kinds.get(tuple(node["inputs"][0][:2]), ""),))
        for node in described["nodes"]
        if node["op"] != "null" and node["inputs"]
    ]


def _built_precision(kernels: list[Kernel]) -> Precision:
    quantised = any(k.op.startswith("_contrib_quantize") or is_int8(k) for k in kernels)
    return "int8" if quantised else "fp32"


def _mismatch(model: Path, built: str, requested: str) -> str:
    return (
        f"{model} is a symbol built in {built}, but {requested} was asked for, and MXNet runs a "
        f"symbol as it was built. Ask for --precision {built}, or give a {requested} model "
        "(evalkit convert builds int8)."
    )

"""MXNet 1.9: a symbol and its parameters, on the CPU.

MXNet needs NumPy 1.23 and system libraries, so it usually runs in an environment of its own.
``evalkit env create mxnet`` builds one, and this backend finds it. Where MXNet can be imported, it
runs in this process.

Three settings are made before MXNet is imported, unless the user has set them. Subgraphs for oneDNN
are off, since they crash on some networks (depthwise convolutions under PReLU). The engine runs in
the calling thread: it is the only one whose number of threads can change later. The number of
threads is that of the cores; MXNet's default is half of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.base import Backend, Probe, Session, SessionOptions, TensorInfo
from evalkit.backends.kernels import Kernel, count_arithmetic, describe_precision, is_int8
from evalkit.backends.mxnet.network import Network, cause, load_network
from evalkit.backends.session import ModelBackend, ModelSession
from evalkit.backends.tensors import check_offered, first_line, trial_shapes, wrong_precision
from evalkit.core.errors import InputError
from evalkit.core.machine import available_cores

HEAVY_OPS = frozenset(
    {"Convolution", "Deconvolution", "FullyConnected", "dot", "batch_dot", "RNN"}
    | {"_sg_mkldnn_conv", "_sg_mkldnn_fully_connected"}
    | {"_contrib_quantized_conv", "_contrib_quantized_fully_connected"}
)
_EXECUTORS = 4  # cached, one for each shape of batch
_MORE = 32  # images or pixels, to find which sizes a network leaves open
_LEFT_OVER = "IsMKLDNNData"
"""In the error of some int8 networks whose buffers keep oneDNN's layout of the previous batch."""
_ENGINE = {"MXNET_SUBGRAPH_BACKEND": "NONE", "MXNET_ENGINE_TYPE": "NaiveEngine"}
REMEDY = (
    "Run: evalkit env create mxnet. It builds an environment that evalkit then finds. Or name an "
    "interpreter that has MXNet with --python."
)


class MxnetSession(ModelSession):
    """One symbol with its parameters; see `ModelSession`."""

    backend = "mxnet"
    runtime = "MXNet"
    failures = (RuntimeError,)  # the base of MXNetError
    cause = staticmethod(cause)

    def __init__(self, model: Path, options: SessionOptions) -> None:
        super().__init__(model, options)
        self._mxnet = import_mxnet()
        self._network = load_network(model, self._mxnet)
        self._input = _only_input(model, self._network)
        self._runs_once = False
        self._executors: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        sizes, self.outputs = _sizes(model, self._network, self._input, options.image)
        self.inputs = (TensorInfo(self._input, "float32", sizes),)
        kernels = self._kernels()
        quantised = any(k.op.startswith("_contrib_quantize") or is_int8(k) for k in kernels)
        built = "int8" if quantised else "fp32"
        if built != options.precision:
            other = f"a {options.precision} model (evalkit convert builds int8)"
            raise wrong_precision(model, built, options.precision, other)
        counts = count_arithmetic(kernels, HEAVY_OPS)
        self.ran = self._record(
            self._mxnet.__version__,
            describe_precision(counts, built),
            {
                "heavy_kernels_by_precision": dict(counts),
                "subgraph_backend": os.environ["MXNET_SUBGRAPH_BACKEND"],
                "engine": os.environ["MXNET_ENGINE_TYPE"],
                "parameters": self._network.parameters_file.name,
            },
            threads=self.threads,
        )

    def _release(self) -> None:
        self._executors.clear()

    def _compute(self, batch: NDArray[Any]) -> Iterable[Any]:
        """Run the batch; a bound network that cannot run twice is bound for every batch."""
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
        executor = self._executors.pop(shape, None)
        if executor is None:
            network = self._network
            batch = self._mxnet.nd.zeros(shape)
            executor = network.symbol.bind(
                self._mxnet.cpu(),
                {**network.arguments, self._input: batch},
                aux_states=network.states,
                grad_req="null",
                shared_exec=next(reversed(self._executors.values()), None),
            )
            if len(self._executors) == _EXECUTORS:
                self._executors.popitem(last=False)
        self._executors[shape] = executor
        return executor

    def _kernels(self) -> list[Kernel]:
        """List the operators of the executed graph, with the types of their inputs."""
        graph = self._executor(self._trial().shape).get_optimized_symbol()
        types = {name: value.dtype for name, value in self._network.arguments.items()}
        return _read_kernels(graph, {**types, self._input: np.float32})


class MxnetBackend(ModelBackend):
    """MXNet's symbols: in this process, else in the environment that evalkit made."""

    name: ClassVar[str] = "mxnet"
    session = MxnetSession

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
            The parameters are not those of the symbol.
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


def import_mxnet() -> Any:
    """Import MXNet under any NumPy, with the settings that the module describes."""
    for name, value in {**_ENGINE, "OMP_NUM_THREADS": str(available_cores())}.items():
        os.environ.setdefault(name, value)
    with _names_that_numpy_dropped():
        import mxnet  # noqa: PLC0415 - optional, and slow to import

    return mxnet


@contextmanager
def _names_that_numpy_dropped() -> Iterator[None]:
    """Add the names to NumPy that MXNet looks up while it is imported."""

    def gone(*_: Any) -> None:
        raise AttributeError("NumPy no longer has this function.")

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
    names = network.symbol.list_arguments()
    missing = [str(name) for name in names if name not in network.arguments]
    if len(missing) != 1:
        raise InputError(
            f"{model}: {len(missing)} of the symbol's {len(names)} arguments are not in "
            f"{network.parameters_file.name} ({', '.join(missing[:5]) or 'none'}); exactly one is "
            "expected, the image. Use the parameters of this symbol, and a symbol that ends at its "
            "embedding, without labels (symbol.get_internals()['fc1_output'])."
        )
    return missing[0]


def _sizes(
    model: Path, network: Network, image_name: str, image: tuple[int, int, int] | None
) -> tuple[tuple[int | None, ...], tuple[TensorInfo, ...]]:
    """Infer the network's input sizes, None where they are open, and its outputs."""
    failures = []
    for shape in trial_shapes(TensorInfo(image_name, "float32", (None,) * 4), image):
        try:
            variants = [_infer(network, image_name, shape)]
        except ValueError as error:
            failures.append(f"{shape}: {error}")
            continue
        sizes: list[int | None] = list(shape)
        for axes in ((0,), (2, 3)):
            other = tuple(n + _MORE if axis in axes else n for axis, n in enumerate(shape))
            with suppress(ValueError):  # else the network is bound to this size
                variants.append(_infer(network, image_name, other))
                for axis in axes:
                    sizes[axis] = None
        outputs = zip(network.symbol.list_outputs(), zip(*variants, strict=True), strict=True)
        infos = []
        for name, shapes in outputs:  # sizes that change with the input are open
            by_axis = zip(*shapes, strict=True)
            fixed = (each[0] if len(set(each)) == 1 else None for each in by_axis)
            infos.append(TensorInfo(name, "float32", tuple(fixed)))
        return tuple(sizes), tuple(infos)
    raise InputError(
        f"{model}: the parameters do not fit the symbol, or it takes other images. Sizes tried: "
        f"{'; '.join(failures)}. Use the parameters of this symbol, and state its size under "
        "'input' in the model's YAML."
    )


def _infer(network: Network, image_name: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Infer the outputs' shapes.

    Raises
    ------
    ValueError
        The network does not take the shape, or its parameters have other shapes.
    """
    symbol = network.symbol
    try:
        arguments, outputs, states = symbol.infer_shape(**{image_name: shape})
    except import_mxnet().MXNetError as error:
        raise ValueError(first_line(error)) from error
    if arguments is None:
        raise ValueError("the shapes cannot be inferred")
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    arrays = {**network.arguments, **network.states}
    for name, inferred in zip(names, [*arguments, *states], strict=True):
        if name != image_name and arrays[name].shape != inferred:
            raise ValueError(f"{name} should be {inferred} and is {arrays[name].shape}")
    if any(not output or output[0] != shape[0] for output in outputs):
        raise ValueError("an output has not one row for each image")
    return list(outputs)


def _read_kernels(graph: Any, types: dict[str, Any]) -> list[Kernel]:
    """Read the operators of a symbol, and the type of each one's first input."""
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

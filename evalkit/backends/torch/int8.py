"""int8 networks of PyTorch as real int8 kernels: Inductor compiles them, its profiler tells.

A quantised program run as it stands only simulates int8: it multiplies rounded numbers in fp32.
Inductor turns it into oneDNN's int8 convolutions and products, for which it needs a C++ compiler.
What it compiles is kept below `evalkit.core.files.cache_dir`, so that the next opening is quicker.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch._inductor.config as inductor
from torch.profiler import ProfilerActivity, profile

from evalkit.backends.kernels import Kernel
from evalkit.core.files import cache_dir

COMPILER = "g++"
# The profiler's names of element types that NumPy calls otherwise.
_DTYPES = {
    "unsigned char": "uint8",
    "signed char": "int8",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
}


def why_not_int8() -> str:
    """Say what keeps int8 kernels from running here; empty where nothing does."""
    compiler = os.environ.get("CXX", COMPILER)
    if not torch.backends.mkldnn.is_available():
        return "This PyTorch has no oneDNN, whose kernels int8 needs: install the x86 build."
    if shutil.which(compiler.split()[0] if compiler else COMPILER) is None:
        return (
            f"PyTorch compiles int8 networks with {compiler or COMPILER}, which is not installed; "
            "without it int8 would only be simulated in fp32. Run: apt-get install g++ "
            "(or name a compiler in the environment variable CXX)."
        )
    return ""


def saturates() -> bool:
    """Whether int8 products may overflow 16 bits: on a CPU without VNNI they do, in silence."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    known = [capabilities[name] for name in ("avx512_vnni", "avx_vnni") if name in capabilities]
    return bool(known) and not any(known)


class Compiled:
    """A quantised network, compiled when it first meets a shape.

    Parameters
    ----------
    module : torch.nn.Module
        With quantise and dequantise operators, on the CPU.
    threads : int
        Written into the code: the caller runs it with the same number.
    """

    def __init__(self, module: torch.nn.Module, threads: int) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "torchinductor"))
        self._shapes: set[tuple[int, ...]] = set()
        # One compiling process: a pool of them would stay until this one ends.
        options = {"freezing": True, "cpp.threads": threads, "compile_threads": 1}
        # Without fullgraph, what cannot be compiled (or not once more) would be simulated.
        self._run = torch.compile(module, dynamic=True, fullgraph=True, options=options)

    def __call__(self, tensor: torch.Tensor) -> Any:
        """Run the network."""
        shape = tuple(tensor.shape)
        if shape in self._shapes:
            return self._run(tensor)
        with inductor.patch(freezing=True), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's own, of its own copies
            result = self._run(tensor)
        self._shapes.add(shape)
        return result


def profiled_kernels(run: Callable[[], Any]) -> list[Kernel]:
    """List the operators that PyTorch's profiler sees in a call, below what is compiled.

    Of an operator made of others only the outermost counts.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells of each start and stop
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as watched:
        run()
    kernels = []
    for event in watched.events():
        space, colons, op = event.name.partition("::")
        parent = event.cpu_parent
        if colons and (parent is None or "::" not in parent.name):
            dtypes = (_DTYPES.get(name, name) for name in event.input_dtypes or ())
            kernels.append(Kernel(op, space, tuple(dtypes)))
    return kernels

"""int8 networks of PyTorch as real int8 kernels, compiled by Inductor and read by a profiler.

A quantised program that is not compiled only simulates int8: it multiplies rounded numbers in fp32.
Inductor turns it into oneDNN's int8 convolutions and products; it needs a C++ compiler. Its code is
cached below `evalkit.core.files.cache_dir`, so that the next opening is quicker.
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
    """Return why int8 kernels cannot run here; empty if they can."""
    compiler = os.environ.get("CXX", COMPILER)
    if not torch.backends.mkldnn.is_available():
        return "This PyTorch has no oneDNN, whose kernels int8 needs. Install the x86 build."
    if shutil.which(compiler.split()[0] if compiler else COMPILER) is None:
        return (
            f"PyTorch compiles int8 networks with {compiler or COMPILER}, which is not installed; "
            "without it int8 would only be simulated in fp32. Run: apt-get install g++ "
            "(or name a compiler in the environment variable CXX)."
        )
    return ""


def saturates() -> bool:
    """Whether int8 products may overflow 16 bits: a CPU without VNNI saturates silently."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    known = [capabilities[name] for name in ("avx512_vnni", "avx_vnni") if name in capabilities]
    return bool(known) and not any(known)


class Compiled:
    """A quantised network, compiled at its first run of a shape.

    Parameters
    ----------
    module : torch.nn.Module
        With quantise and dequantise operators, on the CPU.
    threads : int
        Compiled into the code: the caller must run it with the same number.
    """

    def __init__(self, module: torch.nn.Module, threads: int) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "torchinductor"))
        self._shapes: set[tuple[int, ...]] = set()
        # One compiling process: a pool of them would run until this one ends.
        options = {"freezing": True, "cpp.threads": threads, "compile_threads": 1}
        # Without fullgraph, operators that cannot be compiled would be simulated.
        self._run = torch.compile(module, dynamic=True, fullgraph=True, options=options)

    def __call__(self, tensor: torch.Tensor) -> Any:
        """Run the network."""
        shape = tuple(tensor.shape)
        if shape in self._shapes:
            return self._run(tensor)
        with inductor.patch(freezing=True), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch's, of copies that it makes
            result = self._run(tensor)
        self._shapes.add(shape)
        return result


def profiled_kernels(run: Callable[[], Any]) -> list[Kernel]:
    """List the operators that PyTorch's profiler sees in a call, inside compiled code.

    Of nested operators only the outermost counts.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it logs each start and stop
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

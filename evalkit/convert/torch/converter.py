"""PyTorch: int8 by torchao's PT2E with the x86 quantiser, fp16 and bf16 by casting the weights.

int8 is written as an exported program with quantise and dequantise operators: uint8 activations
with a zero point, int8 weights with one scale for each output channel. The backend compiles it.
Legacy FX quantisation is not used: its quantised PReLU is wrong for negative numbers.

bf16 keeps vectors in float32 (biases, BatchNorm, PReLU), as autocast does. So its figures equal
those of autocast over the fp32 file, bit for bit. fp16 casts everything.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch

from evalkit.backends.base import Precision
from evalkit.backends.torch.loading import Loaded, cause, load, parameter_dtypes
from evalkit.convert.base import Batches, Built, Converter, ConvertSettings, Method
from evalkit.convert.toolchain import optional, quiet, required, versions
from evalkit.convert.torch.export import export, exported, input_of, layer_names, layer_of
from evalkit.core.errors import InputError


class TorchConverter(Converter):
    """PyTorch to PyTorch: int8 as an exported program, the others in the form of the source."""

    name: ClassVar[str] = "torch"
    targets: ClassVar[tuple[Precision, ...]] = ("fp16", "bf16", "int8")
    methods: ClassVar[tuple[Method, ...]] = ("minmax",)
    suffix: ClassVar[str] = ".pt"

    @classmethod
    def layers(cls, source: Path, settings: ConvertSettings) -> tuple[str, ...]:
        """See `Converter.layers`; fp16 and bf16 cast the whole network."""
        if settings.precision != "int8":
            return ()
        with _toolchain(source, settings.threads):
            loaded = _float_network(source, settings)
            info = input_of(loaded, settings.shape)
            return layer_names(exported(source, loaded, info, settings.shape))

    @classmethod
    def build(
        cls, source: Path, out: Path, settings: ConvertSettings, batches: Batches | None
    ) -> Built:
        """See `Converter.build`."""
        loaded = _float_network(source, settings)
        with _toolchain(source, settings.threads):
            if settings.precision != "int8":
                out.write_bytes(_cast(loaded, settings))
                return Built(versions("torch"), {"form": loaded.form})
            info = input_of(loaded, settings.shape)
            module = exported(source, loaded, info, settings.shape)
            quantised = _quantise(module, settings, required(batches))
            out.write_bytes(export(quantised, info, settings.shape))
        return Built(
            versions("torch", "torchao"),
            {
                "form": "exported",
                "quantiser": "X86InductorQuantizer",
                "activations": "uint8, one scale and zero point a tensor",
                "weights": "int8, symmetric, per "
                + ("output channel" if settings.per_channel else "tensor"),
            },
        )


def _float_network(source: Path, settings: ConvertSettings) -> Loaded:
    loaded = load(source, settings.architecture)
    stored = parameter_dtypes(loaded.module)
    if loaded.quantised or set(stored) - {"float32"}:
        content = "int8 operators" if loaded.quantised else f"{', '.join(stored)} parameters"
        raise InputError(f"{source} holds {content}: it is low already. Give the float32 model.")
    return loaded


@contextmanager
def _toolchain(source: Path, threads: int | None) -> Iterator[None]:
    """Set the threads, without gradients; see `quiet`."""
    remedy = (
        "Check that torch.export.export takes the network, or convert its ONNX form with --backend "
        "onnxruntime."
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with quiet(f"{source}: PyTorch cannot convert it", remedy, cause), torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


def _cast(loaded: Loaded, settings: ConvertSettings) -> bytes:
    """Cast the weights and write the network in the form of the source."""
    half = settings.precision == "fp16"
    module = loaded.module
    if half:
        module.half()
    else:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.to(torch.bfloat16)
    if loaded.form == "exported":
        with nullcontext() if half else torch.autocast("cpu", torch.bfloat16):
            dtype = torch.float16 if half else torch.float32
            return export(module, loaded.input, settings.shape, dtype)
    buffer = io.BytesIO()
    if loaded.form == "torchscript":
        torch.jit.save(module, buffer)
    else:
        torch.save(module.state_dict(), buffer)
    return buffer.getvalue()


def _quantise(module: Any, settings: ConvertSettings, batches: Batches) -> Any:
    """Calibrate and convert an exported network."""
    pt2e = optional("torchao.quantization.pt2e.quantize_pt2e", "int8 for PyTorch")
    from evalkit.convert.torch.quantiser import quantiser  # noqa: PLC0415 - needs torchao

    excluded = {node for node in module.graph.nodes if layer_of(node) in settings.exclude}
    names = {node.name for node in excluded}
    prepared = pt2e.prepare_pt2e(module, quantiser(names, per_channel=settings.per_channel))
    for batch in batches:
        prepared(torch.from_numpy(batch).float())
    quantised = pt2e.convert_pt2e(prepared)
    quantised.graph.eliminate_dead_code()
    quantised.delete_all_unused_submodules()
    _drop_unused(quantised)
    return quantised


def _drop_unused(module: Any) -> None:
    """Remove the float weights, which would be saved beside the int8 ones."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    tensors = (*module.named_parameters(), *module.named_buffers())
    for name in [name for name, _ in tensors if name not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)

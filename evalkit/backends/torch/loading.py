"""PyTorch files as networks on the CPU: TorchScript, exported programs, state dicts.

No pickled code of a file is ever executed.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from evalkit.backends.architectures import ARCHITECTURES
from evalkit.backends.base import TensorInfo
from evalkit.backends.tensors import check_one_input, first_line
from evalkit.backends.torch import files
from evalkit.core.errors import InputError

IMAGES = TensorInfo("input0", "float32", ("n", None, None, None))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network from a file, on the CPU, in its stored precision.

    Attributes
    ----------
    module : torch.nn.Module
        In evaluation mode.
    form : str
        ``torchscript``, ``exported`` or ``weights``.
    input : TensorInfo
        Its only input.
    quantised : bool
        Whether it holds int8 operators.
    """

    module: torch.nn.Module
    form: files.Kind
    input: TensorInfo
    quantised: bool = False


def load(model: Path, architecture: str | None) -> Loaded:
    """Load a network.

    Raises
    ------
    evalkit.core.errors.InputError
        The file is no PyTorch model, would run code, has weights of another architecture, or
        operators that PyTorch computes wrong.
    """
    kind = files.file_kind(model)
    try:
        if kind == "torchscript":
            return _load_torchscript(model)
        if kind == "exported":
            return _load_exported(model)
        return _load_weights(model, architecture)
    except InputError:
        raise
    except Exception as error:
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{model} is a pickle that names {blocked[1]}; code in a file is never run. Save "
                "model.state_dict(), TorchScript or an exported program instead."
            ) from error
        if isinstance(error, UnpicklingError) and files.is_plain_pickle(model):
            raise InputError(
                f"{model} is a plain pickle, not of the form that PyTorch writes; reading it could "
                "run code, and code in a file is never run. Save model.state_dict() with "
                "torch.save, TorchScript or an exported program instead."
            ) from error
        # PyTorch's own message on a foreign file advises to unpickle it without protection.
        reason = "" if isinstance(error, UnpicklingError) else f": {cause(error)}"
        raise InputError(
            f"{model}: PyTorch {torch.__version__} cannot load it{reason}. It is no PyTorch model, "
            "or is incomplete: save or fetch it again."
        ) from error


def _load_torchscript(model: Path) -> Loaded:
    module = torch.jit.load(files.safe_torchscript(model), map_location="cpu").eval()
    operators = set(re.findall(r"\bquantized::(\w+)", str(module.inlined_graph)))
    if "prelu" in operators:
        raise InputError(
            f"{model} uses quantized::prelu, which PyTorch computes wrong for negative numbers "
            "(legacy FX quantisation wrote it; embeddings come out useless). Quantise the float "
            "model with: evalkit convert MODEL --to int8 --backend torch."
        )
    return Loaded(module, "torchscript", IMAGES, quantised=bool(operators))


def _load_exported(model: Path) -> Loaded:
    import_module("torch.ao.quantization.fx._decomposed")  # registers the operators of int8
    program = _read_program(model)
    names = program.graph_signature.user_inputs
    check_one_input([str(name) for name in names], model)
    (node,) = (n for n in program.graph.nodes if n.op == "placeholder" and n.name == names[0])
    sizes = node.meta["val"].shape
    shape = tuple(size if isinstance(size, int) else str(size) for size in sizes)
    return Loaded(
        program.module(),
        "exported",
        TensorInfo(str(names[0]), "float32", shape),
        quantised=any("quantize_per_" in str(node.target) for node in program.graph.nodes),
    )


def _read_program(model: Path) -> Any:
    """Deserialise; PyTorch also logs its errors with several stack traces, which are not shown."""
    log = logging.getLogger("torch.export")
    before, log.disabled = log.disabled, True
    try:
        return torch.export.load(files.safe_exported_program(model))
    finally:
        log.disabled = before


def _load_weights(model: Path, architecture: str | None) -> Loaded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # before the error for foreign pickles
        stored = torch.load(model, map_location="cpu", weights_only=True)
    weights = unwrap(stored)
    if weights is None:
        raise InputError(f"{model} holds no state dict. Save model.state_dict().")
    if architecture is None:
        raise InputError(
            f"{model} holds weights alone. Name their network under 'architecture' in the model's "
            f"YAML; known: {', '.join(ARCHITECTURES)}."
        )
    built = ARCHITECTURES.get(architecture)
    try:
        module = built.build(weights)
    except (KeyError, ValueError) as error:
        raise InputError(_misfit(model, architecture, [f"missing {error}"])) from error
    _check_keys(model, architecture, module.state_dict(), weights)
    module.load_state_dict(weights, strict=False, assign=True)  # keeps the stored types
    shape = ("n", *built.input_shape)
    return Loaded(module.eval(), "weights", TensorInfo("input0", "float32", shape))


def unwrap(stored: Any) -> dict[str, torch.Tensor] | None:
    """Find the state dict in what a training script saved; None where there is none.

    Removes the wrappers ``state_dict`` and ``model``, and ``module.`` before every name.
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(stored, Mapping) and isinstance(stored.get(wrapper), Mapping):
            stored = stored[wrapper]
    if not isinstance(stored, Mapping) or not stored:
        return None
    if not all(isinstance(value, torch.Tensor) for value in stored.values()):
        return None
    return {str(name).removeprefix("module."): value for name, value in stored.items()}


def _check_keys(
    model: Path,
    architecture: str,
    network: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Check that weights fit a network; counters of batches seen in training may be absent."""
    missing = (n for n in network if n not in weights and not n.endswith("num_batches_tracked"))
    faults = [f"missing {name}" for name in missing]
    faults += [f"unknown {name}" for name in weights if name not in network]
    faults += [
        f"{name} is {tuple(value.shape)}, not {tuple(network[name].shape)}"
        for name, value in weights.items()
        if name in network and value.shape != network[name].shape
    ]
    if faults:
        raise InputError(_misfit(model, architecture, faults))


def _misfit(model: Path, architecture: str, faults: list[str]) -> str:
    more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
    return (
        f"The weights in {model} are not those of {architecture}: {'; '.join(faults[:5])}{more}. "
        f"Name another architecture; known: {', '.join(ARCHITECTURES)}."
    )


def parameter_dtypes(module: torch.nn.Module) -> Counter[str]:
    """Count the parameters and buffers on real numbers by element type."""
    tensors = (*module.parameters(), *module.buffers())
    return Counter(str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point())


def cause(error: BaseException) -> str:
    """Return the line of a message that names the cause: TorchScript puts its call stack first."""
    lines = re.findall(r"^\w*(?:Error|Exception): (.*\S)", str(error), re.MULTILINE)
    return lines[-1].rstrip(".") if lines else first_line(error)

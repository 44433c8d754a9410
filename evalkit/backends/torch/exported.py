"""Checks of an exported program (``.pt2``), made before PyTorch reads any of it.

`torch.export.load` unpickles members, evaluates sizes and guards as Python, finds an operator by
its name, and writes names into the source of a function that it compiles. So only operators that
compute are allowed, and every other text must be a plain name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evalkit.backends.tensors import explained
from evalkit.core.errors import InputError

# Operators that read or write files, in TorchScript and in exported programs.
REACH_FILES = frozenset({"save", "from_file", "load_tensor"})
# torch.export reads sizes with sympy, which evaluates them as Python: only these calls are safe.
_SYMBOLIC = frozenset(
    """Symbol Integer Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt
    FloorToInt TruncToInt IntTrueDiv FloatTrueDiv ToFloat PowByNatural ModularIndexing Where
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And
    Or Not""".split()  # noqa: SIM905 - read more easily so
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=&|~']*")
# The names that PyTorch resolves: its own attributes from "torch" on, Python's `operator` and
# `math`. An operator has a name and an overload; deeper names would be attributes of it.
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims?|quantized_decomposed)\.(?P<name>\w+)\.[a-zA-Z]\w*", re.ASCII
)
# Operators on graphs or other operators that torch.export writes for control flow, mutation and
# modes. Other operators of this kind call into compiled or Python code.
_HIGHER_ORDER = re.compile(
    r"torch\.ops\.higher_order\.(?:cond|map|map_impl|while_loop|scan|associative_scan"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|invoke_subgraph|auto_functionalized(?:_v2)?)"
)
_ON_SIZES = re.compile(
    r"_operator\.(?:eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_"
    r"|lshift|rshift|getitem)|torch\._?sym_[a-z]+|math\.[a-z]\w*",
    re.ASCII,
)
_UNDERSCORED = re.compile(r"__i?(?:and|or|xor|lshift|rshift)__")  # aten's; others are Python's
_NAME = re.compile(r"[\w.@]*", re.ASCII)
_TEXT = re.compile(r"[\w .,:+\-<>=*]*", re.ASCII)  # einsum's is the longest; no quotes
_KEPT = frozenset({"nn_module_stack", "torch_fn"})  # among a node's notes
_CONTAINERS = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
)
_SOURCE = re.compile(r"L(?:\['\w+'\]|\[\d+\])+(?:\.(?:size|stride)\(\)\[\d+\])?", re.ASCII)


def checked_member(model: Path, name: str, content: bytes) -> bytes:
    """Return a member of the archive in the form that PyTorch may read.

    Sample inputs, a pickle that nothing here needs, become empty. A program loses its exporter's
    notes.

    Raises
    ------
    evalkit.core.errors.InputError
        It could run code when loaded, or reach files when run.
    """
    lower = name.lower()  # PyTorch finds members without regard to case
    if "/data/sample_inputs/" in lower:
        return b""
    if lower.endswith((".pt", ".pkl", ".so")) or re.search("/custom_obj|/opaque|/aoti", lower):
        raise InputError(
            f"{model} holds {name}, which could run code when loaded; it is never opened. Export "
            "the model again with plain tensors only, or save a state dict."
        )
    if "/models/" not in lower and not lower.endswith(".json"):
        return content
    failures = (ValueError, LookupError, TypeError, RecursionError)
    with explained(f"{model}: {name} is no valid program", "Export it again.", failures):
        document = _without_notes(json.loads(content))
        for key, value in _fields(document):
            _check(model, name, key, value)
    return json.dumps(document).encode()


def _check(model: Path, name: str, key: str, value: Any) -> None:
    pickled = key == "use_pickle" and value is not False
    odd_path = key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value))
    if pickled or odd_path:
        raise InputError(
            f"{model}: {name} names a pickled object, which could run code when loaded; it "
            "is never opened. Export the model again with plain tensors only."
        )
    if key in {"target", "as_operator"} and isinstance(value, str):
        if not is_pure_operator(value):
            raise InputError(
                f"{model}: {name} uses {value[:80]!r}, which is no operator known to compute on "
                "tensors alone. It could access files or run code, and is never loaded. Export the "
                "network without it."
            )
    elif key == "expr_str":
        if not is_plain_expression(str(value)):
            raise InputError(
                f"{model}: {name} holds the size {str(value)[:60]!r}, which is not plain "
                "arithmetic and could run code. Export the model again."
            )
    elif not all(_GRAMMARS.get(key, _is_name)(text) for text in _texts(key, value)):
        raise InputError(
            f"{model}: {name} holds {key[:40]!r} with {str(value)[:60]!r}, which is no plain name "
            "and could run code. Name inputs and layers with letters, digits and underscores, and "
            "export the model again."
        )


def is_pure_operator(target: str) -> bool:
    """Whether a node's target does nothing but compute on tensors or sizes.

    Examples
    --------
    >>> is_pure_operator("torch.ops.aten.conv2d.default"), is_pure_operator("_operator.mul")
    (True, True)
    >>> is_pure_operator("torch.ops.aten.save.default"), is_pure_operator("torch.os.system")
    (False, False)
    """
    if match := _OPERATOR.fullmatch(target):
        word = match["name"]
        own = word.startswith("__") and not _UNDERSCORED.fullmatch(word)
        return not own and word.removesuffix("_out") not in REACH_FILES
    return bool(_HIGHER_ORDER.fullmatch(target) or _ON_SIZES.fullmatch(target))


def is_plain_expression(text: str) -> bool:
    """Whether a symbolic size is arithmetic on symbols and numbers alone.

    Examples
    --------
    >>> is_plain_expression("2*Symbol('s77', positive=True, integer=True) + 1")
    True
    >>> is_plain_expression("__import__('os').system('ls')"), is_plain_expression("eval(s0)")
    (False, False)
    """
    called = re.findall(r"(\w+)\s*\(", text)
    return (
        _EXPRESSION.fullmatch(text) is not None
        and "__" not in text
        and re.search(r"\.\s*[A-Za-z_]|\)\s*\(", text) is None
        and all(name in _SYMBOLIC for name in called)
        and all(re.fullmatch(r"\w+", name) for name in re.findall(r"'([^']*)'", text))
    )


def _texts(key: str, value: Any) -> Iterator[str]:
    """Yield the texts of one field: its key, and its value or list; `_fields` enters objects."""
    if key not in _GRAMMARS:
        yield key
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            yield item


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_plain_text(text: str) -> bool:
    return _TEXT.fullmatch(text) is not None


def _is_plain_guard(text: str) -> bool:
    """Whether a guard only compares sizes of inputs (``L['x'].size()[0] >= 2``)."""
    return is_plain_expression(_SOURCE.sub("s0", text).replace("!=", "=="))


def _is_plain_structure(text: str) -> bool:
    """Whether the structure of inputs or outputs (JSON in a string) has plain containers only."""
    pending = [json.loads(text)[1]]
    while pending:
        spec = pending.pop()
        context = spec["context"]
        content = json.loads(context) if isinstance(context, str) else context
        names = content if isinstance(content, list) else [content]
        if spec["type"] not in _CONTAINERS or not all(
            name is None or (isinstance(name, str) and _NAME.fullmatch(name)) for name in names
        ):
            return False
        pending += spec["children_spec"]
    return True


_GRAMMARS: dict[str, Callable[[str], bool]] = {
    # By the key of a field; the text of any other field must match _NAME.
    "as_string": _is_plain_text,
    "as_strings": _is_plain_text,
    "torch_version": _is_plain_text,
    "guards_code": _is_plain_guard,
    "in_spec": _is_plain_structure,
    "out_spec": _is_plain_structure,
    "nn_module_stack": lambda _: True,  # PyTorch never resolves it
    "torch_fn": lambda _: True,
}


def _without_notes(value: Any) -> Any:
    """Remove notes of nodes that nothing needs: PyTorch resolves names in them."""
    if isinstance(value, list):
        return [_without_notes(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _without_notes(inner) for key, inner in value.items()}
    notes = kept.get("metadata")
    if isinstance(notes, dict) and all(isinstance(note, str) for note in notes.values()):
        kept["metadata"] = {key: note for key, note in notes.items() if key in _KEPT}
    return kept


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys and values of a JSON document at every depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)

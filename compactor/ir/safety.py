"""What an archive may contain before `torch.export` is allowed to read it: tensors and a graph, never code.

`torch.export.load` unpickles custom objects, opens compiled libraries, evaluates symbolic expressions and generates
Python source from names in the file. Everything it would do that with is checked here first, through the same reader.
"""

import io
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch._ops import HigherOrderOperator, OpOverload

from compactor.errors import InputError

REMEDY = "export the model again with torch.export.save, with plain tensors as weights, constants and example inputs"

MODEL = "models/model.json"
_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/.+"
)
_PAYLOAD = re.compile(r"data/(weights|constants)/[\w.\-]+|data/sample_inputs/model\.pt")
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_NAME = re.compile(r"[\w.]*")
_SPEC = re.compile(r"[\w\s\[\]{}:,.\"\\\-]*")
_SPEC_TYPES = re.compile(
    r"builtins\.(tuple|list|dict)|collections\.OrderedDict|transformers\.[\w.]+|immutable_(list|dict)|torch\.Size"
)
_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|getitem|eq|ne|lt|le|gt|ge|and_|or_|xor|not_)"
    r"|math\.\w+|torch\.(_?sym_\w+|_check\w*)"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=!&|~]*")
_SYMBOL = re.compile(r"[a-z]{1,3}\d+|OpaqueUnaryFn_\w+")
# The quoted forms that sympy's srepr writes; anything else in quotes is refused.
_QUOTED = re.compile(r"Symbol\('[a-z]{1,3}\d+'(, \w+=(True|False))*\)|Float\('[\d.e+\-]+', precision=\d+\)")
_FUNCTIONS = re.compile(
    r"Eq|Ne|Lt|Gt|Le|Ge|And|Or|Not|Mod|PythonMod|FloorDiv|CleanDiv|Max|Min|floor|ceiling|Abs|Pow|Identity|Where|True"
    r"|False|ModularIndexing|TrueDiv|FloatTrueDiv|IntTrueDiv|FloatPow|PowByNatural|ToFloat|TruncToInt|TruncToFloat"
    r"|CeilToInt|FloorToInt|RoundToInt|RoundDecimal|IsNonOverlappingAndDenseIndicator|int_oo|oo|Integer|Rational|Add|Mul"
    r"|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|Equality|Unequality|Infinity|NegativeInfinity"
)


class Reader(Protocol):
    """The part of `torch.export.pt2_archive.PT2ArchiveReader` that is used here."""

    def get_file_names(self) -> list[str]:
        """Names of the records."""
        ...

    def read_bytes(self, name: str) -> bytes:
        """Content of a record."""
        ...


def check(reader: Reader) -> dict[str, Any]:
    """The archive's model as JSON, if reading the archive runs no code. Raises `InputError` naming what would."""
    names = reader.get_file_names()
    if MODEL not in names:
        raise InputError("the archive holds no exported model named 'model'", REMEDY)
    for name in names:
        if name != MODEL and not _PLAIN.fullmatch(name) and not _PAYLOAD.fullmatch(name):
            raise InputError(f"the archive holds {name!r}, which is not part of a plain exported model", REMEDY)
        if name.endswith(".pt"):
            _check_pickle(name, reader.read_bytes(name))
    for config in _CONFIGS:
        if config in names:
            _check_payloads(json.loads(reader.read_bytes(config)))
    model: dict[str, Any] = json.loads(reader.read_bytes(MODEL))
    for key, value in _strings(model):
        _check_string(key, value)
    return model


def _check_pickle(name: str, content: bytes) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise InputError(
            f"record {name!r} of the archive is a pickle that would run code, or is damaged; it was not loaded", REMEDY
        ) from error


def _check_payloads(content: dict[str, Any]) -> None:
    for tensor, payload in content["config"].items():
        plain = re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"])
        if payload["use_pickle"] or payload["tensor_meta"] is None or not plain:
            raise InputError(f"{tensor!r} is a pickled object that could run code; it was not loaded", REMEDY)


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All strings of a JSON value, each with the key it stands under (dictionary keys under ``key``)."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            if key == "range_constraints":
                yield "expr_str", name
            yield from _strings(item, name)


def _check_string(key: str, value: str) -> None:
    accepted = _RULES[key](value) if key in _RULES else True
    if not accepted:
        raise InputError(f"the archive has {key} {value[:80]!r}, which could run code; it was not loaded", REMEDY)


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def _is_spec(value: str) -> bool:
    """A pytree specification without enums (they import modules) and with known container types only."""
    if not _SPEC.fullmatch(value) or "__enum__" in value:
        return False
    types = [text for key, text in _strings(json.loads(value)) if key == "type"]
    return all(_SPEC_TYPES.fullmatch(t) for t in types)


def _is_expression(value: str) -> bool:
    """Arithmetic over size symbols and known functions; sympy evaluates it as Python."""
    value = _QUOTED.sub("s0", value)
    if not _EXPRESSION.fullmatch(value) or re.search(r"\.\s*[^\W\d]", value):
        return False
    words = re.findall(r"[^\W\d]\w*", value)
    return all(_FUNCTIONS.fullmatch(w) or _SYMBOL.fullmatch(w) for w in words)


def _is_operator(value: str) -> bool:
    """A registered operator that touches no files, or size arithmetic."""
    if not value.startswith("torch.ops."):
        return _OPERATORS.fullmatch(value) is not None
    namespace, *rest = value.removeprefix("torch.ops.").split(".")
    if namespace.startswith("_") or namespace == "debugprims" or not 1 <= len(rest) <= 2:
        return False
    found: Any = getattr(torch.ops, namespace)
    for name in rest:
        found = getattr(found, name, None)
    if isinstance(found, OpOverload):
        return not any(a.name == "filename" for a in found._schema.arguments)
    return isinstance(found, HigherOrderOperator)


_RULES = {
    "name": _is_name,
    "forward_arg_names": _is_name,
    "in_spec": _is_spec,
    "out_spec": _is_spec,
    "expr_str": _is_expression,
    "target": _is_operator,
    "as_operator": _is_operator,
}

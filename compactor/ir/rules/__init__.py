"""Rules: how each op relates axes (`rule`) and follows a slice (`rewrite`), and what keeps it exact under a mask
(`masked`) or where units repeat (`summing`).

One module per family. Rules are found by op name (see `op_name`); other packages add theirs through the entry-point
group ``compactor.rules``, whose values are modules to import.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from torch import fx

from compactor import registry
from compactor.ir.graphs import op_name

if TYPE_CHECKING:
    from compactor.ir.analysis import Analysis, AxesTree
    from compactor.ir.masking import Masking
    from compactor.ir.repeats import Repeats
    from compactor.ir.slicing import Resize

    Rule = Callable[[fx.Node, Analysis], AxesTree]
    Rewrite = Callable[[fx.Node, fx.Node, Resize], None]
    Masked = Callable[[fx.Node, fx.Node, Masking], None]
    Summing = Callable[[fx.Node, Repeats], None]

_FAMILIES = (
    "attention",
    "contraction",
    "convolution",
    "creation",
    "indexing",
    "joining",
    "norm",
    "pointwise",
    "reduction",
    "view",
)
_RULES: "dict[str, Rule]" = {}
_REWRITES: "dict[str, Rewrite]" = {}
_MASKED: "dict[str, Masked]" = {}
_SUMMING: "dict[str, Summing]" = {}
_F = TypeVar("_F", bound=Callable[..., object])


def rule(*names: str) -> Callable[[_F], _F]:
    """Register how these ops relate axes: ``(node, analysis) -> labels of the result``."""
    return _register(_RULES, names)


def rewrite(*names: str) -> Callable[[_F], _F]:
    """Register how literals of these ops follow a slice: ``(old node, new node, resize)``."""
    return _register(_REWRITES, names)


def masked(*names: str) -> Callable[[_F], _F]:
    """Register how these ops stay exact when indices are masked: ``(old node, new node, masking)``."""
    return _register(_MASKED, names)


def summing(*names: str) -> Callable[[_F], _F]:
    """Register what these ops sum over, where units may repeat: ``(node, repeats)``."""
    return _register(_SUMMING, names)


def _register(table: dict, names: tuple[str, ...]) -> Callable[[_F], _F]:  # type: ignore[type-arg]
    def decorate(function: _F) -> _F:
        for name in names:
            table[name] = function
        return function

    return decorate


@cache
def _load() -> None:
    for family in _FAMILIES:
        import_module(f"compactor.ir.rules.{family}")
    for name in registry.names("compactor.rules"):
        registry.load("compactor.rules", name)


def find(node: fx.Node) -> "Rule | None":
    """The axis rule of a node's op."""
    _load()
    return _RULES.get(op_name(node))


def find_rewrite(node: fx.Node) -> "Rewrite | None":
    """The slice rewrite of a node's op."""
    _load()
    return _REWRITES.get(op_name(node))


def find_masked(node: fx.Node) -> "Masked | None":
    """The mask correction of a node's op."""
    _load()
    return _MASKED.get(op_name(node))


def find_summing(node: fx.Node) -> "Summing | None":
    """What a node's op sums over."""
    _load()
    return _SUMMING.get(op_name(node))


_HINTS = {
    "convolution": ("conv", "pool", "upsample", "im2col", "col2im", "fold"),
    "norm": ("norm",),
    "attention": ("attention",),
    "contraction": ("mm", "matmul", "einsum", "linear", "dot", "lstm", "gru", "rnn"),
    "joining": ("cat", "stack", "split", "chunk", "pad", "roll", "slice", "narrow", "unbind"),
    "indexing": ("index", "gather", "scatter", "embedding", "take", "sort", "topk", "where", "nonzero"),
    "reduction": ("sum", "mean", "max", "min", "var", "std", "prod", "any", "all", "softmax", "cum", "arg"),
    "view": ("view", "reshape", "permute", "transpose", "squeeze", "expand", "repeat", "flip", "shuffle", "stride"),
    "creation": ("zeros", "ones", "full", "arange", "rand", "eye", "linspace", "empty"),
}


def home(name: str) -> str:
    """The file in which the rule of an op would live."""
    if "." in name:
        return f"a module of yours, listed in the entry-point group compactor.rules ({name.partition('.')[0]})"
    family = next((f for f, parts in _HINTS.items() if any(part in name for part in parts)), "pointwise")
    return f"compactor/ir/rules/{family}.py"

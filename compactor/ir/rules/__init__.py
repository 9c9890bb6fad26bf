"""Rules: how each op relates axes (`rule`), follows a slice (`rewrite`) and is kept exact under a mask (`masked`).

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
    from compactor.ir.slicing import Resize

    Rule = Callable[[fx.Node, Analysis], AxesTree]
    Rewrite = Callable[[fx.Node, fx.Node, Resize], None]
    Masked = Callable[[fx.Node, fx.Node, Masking], None]

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

"""Rules from outside, and rules that lie."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, library, nn
from torch.nn import functional as F

from compactor.errors import InternalError
from compactor.ir import rules
from compactor.ir.analysis import Analysis, AxesTree
from compactor.ir.axes import Axes, Cluster
from compactor.ir.masking import mask_program
from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace, space_of
from tests.ir.test_invariants import error
from tests.models import program
from tests.passes.support import traced


class Middle(nn.Module):
    """Two layers with an op between them."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.first, self.last, self.op = nn.Linear(5, 8), nn.Linear(8, 3), op

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = torch.ops.compactor_tests.twice(y) if self.op == "custom" else F.elu(y)
        result: Tensor = self.last(y)
        return result


@library.custom_op("compactor_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """An op that no one here has heard of."""
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of rules as it was, afterwards."""
    rules._load()
    monkeypatch.setattr(rules, "_RULES", dict(rules._RULES))


def _program(op: str) -> Program:
    torch.manual_seed(0)
    return traced(Middle(op).eval(), 2, 5)


def test_a_custom_op_is_pinned_until_its_rule_comes(table: None) -> None:
    model = _program("custom")
    before = SearchSpace(model)
    assert not before.groups and before.analysis.unruled == {"compactor_tests.twice": ["twice"]}
    assert "compactor.rules" in next(p.reason for p in before.pinned if p.node == "twice")

    @rules.rule("compactor_tests.twice")
    def pointwise(node: fx.Node, analysis: Analysis) -> AxesTree:
        return analysis.of(node.args[0])

    after = SearchSpace(model)
    assert [(g.kind, g.size) for g in after.groups] == [("ffn", 8)]
    subnet = after.sample(0, keep=0.5)
    assert error(slice_program(model, subnet), mask_program(model, subnet), model.example_inputs(3)) <= 1e-5


def _forgets(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Claims that nothing of the value can change."""
    return Axes(analysis.shape(node))


def _invents(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Claims axes that have nothing to do with the operand's."""
    shape = analysis.shape(node)
    return Axes(shape, (Cluster((1,), analysis.coupling.fresh(shape[1])),))


def _reverses(node: fx.Node, analysis: Analysis) -> AxesTree:
    """Gets the order of the indices wrong: all shapes are right."""
    (cluster,) = analysis.of(node.args[0]).clusters
    return Axes(analysis.shape(node), (Cluster(cluster.dims, cluster.ids[::-1]),))


@pytest.mark.parametrize("lie", [_forgets, _invents, _reverses])
def test_a_rule_that_lies_is_caught(table: None, lie: Callable[[fx.Node, Analysis], AxesTree]) -> None:
    """By shapes or by values, and by name."""
    rules._RULES["elu"] = lie
    space = space_of(_program("elu"))
    with pytest.raises(InternalError, match="elu"):
        verify_rules(space)


def test_the_rules_hold_for_every_architecture(architecture: str) -> None:
    verify_rules(space_of(program(architecture)))

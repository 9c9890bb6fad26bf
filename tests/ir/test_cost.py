"""Cost counting and the grouping of nodes into kernels."""

import operator
from collections import Counter

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compactor.ir.cost import count, kernels, kernels_of, shapes_of
from compactor.ir.exported import from_exported
from compactor.ir.grouping import kernels_of as grouped
from compactor.ir.kernels import KINDS, UNKNOWN, Kernel
from compactor.ir.program import Program

aten = torch.ops.aten


def export(module: nn.Module, *inputs: Tensor) -> Program:
    return from_exported(torch.export.export(module.eval(), inputs))


def kinds(program: Program) -> list[str]:
    return [k.kind for k in kernels(program)]


class Residual(nn.Module):
    """Conv-norm-relu with a shortcut: plain, or a strided convolution."""

    def __init__(self, project: bool) -> None:
        super().__init__()
        stride = 2 if project else 1
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, stride, 1, bias=False), nn.BatchNorm2d(8))
        self.short = nn.Conv2d(8, 8, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.relu(self.body(x) + self.short(x))


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Gelu(nn.Module):
    """A linear layer with the tanh approximation of GELU spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))


class RmsNorm(nn.Module):
    """RMS norm spelled out, inside a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.linear = nn.Parameter(torch.ones(6)), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x + self.linear(self.weight * scaled)


def test_macs_equal_torch_flop_counter(architecture_program: Program) -> None:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        architecture_program(*architecture_program.example_inputs(1))
    assert count(architecture_program).macs == counter.get_total_flops() // 2


def test_kernels_are_well_formed(architecture_program: Program) -> None:
    found = kernels(architecture_program)
    assert found and all(k.kind in KINDS and k.outputs > 0 for k in found)
    assert all((k.macs > 0) == (k.kind in KINDS[:5]) for k in found)
    assert all(k.groups * k.rows * k.columns * k.depth == k.macs for k in found if k.macs and k.kind != "attention")
    assert len({k.node for k in found}) == len(found)


def test_kernels_need_shapes_only(architecture_program: Program) -> None:
    shapes = shapes_of(architecture_program.values)
    assert kernels_of(architecture_program.graph, shapes) == kernels(architecture_program)
    assert kernels_of is grouped


def test_hand_counted_convolution() -> None:
    program = export(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), torch.rand(1, 4, 8, 8))
    expected = Kernel("conv", 6 * 16 * 2 * 9, 4 * 64, 6 * 2 * 9 + 6, 6 * 16, "conv2d", 2, 16, 3, 18)
    assert kernels(program) == (expected,)


@pytest.mark.parametrize(
    ("module", "macs"),
    [
        (nn.Conv1d(3, 5, 4), 5 * 5 * 12),
        (nn.ConvTranspose1d(3, 4, 2, stride=2), 3 * 8 * 4 * 2),
        (nn.Linear(8, 5), 3 * 8 * 5),
    ],
)
def test_hand_counted_macs(module: nn.Module, macs: int) -> None:
    assert count(export(module, torch.rand(1, 3, 8))).macs == macs


def test_einsum_counts_the_product_of_all_letters() -> None:
    class Product(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.einsum("bhqd,bhkd->bhqk", a, b)

    program = export(Product(), torch.rand(1, 2, 5, 3), torch.rand(1, 2, 7, 3))
    assert sum(k.macs for k in kernels(program)) == 2 * 5 * 7 * 3


@pytest.mark.parametrize(("project", "expected"), [(False, ["conv"] * 2), (True, ["conv"] * 3)])
def test_norm_activation_and_residual_fuse(project: bool, expected: list[str]) -> None:
    program = export(Residual(project), torch.rand(1, 3, 8, 8))
    assert kinds(program) == expected
    # The later of the two convolutions that meet in the add reads what the other one wrote; one tensor counts once.
    assert kernels(program)[-1].inputs == (8 * 64 + 8 * 16 if project else 8 * 64)


def test_gates_that_broadcast_do_not_fuse_into_the_small_kernel() -> None:
    assert kinds(export(Gate(), torch.rand(1, 3, 8, 8))) == ["conv", "pool", "conv", "pointwise"]


def test_activation_spelled_out_fuses() -> None:
    assert kinds(export(Gelu(), torch.rand(1, 3, 4))) == ["linear"]


def test_norm_spelled_out_is_one_kernel() -> None:
    assert kinds(export(RmsNorm(), torch.rand(1, 3, 6))) == ["norm", "linear"]


def test_casts_and_quantize_dequantize_are_transparent() -> None:
    program = export(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.rand(1, 4))
    graph, values = program.graph, dict(program.values)
    relu = next(n for n in graph.nodes if n.target is aten.relu.default)
    reader = next(iter(relu.users))
    with graph.inserting_after(relu):
        cast = graph.call_function(aten.to.dtype, (relu, torch.float16))
    reader.replace_input_with(relu, cast)
    values[cast] = values[relu]
    assert [k.kind for k in kernels_of(graph, shapes_of(values))] == ["linear", "linear"]


def test_removed_calls_pass_the_other_operand_through() -> None:
    program = export(Residual(False), torch.rand(1, 3, 8, 8))
    shapes = shapes_of(program.values)
    branch = [n for n in program.graph.nodes if n.name == "conv2d_1" or n.target is aten.batch_norm.default]
    for node in branch:
        del shapes[node]
    left = kernels_of(program.graph, shapes)
    assert [k.node for k in left] == ["conv2d"] and left[0].outputs == 8 * 64


def test_constants_are_free() -> None:
    graph = fx.Graph()
    x, table = graph.placeholder("x"), graph.get_attr("table")
    half = graph.call_function(aten.mul.Tensor, (table, 0.5))
    total = graph.call_function(operator.add, (x, half))
    graph.output((total,))
    found = kernels_of(graph, {x: (1, 4), table: (4,), half: (4,), total: (1, 4)})
    assert [(k.inputs, k.weights, k.outputs) for k in found] == [(4, 4, 4)]


def test_zero_padding_belongs_to_the_convolution() -> None:
    module = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2))
    assert kinds(export(module, torch.rand(1, 3, 8, 8))) == ["conv"]
    assert Counter(kinds(export(nn.ReflectionPad2d(1), torch.rand(1, 3, 8, 8)))) == {"move": 1}


def test_cost_counts_shared_parameters_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(11, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.linear(self.table(ids), self.table.weight)

    cost = count(export(Tied(), torch.zeros(1, 3, dtype=torch.long)))
    assert (cost.parameters, cost.macs, cost.bytes) == (44, 3 * 11 * 4, 4 * 44)


class Scan(nn.Module):
    """A cumulative product, for which there is no kernel model, beside a roll, which moves data."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cumprod(self.first(x), 1).roll(1, 1))


def test_ops_without_a_model_are_told_apart_from_moves() -> None:
    found = kernels(export(Scan(), torch.rand(1, 5, 4)))
    assert [k.kind for k in found] == ["linear", UNKNOWN, "move", "linear"]
    assert found[1].node == "cumprod"


def test_the_architectures_have_no_unknown_op(architecture_program: Program) -> None:
    assert UNKNOWN not in kinds(architecture_program)

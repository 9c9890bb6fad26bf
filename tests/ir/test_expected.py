"""Expected kernels: those of the subnet at 0 and 1, and what lies between."""

import math

import pytest
import torch
from torch import Tensor

from compactor.errors import InputError
from compactor.ir.expected import Expectation
from compactor.ir.presence import Presence
from compactor.ir.space import SearchSpace, space_of
from compactor.ir.tape import Replay, Tape
from tests.gates import hard, soft
from tests.models import program

FIELDS = ("macs", "inputs", "weights", "outputs", "groups", "rows", "columns", "depth")


def test_at_0_and_1_they_are_those_of_the_subnet(architecture: str) -> None:
    space = space_of(program(architecture))
    expectation = Expectation(space)
    chosen = [space.full(), *(space.sample(seed, depth=d) for seed in range(4) for d in (0.5, 1.0))]
    told = 0
    for subnet in chosen:
        kernels = space.plan.kernels(subnet)
        if kernels is not None:  # else it fuses differently
            found = expectation.kernels(*hard(space, subnet))
            there = found.keep.bool()
            assert torch.equal(found.keep, there.double())
            assert [k for k, yes in zip(found.kinds, there.tolist(), strict=True) if yes] == [k.kind for k in kernels]
            for field in FIELDS:
                assert getattr(found, field)[there].tolist() == [getattr(k, field) for k in kernels]
            told += 1
    assert told


def test_sizes_are_taken_at_expected_numbers() -> None:
    space = space_of(program("resnet_bottleneck"))
    group, expectation = space.groups[0], Expectation(space)
    whole = expectation.kernels({}, {})
    probabilities = torch.rand(group.size, generator=torch.Generator().manual_seed(0))
    found = expectation.kernels({group.name: probabilities}, {})
    share = float(probabilities.double().sum()) / group.size
    stem = found.kinds.index("conv")
    assert found.columns[stem] == pytest.approx(share * float(whole.columns[stem]), rel=1e-12)
    assert found.macs[stem] == pytest.approx(share * float(whole.macs[stem]), rel=1e-12)
    assert found.keep.eq(1).all()


def test_sizes_stay_above_zero() -> None:
    """A subnet keeps a unit of every group, so that nothing is divided by zero even where all probabilities are 0."""
    for name in ("mobilenet_v2", "groupnorm", "llama"):
        space = space_of(program(name))
        units = {g.name: torch.zeros(g.size, requires_grad=True) for g in space.groups}
        found = Expectation(space).kernels(units, {})
        assert all(getattr(found, field).ge(0).all() for field in FIELDS)
        assert found.outputs.gt(0).all()
        found.macs.sum().backward()
        assert all(v.grad is not None and v.grad.isfinite().all() for v in units.values())


@pytest.mark.parametrize("name", ["resnet_bottleneck", "mobilenet_v3", "shufflenet", "packed_view", "llama"])
def test_counting_indices_agrees_with_sums_over_groups(name: str) -> None:
    space = SearchSpace(program(name))
    sizes = space.plan.sizes
    keep = torch.cat([v.detach() for v in soft(space, 0, least=0.6)[0].values()])
    expected = sizes.expected(keep)
    for node, axes in space.analysis.axes.items():
        for dim, (_, variable) in enumerate(sizes.shapes[node] if not isinstance(axes, list) and axes else ()):
            if variable is not None:
                sizes._counted.append((variable, axes, dim))  # type: ignore[arg-type]
    assert sizes._counted
    assert torch.allclose(sizes.expected(keep), expected, rtol=1e-12)


def test_a_tape_repeats_with_fractions() -> None:
    tape = Tape()
    a, b = tape.variable(0, 4), tape.variable(1, 6)
    replay = Replay(tape, [[(a + 3) * b // a, min(a, b), 7]])
    found = replay.smooth(torch.tensor([5.5, 2.5], dtype=torch.float64))
    assert found.tolist() == [[8.5 * 2.5 / 5.5, 5.5, 7.0]]  # the smaller one is the one that was, when it was recorded


def test_kernels_of_nested_blocks_and_shared_ones() -> None:
    """0 is always there, 1 in ``outer``, 2 in ``inner`` within it; 3 feeds ``inner`` and ``last``, 4 is ``last``'s."""

    def left(dropped: frozenset[str]) -> frozenset[int]:
        outer, last = "outer" not in dropped, "last" not in dropped
        inner = outer and "inner" not in dropped
        there = {0: True, 1: outer, 2: inner, 3: inner or last, 4: last}
        return frozenset(k for k, yes in there.items() if yes)

    blocks = ["outer", "inner", "last"]
    presence = Presence(left, blocks, 5)
    for keep in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3):
        dropped = frozenset(b for b, k in zip(blocks, keep.tolist(), strict=True) if k == 0)
        found = presence.of(keep)
        assert all(found[k] == 1 for k in left(dropped)), "nothing that is there is missed"
        assert found[[0, 1, 2, 4]].tolist() == [float(k in left(dropped)) for k in (0, 1, 2, 4)]
    found = presence.of(torch.tensor([0.5, 0.25, 0.75], dtype=torch.float64)).tolist()
    assert found == pytest.approx([1, 0.5, 0.125, 1 - 0.75 * 0.25, 0.75])  # 3: ``inner`` or ``last``


def test_presence_without_blocks_or_kernels() -> None:
    nothing = torch.ones(0, dtype=torch.float64)
    assert Presence(lambda _: frozenset({0, 1}), [], 2).of(nothing).tolist() == [1, 1]
    assert Presence(lambda _: frozenset(), [], 0).of(nothing).tolist() == []


def _bad_units(size: int) -> dict[str, tuple[object, str]]:
    return {
        "shape": (torch.ones(size + 1), rf"shape \({size + 1},\).*\n.*shape \({size},\)"),
        "a number for all": (torch.tensor(1.0), r"shape \(\)"),
        "no tensor": ([1.0] * size, "list"),
        "above 1": (torch.full((size,), 1.5), "1.5 is no probability"),
        "below 0": (torch.full((size,), -0.25), "-0.25 is no probability"),
        "NaN": (torch.full((size,), math.nan), "nan is no probability"),
    }


@pytest.mark.parametrize("case", _bad_units(1))
def test_bad_probabilities_are_refused(case: str) -> None:
    space = space_of(program("resnet_b"))
    group = space.groups[1]
    given, says = _bad_units(group.size)[case]
    with pytest.raises(InputError, match=rf"group '{group.name}': .*{says}"):
        Expectation(space).kernels({space.groups[0].name: _ones(space, 0), group.name: given}, {})  # type: ignore[dict-item]


def test_bad_blocks_and_unknown_names_are_refused() -> None:
    space = space_of(program("resnet_b"))
    expectation, name = Expectation(space), space.blocks[0].name
    for given, says in ((torch.ones(2), r"shape \(2,\)"), (torch.tensor(math.nan), "nan is no probability")):
        with pytest.raises(InputError, match=f"block '{name}': .*{says}"):
            expectation.kernels({}, {name: given})
    with pytest.raises(InputError, match="no group 'stem'"):
        expectation.kernels({"stem": torch.ones(8)}, {})
    with pytest.raises(InputError, match="no block 'stem'"):
        expectation.kernels({}, {"stem": torch.tensor(1.0)})


def _ones(space: SearchSpace, group: int) -> Tensor:
    return torch.ones(space.groups[group].size)


def test_bytes_are_those_of_the_subnet(architecture: str) -> None:
    space = space_of(program(architecture))
    expectation = Expectation(space)
    for subnet in [space.full(), *(space.sample(seed, depth=d) for seed in range(3) for d in (0.5, 1.0))]:
        assert float(expectation.bytes(*hard(space, subnet))) == space.cost(subnet).bytes


def test_bytes_have_gradients() -> None:
    space = space_of(program("bert"))
    units, blocks = soft(space, 0, least=0.5)
    values = [*units.values(), *blocks.values()]
    gradients = torch.autograd.grad(Expectation(space).bytes(units, blocks), values)
    assert all(bool(g.gt(0).all()) for g in gradients)

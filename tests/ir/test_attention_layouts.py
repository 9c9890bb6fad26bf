"""Heads in unusual places: folded into the batch, a single key head, packed beside what must stay."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compactor.ir.archive import load
from compactor.ir.masking import mask_program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace
from compactor.passes.canonicalize.canonicalize import canonical
from tests.ir.test_invariants import error
from tests.passes.support import traced

HEADS, WIDTH = 4, 8
HIDDEN = HEADS * WIDTH


class FoldedHeads(nn.Module):
    """Batch and heads in one dimension, as Bloom has them."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(12, 3 * HIDDEN), nn.Linear(HIDDEN, 6)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            t.transpose(1, 2).reshape(batch * HEADS, -1, WIDTH)
            for t in self.packed(x).view(batch, length, HEADS, 3, WIDTH).unbind(3)
        )
        mixed = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)
        result: Tensor = self.out(mixed.view(batch, HEADS, length, WIDTH).transpose(1, 2).reshape(batch, length, -1))
        return result


class MultiQuery(nn.Module):
    """Query heads, one key head and one value head in one projection, positions rotated, as Falcon has them."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(12, (HEADS + 2) * WIDTH), nn.Linear(HIDDEN, 6)
        self.register_buffer("rotation", torch.rand(10, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        packed = self.packed(x).view(batch, length, HEADS + 2, WIDTH)
        q, k, v = (t.transpose(1, 2) for t in (packed[:, :, :-2], packed[:, :, [-2]], packed[:, :, [-1]]))
        mixed = F.scaled_dot_product_attention(q * self.rotation, k * self.rotation, v)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return result


@pytest.mark.parametrize("kind", [FoldedHeads, MultiQuery])
def test_heads_are_found_and_sliced(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    program = canonical(traced(kind().eval(), 2, 10, 12))[0]
    space = SearchSpace(program)
    assert [(g.kind, g.size) for g in space.groups] == [("heads", HEADS)]
    for seed in range(4):
        subnet = space.sample(seed, keep=0.5)
        student = slice_program(program, subnet)
        assert student.cost() == space.cost(subnet) != program.cost()
        assert error(student, mask_program(program, subnet), program.example_inputs(3, seed)) <= 1e-5


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_saved_slice_of_folded_heads_is_the_same_program(kept: int, tmp_path: Path) -> None:
    program = canonical(traced(FoldedHeads().eval(), 2, 10, 12))[0]
    space = SearchSpace(program)
    sliced = slice_program(program, space.choose({space.groups[0].name: range(kept)}))
    sliced.save(tmp_path / "student.pt2")
    assert load(tmp_path / "student.pt2").fingerprint == sliced.fingerprint

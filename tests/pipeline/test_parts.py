"""From executed nodes to kernels: nothing is counted twice, nothing is lost."""

from pathlib import Path
from statistics import median

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compactor.backend import Executed, Profiler
from compactor.frontend import export
from compactor.pipeline.bench import Sample, prepare, sample
from compactor.pipeline.parts import parts
from compactor.pipeline.request import backend_of
from compactor.target import Part
from compactor.targets.registry import profiles

CASES = [("host-cpu", p) for p in ("float32", "bfloat16", "int8")] + [("host-cpu-onnx", p) for p in ("float32", "int8")]


class _Mixed(nn.Module):
    """One large convolution among small layers of other kinds, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.large = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 256, 5, padding=2)
        self.down, self.norm = nn.Sequential(nn.MaxPool2d(8), nn.Conv2d(256, 32, 1)), nn.LayerNorm(32)
        self.qkv, self.head = nn.Linear(32, 96), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(torch.relu(self.large(torch.relu(self.stem(x)))))
        x = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = self.head(x.mean(1))
        return result


def _profiled(name: str, precision: str, folder: Path) -> tuple[Sample, list[list[Part]]]:
    target = profiles.resolve(name)
    torch.manual_seed(0)
    program = prepare(export(_Mixed().eval(), (torch.randn(2, 3, 32, 32),)), target, folder)
    found = sample(program, precision, target, folder)
    backend = backend_of(target)
    assert isinstance(backend, Profiler)
    runs = [backend.profile(found.lowered, found.inputs, seconds=0.1) for _ in range(7)]
    return found, [parts(executed, found.places, len(found.kernels)) for executed in runs]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_runtimes_tell_which_kernel_takes_the_time(name: str, precision: str, tmp_path: Path) -> None:
    found, runs = _profiled(name, precision, tmp_path)
    numbers = range(len(found.kernels))
    for timed in runs:
        assert sorted(i for part in timed for i in part.kernels) == list(numbers)
    least = [min(next(part.us for part in timed if i in part.kernels) for timed in runs) for i in numbers]
    most = max(numbers, key=lambda i: found.kernels[i].macs)
    assert least[most] > max(least) / 2 and least[most] > 2 * median(least), "a busy machine only adds"
    alone = {found.kernels[part.kernels[0]].kind for part in runs[0] if len(part.kernels) == 1}
    assert {"conv", "linear"} <= alone, "what runs by itself is told apart"


NODES = st.lists(
    st.tuples(st.lists(st.integers(0, 11), max_size=3), st.floats(0, 100)),
    max_size=20,
)
PLACES = {f"Add.{i}": (i // 2, i % 3 > 0) for i in range(12)}


@given(nodes=NODES)
def test_parts_are_a_partition(nodes: list[tuple[list[int], float]]) -> None:
    executed = [Executed(tuple(f"Add.{i}" for i in names), us) for names, us in nodes]
    found = parts(executed, PLACES, 6)
    assert sorted(i for part in found for i in part.kernels) == list(range(6))
    known = any(names for names, _ in nodes)
    assert sum(p.us for p in found) == pytest.approx(sum(us for _, us in nodes) if known else 0)
    for executed_node in executed:
        own = {PLACES[n][0] for n in executed_node.names if PLACES[n][1]}
        assert any(own <= set(part.kernels) for part in found)

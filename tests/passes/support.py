"""Data, a device and a context for running one pass on any architecture of `tests.models`."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from compactor.backend import Backend, Session
from compactor.budget import Budget
from compactor.data import Batch, DataSource
from compactor.errors import UnsupportedError
from compactor.ir import archive
from compactor.ir.exported import from_exported
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.pipeline.context import PassContext
from tests.pipeline.support import Toy


@dataclass(frozen=True)
class Tensors:
    """A split held in memory, for any number of inputs."""

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        """Over the values."""
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in self.inputs)).hexdigest()

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, indices: Tensor) -> Batch:
        """The batch of these samples."""
        labels = None if self.labels is None else self.labels[indices]
        return Batch(tuple(t[indices] for t in self.inputs), labels)


@dataclass(frozen=True)
class Device:
    """A device that is not here, with a predicted time per precision, milliseconds."""

    name: str = "toy"
    backend: str = "openvino"
    times: Mapping[str, float] = field(default_factory=lambda: {"float32": 4.0, "bfloat16": 3.0, "int8": 2.0})
    present: bool = False
    fingerprint: str = "toy"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those with a time."""
        return tuple(self.times)

    def predict(self, kernels: Sequence[Kernel], precision: str) -> Latency:
        """The time of the precision, whatever the kernels."""
        p50 = self.times[precision]
        return Latency(p50, "predicted", low=p50 / 2, high=p50 * 2)

    def floor(self, kernels: Sequence[Kernel]) -> float:
        """None."""
        return 0.0

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """Not here."""
        raise UnsupportedError("toy is not present", "predict")

    def compare(self, sessions: Mapping[str, Session], inputs: Sequence[Tensor]) -> dict[str, Latency]:
        """Not here."""
        raise UnsupportedError("toy is not present", "predict")


def context(
    program: Program,
    folder: Path,
    *,
    device: Device | None = None,
    train: Tensors | None = None,
    labels: bool = True,
    budget: Budget | None = None,
    backend: Backend | None = None,
) -> PassContext:
    """Twelve random samples, labelled by the program itself, for a device that is predicted."""
    inputs = program.example_inputs(12, seed=5)
    own = program(*inputs)
    first = own if isinstance(own, Tensor) else own[0]
    split = Tensors(inputs, first.argmax(-1) if labels else None)
    data = DataSource(train if train is not None else split, split, split)
    return PassContext(
        teacher=program,
        target=device or Device(),
        backend=backend or Toy(),
        data=data,
        budget=budget or Budget(),
        workspace=folder,
    )


def export(module: nn.Module, *shapes: tuple[int, ...]) -> Program:
    """A module in eval mode as a Program, inputs of these shapes with a dynamic batch."""
    inputs = tuple(torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes)
    dynamic = tuple({0: Dim("batch", min=1, max=64)} for _ in shapes)
    return from_exported(torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic))


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def traced(function: Callable[..., Any], *shape: int) -> Program:
    """A function of one float tensor as a Program."""
    return export(Calls(function), shape)


def targets(program: Program) -> list[str]:
    """The calls of a graph, in order."""
    return [str(n.target).removeprefix("aten.") for n in program.graph.nodes if n.op == "call_function"]


def outputs(program: Program, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Outputs for example inputs, as a tuple."""
    found = program(*program.example_inputs(batch, seed))
    return (found,) if isinstance(found, Tensor) else found


def error(before: Program, after: Program, batch: int = 3, seed: int = 0) -> float:
    """Largest relative error over all outputs."""
    pairs = zip(outputs(before, batch, seed), outputs(after, batch, seed), strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)) for a, b in pairs)


def reloaded(program: Program, folder: Path) -> Program:
    """The Program after saving and loading."""
    path = folder / "program.pt2"
    program.save(path)
    return archive.load(path)

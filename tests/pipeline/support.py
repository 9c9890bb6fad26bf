"""A small Program, data, target and passes to run pipelines with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import Dim

from compactor.backend import Lowered, Session
from compactor.budget import Budget
from compactor.data import Batch, DataSource
from compactor.errors import UnsupportedError
from compactor.ir.exported import from_exported
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.latency import Latency
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.pipeline.text import Pipeline
from compactor.target import Target


def program(seed: int = 0) -> Program:
    """A convolution with its norm and a classifier: (N, 3, 8, 8) to (N, 4)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        module = nn.Sequential(*conv, nn.Linear(8, 4)).eval()
    exported = torch.export.export(module, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: Dim("batch")},))
    return from_exported(exported)


@dataclass(frozen=True)
class Samples:
    """A split held in memory."""

    images: Tensor
    labels: Tensor | None = None

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        """Enough to tell two splits apart."""
        return f"{float(self.images.double().sum())}"

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Batch:
        """The batch of these samples."""
        return Batch((self.images[indices],), None if self.labels is None else self.labels[indices])


def data(shape: tuple[int, ...] = (3, 8, 8), classes: int = 4) -> DataSource:
    """Random images with random labels."""
    generator = torch.Generator().manual_seed(3)
    split = Samples(torch.rand(32, *shape, generator=generator), torch.randint(0, classes, (32,), generator=generator))
    return DataSource(split, split, split)


@dataclass(frozen=True)
class Device:
    """A target that is not here: one microsecond per kernel and per thousand MACs."""

    name: str = "toy"
    backend: str = "onnx"
    precisions: tuple[str, ...] = ("float32", "int8")
    present: bool = False
    fingerprint: str = "toy-1"

    def predict(self, kernels: Sequence[Kernel], precision: str) -> Latency:
        """Milliseconds, with an interval of a factor of two."""
        p50 = sum(1e-3 + k.macs * 1e-6 for k in kernels)
        return Latency(p50, "predicted", low=p50 / 2, high=p50 * 2)

    def floor(self, kernels: Sequence[Kernel]) -> float:
        """A microsecond per kernel."""
        return 1e-3 * len(kernels)

    def compare(self, sessions: Mapping[str, Session], inputs: Sequence[Tensor]) -> dict[str, Latency]:
        """Not here."""
        raise UnsupportedError("toy is not present", "predict")

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """Not here."""
        raise UnsupportedError("toy is not present", "predict")


class Toy:
    """A backend that refuses what it is told to refuse, and lowers nothing."""

    name = "toy"
    rules = QuantRules("toy")

    def __init__(self, reasons: Sequence[str] = ()) -> None:
        self.reasons = list(reasons)

    def installed(self) -> bool:
        """Never."""
        return False

    def supports(self, program: Program, target: Target) -> list[str]:
        """The given reasons."""
        return self.reasons

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Not here."""
        raise UnsupportedError("toy lowers nothing", "use another backend")

    def open(self, lowered: Lowered, *, threads: int | None = None) -> Session:
        """Not here."""
        raise UnsupportedError("toy opens nothing", "use another backend")


class Scale(Pass):
    """Multiplies the classifier's weights; exact only in what it claims."""

    name: ClassVar[str] = "toy.scale"
    ensures: ClassVar[frozenset[str]] = frozenset({"scaled"})
    runs: ClassVar[list[str]] = []

    class Config(PassConfig):
        """By how much."""

        factor: float = 2.0

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Scale, and leave a checkpoint behind."""
        self.runs.append(self.name)
        (ctx.workspace / "checkpoint").write_text("half way")
        state = {k: v * self.config.factor for k, v in program.state.items() if v.shape[:1] == (4,)}
        return PassResult(program.with_state(state), True, {"factor": self.config.factor})


class ExactScale(Scale):
    """Promises what it does not keep, unless the factor is 1."""

    name: ClassVar[str] = "toy.exact"
    exact: ClassVar[bool] = True


class Broken(Scale):
    """Makes a weight NaN."""

    name: ClassVar[str] = "toy.broken"

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Spoil the weights."""
        self.runs.append(self.name)
        return PassResult(program.with_state({k: v * float("nan") for k, v in program.state.items() if v.dim() == 2}))


class Crash(Scale):
    """Raises what no pass should raise."""

    name: ClassVar[str] = "toy.crash"

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Fail."""
        self.runs.append(self.name)
        raise KeyError("lost")


def context(teacher: Program, workspace: Path, **changes: Any) -> PassContext:
    """A context over the toy target."""
    fields: dict[str, Any] = {
        "teacher": teacher, "target": Device(), "backend": Toy(), "data": data(), "budget": Budget(),
        "workspace": workspace,
    }  # fmt: skip
    return PassContext(**{**fields, **changes})


def pipeline(*passes: Pass) -> Pipeline:
    """Passes as a pipeline, without the registry."""
    return Pipeline(passes)

"""Made-up inputs, for builds without data: they exercise the model, but say nothing of its accuracy."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from compactor.calibration import facts
from compactor.calibration.splits import digest
from compactor.data import Batch, DataSource
from compactor.ir.program import InputSpec, Program

TRAIN, DEV = 512, 128


def open(spec: str | None, program: Program, seed: int) -> DataSource:
    """512 training and 128 development samples of the nominal shapes, unlabelled; ``spec`` does not matter."""
    rows = tuple(facts.vocabulary(program, s.name) if _is_tokens(s) else None for s in program.inputs)
    train = SyntheticSplit(program.inputs, rows, TRAIN, 0, seed)
    dev = SyntheticSplit(program.inputs, rows, DEV, TRAIN, seed)
    return DataSource(train, dev, None, facts.labels(program), synthetic=True)


@dataclass(frozen=True, eq=False)
class SyntheticSplit:
    """Samples drawn one by one from their own seeds; ``rows`` is the vocabulary of each token input."""

    specs: tuple[InputSpec, ...]
    rows: tuple[int | None, ...]
    size: int
    first: int
    seed: int

    def __len__(self) -> int:
        return self.size

    @property
    def labelled(self) -> bool:
        """Never: nobody knows what the samples show."""
        return False

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over everything that the samples follow from."""
        shapes = [s.to_dict() for s in self.specs]
        return digest("synthetic 1", str(shapes), str(self.rows), f"{self.size} {self.first} {self.seed}")

    def take(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` (N,)."""
        samples = [self._sample(i) for i in indices.tolist()]
        return Batch(tuple(torch.stack(values) for values in zip(*samples, strict=True)))

    def _sample(self, index: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed((self.seed << 20) + self.first + index)
        return [_draw(spec, rows, generator) for spec, rows in zip(self.specs, self.rows, strict=True)]


def _is_tokens(spec: InputSpec) -> bool:
    return not spec.dtype.is_floating_point and spec.dtype != torch.bool


def _draw(spec: InputSpec, rows: int | None, generator: torch.Generator) -> Tensor:
    shape = spec.shape[1:]
    if facts.is_image(spec):
        return _image(shape, generator).to(spec.dtype)
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    if "mask" in spec.name or spec.dtype == torch.bool:
        return torch.ones(shape, dtype=spec.dtype)
    if "type" in spec.name:
        return torch.zeros(shape, dtype=spec.dtype)
    if "position" in spec.name:
        return torch.arange(shape[-1], dtype=spec.dtype).expand(shape).clone()
    return torch.randint(0, rows or 2, shape, generator=generator).to(spec.dtype)


def _image(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise of several scales around a random grey, in 0..1: like images, most of it is smooth."""
    channels, height, width = shape
    total = torch.rand(channels, 1, 1, generator=generator).expand(shape)
    for cells, strength in ((4, 0.3), (8, 0.15), (max(height, width), 0.05)):
        grid = torch.randn(1, channels, min(cells, height), min(cells, width), generator=generator)
        total = total + strength * nn.functional.interpolate(grid, size=(height, width), mode="bilinear")[0]
    return total.clamp(0, 1)

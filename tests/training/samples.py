"""A small data set that can be learned, and networks small enough to train in a second."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim

from compactor.data import Batch, DataSource
from compactor.ir.exported import from_exported
from compactor.ir.program import Program


@dataclass
class Tensors:
    """A split held in memory; counts how often it is asked."""

    images: Tensor
    labels: Tensor | None
    asked: int = 0

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.images.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Batch:
        self.asked += 1
        return Batch((self.images[indices],), None if self.labels is None else self.labels[indices])


def blobs(samples: int, seed: int, labelled: bool = True, size: int = 8) -> Tensors:
    """Noisy images of three classes, told apart by where they are bright."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (samples,), generator=random)
    images = 0.6 * torch.rand(samples, 1, size, size, generator=random)
    for label, corner in enumerate((slice(0, 3), slice(3, 5), slice(5, 8))):
        images[labels == label, :, corner, corner] += 0.4
    return Tensors(images, labels if labelled else None)


def source(labelled: bool = True, samples: int = 96) -> DataSource:
    """Train, dev and test of blobs."""
    return DataSource(blobs(samples, 0, labelled), blobs(48, 1, labelled), blobs(48, 2, labelled))


def network(width: int, seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """A small convolutional classifier of (N, 1, 8, 8) with batch norm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16 * width, 3),
    )


def program(module: nn.Module, *shape: int) -> Program:
    """The Program of a module that takes one float tensor."""
    example = (torch.rand(2, *(shape or (1, 8, 8))),)
    exported = torch.export.export(module.eval(), example, dynamic_shapes=({0: Dim("batch", min=1, max=4096)},))
    return from_exported(exported)


def trained(module: nn.Module, split: Tensors, steps: int = 60) -> nn.Module:
    """The module after a few plain steps on the labels."""
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(module.train()(split.images), split.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


@dataclass
class Labels:
    """The plainest objective: cross-entropy."""

    split: Tensors
    key: str = "labels"
    fail_at: int = -1

    def batch(self, micro) -> Batch:  # type: ignore[no-untyped-def]
        if micro.step == self.fail_at:
            raise KeyboardInterrupt
        return self.split.take(micro.indices)

    def loss(self, module: nn.Module, batch: Batch, micro) -> Tensor:  # type: ignore[no-untyped-def]
        return nn.functional.cross_entropy(module(*batch.inputs)[0].float(), batch.labels)

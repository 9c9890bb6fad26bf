"""Projections of a student's hidden states into its teacher's width, and the module that trains them with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from compactor.ir.program import Program
from compactor.training.positions import Stream
from compactor.training.taps import exposed

Projector = Literal["auto", "linear", "orthogonal"]
HIDDEN = "hidden:"


class Linear(nn.Module):
    """A matrix that is free to train (CoFi, section 3.3)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., student's width) to (..., teacher's)."""
        return x @ self.weight.T


class Orthogonal(nn.Module):
    """A matrix that stays orthogonal: ``start`` turned by the exponential of a skew matrix (VkD, arXiv 2403.06213)."""

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        self.turn = nn.Parameter(torch.zeros(len(start), len(start)))

    @property
    def weight(self) -> Tensor:
        """(teacher's width, student's width)"""
        turned: Tensor = torch.matrix_exp(self.turn - self.turn.T) @ self.start
        return turned

    def forward(self, x: Tensor) -> Tensor:
        """(..., student's width) to (..., teacher's)."""
        return x @ self.weight.T


class Guided(nn.Module):
    """A student whose hidden states come out projected, ``hidden:NAME``: (N, positions, teacher's width).

    ``projections``: by the name of each stream, and several may share one. Further nodes of the student's graph may be
    ``watched``, as they are.
    """

    def __init__(
        self,
        student: Program,
        streams: Sequence[Stream],
        projections: Mapping[str, nn.Module],
        watched: Mapping[str, object] | None = None,
        *,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        nodes = {**{HIDDEN + s.name: s.node for s in streams}, **(watched or {})}
        shown = exposed(student, nodes)  # type: ignore[arg-type]
        self.student = shown.module(train=True, dropout=dropout)
        self.names, self.streams = shown.outputs, tuple(streams)
        unique = list(dict.fromkeys(projections.values()))
        self.projections = nn.ModuleList(unique)
        self._of = {name: unique.index(projection) for name, projection in projections.items()}

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """All outputs by name, the student's own first."""
        found = dict(zip(self.names, self.student(*inputs), strict=True))
        for stream in self.streams:
            name = HIDDEN + stream.name
            with torch.autocast(inputs[0].device.type, enabled=False):
                found[name] = self.projections[self._of[stream.name]](rows(found[name], stream.dim))
        return found


def rows(state: Tensor, dim: int) -> Tensor:
    """A hidden state as float32 (N, positions, channels); ``dim`` holds the channels."""
    moved = state.float().movedim(dim, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def shared(streams: Iterable[Stream], starts: Callable[[Sequence[Stream]], Tensor], kind: Projector) -> dict[str, nn.Module]:
    """One projection for all streams of a shape. ``auto``: linear where the widths are equal, else orthogonal."""
    alike: dict[object, list[Stream]] = {}
    for stream in streams:
        alike.setdefault((stream.shape, stream.whole, stream.dim), []).append(stream)
    found: dict[str, nn.Module] = {}
    for group in alike.values():
        found.update(dict.fromkeys((s.name for s in group), of_kind(kind, starts(group))))
    return found


def of_kind(kind: Projector, start: Tensor) -> nn.Module:
    """A projection that begins as ``start``, (teacher's width, student's width)."""
    free = kind == "linear" or (kind == "auto" and start.shape[0] == start.shape[1])
    return Linear(start) if free else Orthogonal(start)


def start(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Where a projection begins: the identity for equal widths, else the orthogonal matrix that fits best.

    ``pairs``: the same state in student and teacher, (N, positions, channels). The best fit is the polar factor of
    their cross-covariance (Schönemann, 1966): for a slice of the teacher, the channels that were kept.
    """
    student, teacher = pairs[0]
    if student.shape[-1] == teacher.shape[-1]:
        return torch.eye(teacher.shape[-1])
    crossed = sum(torch.einsum("npt,nps->ts", t.double(), s.double()) for s, t in pairs)
    left, _, right = torch.linalg.svd(torch.as_tensor(crossed), full_matrices=False)
    return (left @ right).float()

"""Projections of a student's hidden states into its teacher's width, and the module that trains them with it."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn

from compactor.ir.program import Program
from compactor.training.positions import Stream
from compactor.training.taps import exposed

Projector = Literal["auto", "linear", "orthogonal"]
HIDDEN = "hidden:"


class Projection(nn.Module):
    """A matrix without bias, (teacher's width, student's width)."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., student's width) to (..., teacher's)."""
        return x @ self.weight.T


class Linear(Projection):
    """A matrix that is free to train (CoFi, section 3.3)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())


class Orthogonal(Projection):
    """A matrix that stays orthogonal: ``start`` turned by the exponential of a skew matrix (VkD, arXiv 2403.06213)."""

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        self.turn = nn.Parameter(torch.zeros(len(start), len(start)))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The turned matrix; not cheap."""
        return torch.matrix_exp(self.turn - self.turn.T) @ self.start


class Guided(nn.Module):
    """A network that shows its hidden states, ``hidden:NAME``: (N, positions, width), the teacher's width if projected.

    ``names``: of all that ``network`` returns, its own outputs first and hidden states among the others.
    ``projections``: by the name of a stream, and several may share one.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        streams: Sequence[Stream],
        projections: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.network, self.names, self.streams = network, tuple(names), tuple(streams)
        unique = list(dict.fromkeys(projections.values()))
        self.projections = nn.ModuleList(unique)
        self._of = {name: unique.index(projection) for name, projection in projections.items()}

    @staticmethod
    def of(
        program: Program,
        streams: Sequence[Stream],
        projections: Mapping[str, nn.Module],
        watched: Mapping[str, fx.Node] | None = None,
        *,
        train: bool = True,
        dropout: bool = False,
    ) -> "Guided":
        """A Program, with further nodes of its graph ``watched`` as they are.

        With ``train`` as in `Program.module`, but for dropout, which is off unless asked for.
        """
        shown = exposed(program, {**{HIDDEN + s.name: s.node for s in streams}, **(watched or {})})
        return Guided(shown.module(train=train, dropout=dropout), shown.outputs, streams, projections)

    def own(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The network's part of a state of this module."""
        return {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """All outputs by name, the student's own first."""
        found = dict(zip(self.names, self.network(*inputs), strict=True))
        with torch.autocast(inputs[0].device.type, enabled=False):
            weights = [cast(Projection, projection).weight for projection in self.projections]
            for stream in self.streams:
                name = HIDDEN + stream.name
                found[name] = rows(found[name], stream.dim)
                if stream.name in self._of:
                    found[name] = found[name] @ weights[self._of[stream.name]].T
        return found


def rows(state: Tensor, dim: int) -> Tensor:
    """A hidden state as float32 (N, positions, channels); ``dim`` holds the channels."""
    moved = state.float().movedim(dim, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])


def free(kind: Projector, widths: tuple[int, int]) -> bool:
    """Whether a projection is a free matrix; ``auto``: where the widths are equal."""
    return kind == "linear" or (kind == "auto" and widths[0] == widths[1])


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
    fitted: Tensor = left @ right
    return fitted.float()

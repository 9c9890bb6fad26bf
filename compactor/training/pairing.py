"""A student beside its teacher: which of their hidden states and attentions are compared."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from compactor.data import Split
from compactor.ir import graphs
from compactor.ir.program import Program
from compactor.training import taps
from compactor.training.matching import evenly
from compactor.training.positions import Stream, attentions, streams
from compactor.training.projection import HIDDEN, Guided, start
from compactor.training.taps import Named

Nodes = dict[str, fx.Node]


class Pair:
    """What two Programs that came from one teacher have in common.

    Attributes:
        streams: the student's hidden states; any may learn from a teacher's of the same (unsliced) shape.
        layers: the teacher's hidden states that are learned from, at most ``layers``, evenly spread.
        attentions: names of the attentions that both have.

    Raises `UnsupportedError` when there is no hidden state to compare.
    """

    def __init__(self, student: Program, teacher: Program, layers: int) -> None:
        self.student, self.teacher = student, teacher
        self.streams, self._theirs = streams(student, teacher)
        dims = {s.whole: s.dim for s in self.streams}
        fitting = [s for name in self._theirs if (s := self._of_teacher(name, dims)) is not None]
        self.layers = [fitting[i] for i in evenly(len(fitting), layers)]
        self._attentions = attentions(student), attentions(teacher)
        self.attentions = [name for name in self._attentions[0] if name in self._attentions[1]]

    def _of_teacher(self, name: str, dims: Mapping[tuple[int, ...], int]) -> Stream | None:
        node = self._theirs[name]
        shape = tuple(self.teacher.values[node].shape)
        return Stream(name, node, shape, shape, dims[shape]) if shape in dims else None

    @property
    def classes(self) -> int:
        """Width of the logits."""
        logits = graphs.output_node(self.teacher.graph).all_input_nodes[0]
        return int(self.teacher.values[logits].shape[-1])

    def fits(self, layer: Stream, stream: Stream) -> bool:
        """Whether a teacher's hidden state can teach a student's."""
        return layer.whole == stream.whole

    def watched(self, *, attention: bool, relation: bool) -> tuple[Nodes, Nodes]:
        """Further nodes of student and teacher that the losses need; the teacher's mask always, for the padding."""
        ours, theirs = taps.compared(self.student), taps.compared(self.teacher)
        if not relation:
            ours, theirs = {}, {k: n for k, n in theirs.items() if k == taps.MASK}
        for found, nodes in zip((ours, theirs), self._attentions if attention else (), strict=False):
            for name in self.attentions:
                found.update(_operands(name, nodes[name]))
        return ours, theirs

    def map(self, found: Named, name: str, *, teacher: bool) -> Tensor:
        """Attention probabilities (N, heads, T, T) of one side."""
        node = self._attentions[teacher][name]
        query, key = found[f"query:{name}"].float(), found[f"key:{name}"].float()
        scale = graphs.argument(node, 6, "scale")
        scores = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).mT
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        return _masked(scores, found.get(f"mask:{name}"), bool(graphs.argument(node, 5, "is_causal", False))).softmax(
            -1
        )

    def starts(self, split: Split, indices: Tensor) -> list[tuple[list[Stream], Tensor]]:
        """Streams of one shape, and the matrix (teacher's width, student's) from which their projection starts."""
        inputs = split.take(indices).inputs
        alike: dict[object, list[Stream]] = {}
        for stream in self.streams:
            alike.setdefault((stream.shape, stream.whole, stream.dim), []).append(stream)
        ours = self._states(self.student, self.streams, inputs)
        same = [Stream(s.name, self._theirs[s.name], s.whole, s.whole, s.dim) for s in self.streams]
        theirs = self._states(self.teacher, same, inputs)
        return [(group, start([(ours[s.name], theirs[s.name]) for s in group])) for group in alike.values()]

    @staticmethod
    def _states(program: Program, streams: Sequence[Stream], inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        with torch.no_grad():
            found = plain(program, streams)(*inputs)
        return {s.name: found[HIDDEN + s.name] for s in streams}


def plain(program: Program, streams: Sequence[Stream], watched: Nodes | None = None) -> Guided:
    """A frozen network that shows its hidden states as they are."""
    return Guided.of(program, streams, {}, watched, train=False).requires_grad_(False)


def valid(goal: Named, positions: int) -> Tensor | None:
    """(N or 1, T): which positions are no padding, where the teacher has a mask over as many."""
    seen = taps.visible(goal[taps.MASK]) if taps.MASK in goal else None
    return seen if seen is not None and seen.shape[1] == positions else None


def _operands(name: str, node: fx.Node) -> Nodes:
    places = {"query": (0, "query"), "key": (1, "key"), "mask": (3, "attn_mask")}
    found = {f"{k}:{name}": graphs.argument(node, *place) for k, place in places.items()}
    return {k: n for k, n in found.items() if isinstance(n, fx.Node)}


def _masked(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    lowest = torch.finfo(scores.dtype).min
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, lowest)
    if mask is None:
        return scores
    return scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask.float()

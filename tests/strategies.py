"""Hypothesis strategies: random small legal networks, as recipes whose ``repr`` says what they are.

A recipe is a list of steps that fit any width (group counts and split points are made to fit when it is built), so that
removing any step leaves a legal recipe and failures shrink to the step that matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim

from compactor.ir.exported import from_exported
from compactor.ir.program import Program
from tests import steps
from tests.models.weights import randomize
from tests.steps import Step

_UNITS = st.sampled_from((4, 8, 12, 16))
_ACTIVATIONS = st.sampled_from(("none", "relu", "gelu", "silu", "sigmoid", "hardswish"))


@dataclass(frozen=True)
class Recipe:
    """Steps between an entry of ``width`` units and a head. ``kind``: image (N, 3, 8, 8) or sequence (N, 6, 5)."""

    kind: str
    width: int
    body: tuple[Step, ...]
    head: str

    def inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Random inputs."""
        shape = (batch, 3, 8, 8) if self.kind == "image" else (batch, 6, 5)
        return (torch.rand(shape, generator=torch.Generator().manual_seed(1)),)

    def module(self, seed: int = 0) -> nn.Module:
        """The network in eval mode, with weights by seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return randomize(steps.network(self.kind, self.width, self.body, self.head), seed)

    def program(self) -> Program:
        """The exported network with a dynamic batch."""
        return _exported(self)


@lru_cache(maxsize=32)
def _exported(recipe: Recipe) -> Program:
    shapes = ({0: Dim("batch", min=1, max=64)},)
    return from_exported(torch.export.export(recipe.module(), recipe.inputs(), dynamic_shapes=shapes))


def _nested(leaves: Sequence[st.SearchStrategy[Step]]) -> st.SearchStrategy[Step]:
    """The leaves, and steps that hold lists of steps, two levels deep."""

    def wrap(inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
        bodies = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.one_of(
            st.builds(steps.Residual, bodies),
            st.builds(steps.Concat, st.lists(bodies, min_size=2, max_size=3).map(tuple)),
            st.builds(steps.Split, bodies, st.sampled_from(("chunk", "split", "slice")), st.booleans()),
            st.builds(steps.Gate, bodies),
            st.builds(steps.Reuse, bodies),
        )

    flat = st.one_of(*leaves)
    return st.one_of(flat, wrap(flat), wrap(st.one_of(flat, wrap(flat))))


def image_steps() -> st.SearchStrategy[Step]:
    """Steps on feature maps (N, C, H, W)."""
    conv = st.builds(
        steps.Conv,
        _UNITS,
        st.sampled_from((1, 3)),
        st.sampled_from((1, 2, 4)),
        st.sampled_from(("none", "batch", "group")),
        _ACTIVATIONS,
    )
    return _nested(
        [
            conv,
            st.builds(steps.Depthwise, st.sampled_from(("none", "batch"))),
            st.builds(steps.SqueezeExcite, st.sampled_from((2, 4))),
            st.builds(steps.Shuffle, st.sampled_from((2, 4))),
            st.builds(steps.ChannelsLast, _UNITS),
            st.builds(steps.PadChannels, st.sampled_from((2, 4))),
            st.builds(steps.Pool, st.sampled_from(("max", "average", "stride"))),
            st.builds(steps.Tied, _UNITS),
        ]
    )


def sequence_steps() -> st.SearchStrategy[Step]:
    """Steps on sequences (N, L, C)."""
    attention = st.builds(
        steps.Attention,
        st.sampled_from((1, 2, 4)),
        st.sampled_from((1, 2)),
        st.sampled_from(("separate", "chunk", "view")),
        st.booleans(),
    )
    return _nested(
        [
            st.builds(steps.Dense, _UNITS, _ACTIVATIONS),
            st.builds(steps.Norm, st.sampled_from(("layer", "rms"))),
            st.builds(steps.FeedForward, _UNITS, st.sampled_from(("plain", "glu", "swiglu"))),
            st.builds(steps.Shuffle, st.sampled_from((2, 4))),
            st.builds(steps.GroupedNorm, st.sampled_from((2, 4))),
            st.builds(steps.Tied, _UNITS),
            attention,
        ]
    )


def recipes(max_steps: int = 4) -> st.SearchStrategy[Recipe]:
    """Recipes of either kind with up to ``max_steps`` top-level steps."""

    def of(kind: str, step: st.SearchStrategy[Step], heads: tuple[str, ...]) -> st.SearchStrategy[Recipe]:
        body = st.lists(step, min_size=1, max_size=max_steps).map(tuple)
        return st.builds(Recipe, st.just(kind), _UNITS, body, st.sampled_from(heads))

    return st.one_of(
        of("image", image_steps(), ("mean", "flatten", "pool")),
        of("sequence", sequence_steps(), ("mean", "first", "all")),
    )

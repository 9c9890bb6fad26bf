"""`QuantPlan`: every quantizer of a Program as data, to print, edit, check against a runtime's rules, and apply."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from compactor.errors import UnsupportedError

BIAS = {"conv1d": 2, "conv2d": 2, "conv3d": 2, "linear": 2}
"""For ops with a bias, its place among the nodes they read."""

_CHANNELS = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "conv_transpose1d": 1, "conv_transpose2d": 1, "linear": 0}
"""For ops with a weight, the axis of its output channels."""


@dataclass(frozen=True, order=True)
class Edge:
    """Where a quantized value is read: by ``node``, an ``op``, as the ``place``-th of the nodes among its arguments."""

    node: str
    place: int
    op: str

    def __str__(self) -> str:
        return f"{self.node}:{self.place}"


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Rounds one value to integers: clamp(round(x / scale) + zero_point, low, high), and back.

    Attributes:
        source: the node that makes an activation, or the tensor of the state that a weight is.
        weight: which of the two it is.
        edges: who reads the rounded value; other readers get the exact one.
        scale: positive, float32, () for the whole tensor or (channels,) along ``axis``.
        zero_point: int64, the shape of ``scale``.
        low, high: the integers in use; four-bit weights use -7 to 7.
        dtype: int8 or uint8, in which they are stored.
        axis: of the channels; None for one scale.
    """

    source: str
    weight: bool
    edges: tuple[Edge, ...]
    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    dtype: torch.dtype = torch.int8
    axis: int | None = None

    @property
    def bits(self) -> int:
        """Bits that tell the integers apart."""
        return (self.high - self.low).bit_length()

    @property
    def scheme(self) -> str:
        """``symmetric`` (the zero point is 0) or ``asymmetric``."""
        return "asymmetric" if self.zero_point.any() else "symmetric"

    def key(self) -> tuple[Any, ...]:
        """Equal for quantizers that round alike."""
        numbers = tuple(self.scale.flatten().tolist()), tuple(self.zero_point.flatten().tolist())
        return self.source, self.weight, numbers, self.low, self.high, self.dtype, self.axis

    def __str__(self) -> str:
        kind, dtype = "weight" if self.weight else "activation", str(self.dtype).removeprefix("torch.")
        least, most = float(self.scale.min()), float(self.scale.max())
        if self.axis is None:
            scales = f"scale {least:.3g}, zero point {int(self.zero_point)}"
        else:
            scales = f"axis {self.axis}, {len(self.scale)} scales {least:.3g} to {most:.3g}"
        grid = f"{self.bits} bits {self.scheme} {dtype} [{self.low}, {self.high}]"
        return f"{kind} {self.source}: {grid}, {scales} -> {', '.join(map(str, self.edges))}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form; all there is to know."""
        return {
            "source": self.source,
            "kind": "weight" if self.weight else "activation",
            "readers": [{"node": e.node, "place": e.place, "op": e.op} for e in self.edges],
            "bits": self.bits,
            "scheme": self.scheme,
            "dtype": str(self.dtype).removeprefix("torch."),
            "low": self.low,
            "high": self.high,
            "axis": self.axis,
            "scale": self.scale.tolist(),
            "zero_point": self.zero_point.tolist(),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Quantizer":
        """The inverse of `to_dict`; ``bits`` and ``scheme`` follow from the rest."""
        return Quantizer(
            data["source"], data["kind"] == "weight", tuple(Edge(**e) for e in data["readers"]),
            torch.tensor(data["scale"], dtype=torch.float32), torch.tensor(data["zero_point"], dtype=torch.int64),
            data["low"], data["high"], getattr(torch, data["dtype"]), data["axis"],
        )  # fmt: skip


@dataclass(frozen=True)
class QuantRules:
    """What a runtime asks of quantizers.

    Attributes:
        runtime: its name.
        signed: activations must be int8 with zero point 0.
        weight_bits: of weights that it stores in so many, beside exact activations.
        smooth: SmoothQuant's factors may stay in the graph.

    Every runtime here wants symmetric weights with one scale or one per output channel, one scale per activation, and
    no quantized bias.
    """

    runtime: str
    signed: bool = False
    weight_bits: tuple[int, ...] = ()
    smooth: bool = True

    def broken(self, quantizer: Quantizer) -> Iterator[str]:
        """What is wrong with a quantizer."""
        if not bool((quantizer.scale > 0).all() and quantizer.scale.isfinite().all()):
            yield f"has a scale of {float(quantizer.scale.min()):.3g}"
        if quantizer.weight:
            yield from _broken_weight(quantizer)
        elif quantizer.axis is not None:
            yield f"has {len(quantizer.scale)} scales on an activation"
        elif self.signed and quantizer.dtype is not torch.int8:
            yield f"stores {str(quantizer.dtype).removeprefix('torch.')}, not int8"
        elif self.signed and quantizer.zero_point.any():
            yield f"has the zero point {int(quantizer.zero_point)}, not 0"


def _broken_weight(quantizer: Quantizer) -> Iterator[str]:
    if quantizer.zero_point.any() or quantizer.dtype is not torch.int8:
        yield "is an asymmetric weight"
    for edge in quantizer.edges:
        if edge.place == BIAS.get(edge.op):
            yield f"is the bias of {edge.node}"
        elif quantizer.axis is not None and quantizer.axis != _CHANNELS.get(edge.op, quantizer.axis):
            yield f"has its scales on axis {quantizer.axis}, the output channels of {edge.node} are on another"


@dataclass(frozen=True)
class QuantPlan:
    """The quantizers of a Program, in graph order. Edits give new plans; `quantizing.quantized` applies one."""

    quantizers: tuple[Quantizer, ...] = ()

    def __iter__(self) -> Iterator[Quantizer]:
        return iter(self.quantizers)

    def __len__(self) -> int:
        return len(self.quantizers)

    def __str__(self) -> str:
        return "\n".join(map(str, self.quantizers))

    def to_json(self) -> str:
        """All of it."""
        return json.dumps([q.to_dict() for q in self.quantizers], indent=1)

    @staticmethod
    def from_json(text: str) -> "QuantPlan":
        """The inverse of `to_json`."""
        return QuantPlan(tuple(map(Quantizer.from_dict, json.loads(text))))

    def check(self, rules: QuantRules) -> None:
        """Raise `UnsupportedError` naming the first node that breaks a rule."""
        for quantizer in self.quantizers:
            for reason in rules.broken(quantizer):
                readers = ", ".join(map(str, quantizer.edges))
                raise UnsupportedError(
                    f"{rules.runtime} refuses the quantizer of {quantizer.source} (read by {readers}): it {reason}",
                    "quantize with the options that this target asks for, or keep this node in float",
                )

    def without(self, readers: Iterable[str]) -> "QuantPlan":
        """A plan in which these nodes read exact values; patterns such as ``conv2d_*`` name several."""
        patterns = tuple(readers)

        def kept(edge: Edge) -> bool:
            return not any(fnmatchcase(edge.node, pattern) for pattern in patterns)

        left = (replace(q, edges=tuple(filter(kept, q.edges))) for q in self.quantizers)
        return QuantPlan(tuple(q for q in left if q.edges))

    def replaced(self, changes: Mapping[int, Quantizer]) -> "QuantPlan":
        """A plan with other quantizers at these positions."""
        return QuantPlan(tuple(changes.get(i, q) for i, q in enumerate(self.quantizers)))

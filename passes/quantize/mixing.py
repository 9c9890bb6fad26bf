"""The mixtures of int8 and one float precision that `quantize.mixed` tries."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial

from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized
from compactor.ir.quantplan import QuantPlan
from compactor.passes.quantize.calibrate import Calibrated
from compactor.passes.quantize.candidates import Candidate, tried
from compactor.passes.quantize.judge import Judge
from compactor.passes.quantize.payoff import Payoff
from compactor.passes.quantize.profiled import profiled
from compactor.passes.quantize.sensitivity import ranked, relieved, runner
from compactor.pipeline.context import PassContext

Choose = Callable[[Collection[str]], frozenset[int]]
"""The layers to compute in int8, when these nodes must be exact."""

_LEAST_US = 1e-3
"""Gains below count as this: such layers are the first to become exact."""


@dataclass(frozen=True)
class Mixture:
    """A candidate, its int8 ``layers`` by number, the precision of others, and nodes that are exact for accuracy.

    ``payoff`` is what it was chosen by.
    """

    candidate: Candidate
    layers: frozenset[int]
    between: str
    payoff: Payoff
    exact: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mixing:
    """A calibrated Program, and what its layers are predicted to pay on the target in int8 instead of in ``between``.

    ``plain`` is the Program in ``between`` throughout; ``floor`` the least score on dev; ``probes`` are the samples
    that rank layers.
    """

    found: Calibrated
    payoff: Payoff
    between: str
    plain: Candidate
    floor: float
    judge: Judge
    ctx: PassContext
    probes: int

    def candidates(self) -> list[Mixture]:
        """Int8 as `quantize.ptq` makes it, the same with ``between`` in between, and what pays; each once."""
        every = frozenset(range(len(self.payoff.layers)))
        made = [Mixture(self._tried("int8", every, "float32"), every, "float32", self.payoff)]
        if self.between != "float32":
            whole = self._tried(f"int8+{self.between}", every, self.between)
            made.append(Mixture(whole, every, self.between, self.payoff))
        for label, (payoff, choose) in self._ways(every, made[-1].candidate).items():
            layers, exact, reason = self._accurate(choose)
            if layers not in [m.layers for m in made]:
                candidate = Candidate(label, reason=reason) if reason else self._tried(label, layers, self.between)
                made.append(Mixture(candidate, layers, self.between, payoff, exact))
        return made

    def _ways(self, every: frozenset[int], whole: Candidate) -> dict[str, tuple[Payoff, Choose]]:
        """Only measuring can tell what conversions cost, so the others are for devices that are here."""
        payoff = self.payoff
        ways: dict[str, tuple[Payoff, Choose]] = {"mixed": (payoff, payoff.cheapest)}
        if self.ctx.measures:
            ways["mixed, conversions free"] = payoff, partial(payoff.cheapest, conversions=0.0)
            ways["mixed, all that is accurate"] = payoff, lambda exact: payoff.closed(every - payoff.layers_of(exact))
        if (timed := profiled(payoff, self.plain, whole, self.ctx)) is not None:
            ways["mixed, as profiled"] = timed, timed.cheapest
        return ways

    def _accurate(self, choose: Choose) -> tuple[frozenset[int], tuple[str, ...], str]:
        """Layers, the nodes that must be exact for them to hold the score, and why there are none, if so."""
        layers = choose(())
        exact: tuple[str, ...] = ()
        try:
            if layers and self.judge.score(runner(self.found.program, self._plan(layers))) < self.floor:
                exact = self._exact(layers)
                layers = choose(exact)
        except UnsupportedError as error:
            return frozenset(), (), error.message
        return layers, exact, "" if layers else f"no layer is predicted to gain by int8 beside {self.between}"

    def _tried(self, label: str, layers: frozenset[int], between: str) -> Candidate:
        return tried(label, lambda: self._program(layers, between), self.ctx, self.judge)

    def _program(self, layers: frozenset[int], between: str) -> Program:
        return quantized(self.found.program, self._plan(layers)).evolve(between=between)

    def _plan(self, layers: frozenset[int]) -> QuantPlan:
        return self.found.plan.without(self.payoff.nodes(layers))

    def _exact(self, layers: frozenset[int]) -> tuple[str, ...]:
        """The fewest nodes that must be exact, those first that cost most accuracy for the time they save."""

        def cost(number: int) -> float:
            layer = self.payoff.layers[number]
            return sum(self._sensitivity.get(n, 0.0) for n in layer.nodes) / max(layer.gain, _LEAST_US)

        order = [node for i in sorted(layers, key=cost, reverse=True) for node in self.payoff.layers[i].nodes]
        return tuple(relieved(self.found.program, self._plan(layers), order, self.judge.score, self.floor)[1])

    @cached_property
    def _sensitivity(self) -> dict[str, float]:
        """By node, how much of the error goes when it alone is exact, percent."""
        probes = self.ctx.data.calibration(self.probes, self.ctx.seed)
        return dict(ranked(self.found.program, self.found.plan, probes, self.ctx.progress))

    def reason(self, number: int, mixture: Mixture) -> str:
        """Why a layer has its precision in a mixture."""
        layer = mixture.payoff.layers[number]
        if number in mixture.layers:
            return "int8 is faster" if layer.gain > 0 else "int8 like its neighbours: no conversion"
        if not set(layer.nodes).isdisjoint(mixture.exact):
            return "rounding costs too much accuracy"
        return "int8 is no faster" if layer.gain <= 0 else "int8 gains less than the conversion"

"""What layers pay in int8 as the runtime's own profile has it, where the device is here."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from compactor.backend import Profiler
from compactor.passes.quantize.candidates import Candidate
from compactor.passes.quantize.payoff import Payoff
from compactor.pipeline.context import PassContext
from compactor.pipeline.parts import kernels_by_name, parts

_SECONDS = 1.0
"""How long a model runs for its profile."""


def profiled(payoff: Payoff, plain: Candidate, whole: Candidate, ctx: PassContext) -> Payoff | None:
    """The payoff with the profiled times of layers: in float from ``plain``, in int8 from ``whole``.

    Conversions stay as predicted: a runtime that fuses them shows none. None where nothing can be profiled.
    """
    floats, integers = _times(plain, ctx), _times(whole, ctx)
    if not floats or not integers:
        return None
    layers = tuple(
        replace(layer, float_us=floats[layer.name], int8_us=integers[layer.name])
        if layer.name in floats and layer.name in integers
        else layer
        for layer in payoff.layers
    )
    return replace(payoff, layers=layers)


def _times(candidate: Candidate, ctx: PassContext) -> dict[str, float]:
    """Microseconds of every kernel by its node, summing to the latency; what ran together shares its time evenly."""
    program, latency = candidate.program, candidate.latency
    if not (ctx.measures and isinstance(ctx.backend, Profiler)) or program is None or latency is None:
        return {}
    kernels = program.kernels()
    with TemporaryDirectory(dir=ctx.workspace) as folder:
        lowered = ctx.backend.lower(program, ctx.target, Path(folder))
        executed = ctx.backend.profile(lowered, program.example_inputs(batch=1), seconds=_SECONDS)
    found = parts(executed, kernels_by_name(program, lowered.origins), len(kernels))
    scale = latency.p50 * 1e3 / sum(part.us for part in found)
    return {kernels[i].node: scale * part.us / len(part.kernels) for part in found for i in part.kernels}

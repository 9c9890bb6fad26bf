"""Calibration: ranges from data, by NNCF's placement, as a float Program and its plan."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, fx

from compactor.data import Batch
from compactor.errors import InputError, UsageError
from compactor.ir import graphs
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.ir.quantplan import Quantizer, QuantPlan
from compactor.passes.quantize.convert import to_plan
from compactor.passes.quantize.grids import fitted_weights
from compactor.passes.quantize.nncf_run import Sample, Settings, quantize
from compactor.passes.quantize.twin import static_twin
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassConfig
from compactor.target import Target


class CalibrationConfig(PassConfig):
    """Options of every pass that calibrates.

    ``preset``: ``performance`` is symmetric, ``mixed`` has asymmetric activations; by default NNCF picks by model type.
    ``symmetric`` (signed activations with zero point 0) is on where the target's runtime demands it. ``attention``
    quantizes the inputs of fused attention too.
    """

    samples: int = Field(default=300, ge=1, le=100_000, description="samples that calibrate, one at a time")
    bits: Literal[8, 4, 3, 2] = Field(
        default=8, description="of weights; fewer than 8 are stored as int8 and run no faster; 2 is ternary"
    )
    preset: Literal["performance", "mixed"] | None = Field(
        default=None, description="symmetric, or asymmetric activations"
    )
    symmetric: bool | None = Field(
        default=None, description="signed activations with zero point 0; as the runtime demands"
    )
    smooth_quant: bool = Field(default=True, description="move outliers of activations into weights; never for Hexagon")
    smooth_alpha: float | None = Field(default=None, ge=0, le=1, description="how far it moves them; NNCF's choice")
    bias_correction: Literal["fast", "accurate", "none"] = Field(
        default="fast", description="NNCF's correction of biases"
    )
    attention: bool = Field(default=False, description="quantize the inputs of fused attention")


@dataclass(frozen=True)
class Calibrated:
    """A float Program (smoothed, biases corrected), the plan for it, and ``facts`` for metrics."""

    program: Program
    plan: QuantPlan
    facts: dict[str, Any]


def calibrated(program: Program, ctx: PassContext, config: CalibrationConfig) -> Calibrated:
    """Run the samples and choose every quantizer.

    Raises `UsageError` for a Program that is not float32, `InputError` for data that cannot calibrate, and
    `UnsupportedError` from NNCF or naming a node that breaks a rule of the target's runtime.
    """
    if program.precision != "float32":
        raise UsageError(f"the model is {program.precision} already", "quantize a float32 model, once")
    samples = samples_of(ctx.data.calibration(config.samples, ctx.seed))
    check_values(program, samples)
    rules = ctx.backend.rules
    signed = rules.signed if config.symmetric is None else config.symmetric
    settings = settings_of(config, program, ctx.target, signed)
    if not rules.smooth:
        settings = replace(settings, smooth_quant=False)
    total = len(samples)
    module = quantize(
        static_twin(program, samples[0]),
        samples,
        settings,
        lambda done: ctx.progress.update(min(done, total), total, "calibrating"),
    )
    exact, plan = to_plan(program, module, signed=signed)
    if config.bits < 8:
        plan = fitted_weights(exact, plan, config.bits)
    plan.check(rules)
    silent = silent_nodes(exact, plan, samples)
    if silent:
        ctx.progress.note(f"always 0 while calibrating, so their ranges are guesses: {', '.join(silent)}")
    chosen = {name: value for name, value in asdict(settings).items() if name != "ignored"}
    facts = {"samples": total, "bits": config.bits, "signed": signed, "silent": silent, "settings": chosen}
    return Calibrated(exact, plan, facts)


def settings_of(config: CalibrationConfig, program: Program, target: Target, signed: bool) -> Settings:
    """What NNCF is told."""
    attention = any(n.target is aten.scaled_dot_product_attention.default for n in program.graph.nodes)
    return Settings(
        transformer=attention,
        device=_device(target),
        preset="performance" if signed else config.preset,
        smooth_quant=config.smooth_quant,
        alpha=config.smooth_alpha,
        bias_correction=config.bias_correction,
        ignored=_kept_in_float(program, config.attention),
    )


def _device(target: Target) -> str:
    if target.backend == "tensorrt":
        return "ANY"
    return "NPU" if "npu" in target.name or target.backend == "qnn" else "CPU"


def _kept_in_float(program: Program, attention: bool) -> tuple[str, ...]:
    """Nodes that NNCF must not touch: what is not float at all, and fused attention where no runtime has it in int8."""

    def kept(node: fx.Node) -> bool:
        value = program.values.get(node)
        integer = isinstance(value, Tensor) and not value.dtype.is_floating_point
        return integer or (node.target is aten.scaled_dot_product_attention.default and not attention)

    return tuple(n.name for n in program.graph.nodes if n.op in ("placeholder", "call_function") and kept(n))


def samples_of(batch: Batch) -> list[Sample]:
    """The batch, one sample at a time. Raises `InputError` where it is empty."""
    count = len(batch.inputs[0])
    if count == 0:
        raise InputError("there are no calibration samples", "give data with at least one training sample")
    return [tuple(values[i : i + 1] for values in batch.inputs) for i in range(count)]


def silent_nodes(program: Program, plan: QuantPlan, samples: list[Sample]) -> list[str]:
    """The nodes whose calibrated values were all 0, or next to it. Raises `InputError` for an input that is rounded."""
    rounded = {q.source for q in plan if not q.weight}
    for i, node in enumerate(graphs.placeholders(program.graph)):
        if node.name in rounded and not any(bool(sample[i].any()) for sample in samples):
            raise InputError(
                f"input {node.name!r} is 0 in all {len(samples)} calibration samples: other values are out of range",
                "give calibration samples like those that the model will see",
            )
    return [q.source for q in plan if not q.weight and _narrow(q)]


def _narrow(quantizer: Quantizer) -> bool:
    """Whether NNCF had to widen the range: to 8e-5 from zero, or with a zero point to 8e-4 on both sides."""
    asymmetric = quantizer.scheme == "asymmetric"
    steps = quantizer.high - (quantizer.low if asymmetric else 0)
    return float(quantizer.scale) * steps < (1.7e-3 if asymmetric else 8.5e-5)


class _Finite(fx.Interpreter):
    """Runs a graph and stops at the first node whose values are not finite."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        # Masks hold infinities on purpose, but no NaN.
        if isinstance(value, Tensor) and value.is_floating_point() and torch.isnan(value).any():
            raise InputError(
                f"a calibration sample makes node {n.name} ({graphs.op_name(n)}) compute NaN",
                "look at this node and at the scale of the data: quantization ranges cannot be taken from it",
            )
        return value


def check_values(program: Program, samples: list[Sample]) -> None:
    """Raise `InputError` naming the first node that computes NaN of a sample."""
    module = graphs.graph_module(program.graph, dict(program.state))
    with torch.no_grad():
        for sample in samples:
            if any(found.isnan().any() for found in module(*sample)):
                _Finite(module).run(*sample)

"""`PostTrainingQuantization`: int8 by NNCF's placement and ranges, as plain QDQ."""

from dataclasses import asdict
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, fx

from compactor.data import Batch
from compactor.errors import InputError, UsageError
from compactor.ir.graphs import aten
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize, is_quantize
from compactor.passes.quantize.convert import to_program
from compactor.passes.quantize.nncf_run import Sample, Settings, quantize
from compactor.passes.quantize.twin import static_twin
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult
from compactor.target import Target


class PtqConfig(PassConfig):
    """Options of `quantize.ptq`.

    ``samples`` calibrate, one at a time. ``preset``: ``performance`` is symmetric, ``mixed`` has asymmetric
    activations; by default NNCF picks by model type. ``symmetric`` (signed activations with zero point 0) is on where
    the target's runtime demands it. ``attention`` quantizes the inputs of fused attention too.
    """

    samples: int = Field(default=300, ge=1, le=100_000)
    preset: Literal["performance", "mixed"] | None = None
    symmetric: bool | None = None
    smooth_quant: bool = True
    bias_correction: Literal["fast", "accurate", "none"] = "fast"
    attention: bool = False


class PostTrainingQuantization(Pass):
    """Quantize weights per channel and activations per tensor to 8 bits (Jacob et al. 2018; NNCF's placement).

    Weights are stored int8, biases stay float. Metrics: ``samples``, numbers of quantized ``weights`` and
    ``activations``, ``signed`` (signed activations with zero point 0), ``settings`` that NNCF got.
    """

    name: ClassVar[str] = "quantize.ptq"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    ensures: ClassVar[frozenset[str]] = frozenset({"quantized"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "fold_batchnorm", "search.uniform", "distill.logits")
    needs: ClassVar[dict[str, str]] = {"nncf": "quantize"}
    Config: ClassVar[type[PassConfig]] = PtqConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Calibrate and convert. Raises `InputError` for data that cannot calibrate, `UnsupportedError` from NNCF."""
        if program.precision != "float32":
            raise UsageError(f"the model is {program.precision} already", "quantize a float32 model, once")
        samples = _samples(ctx.data.calibration(self.config.samples, ctx.seed))
        signed = ctx.target.backend == "tensorrt" if self.config.symmetric is None else self.config.symmetric
        settings = _settings(self.config, program, ctx.target, signed)
        total = len(samples)
        module = quantize(
            static_twin(program, samples[0]),
            samples,
            settings,
            lambda done: ctx.progress.update(min(done, total), total, "calibrating"),
        )
        result = to_program(program, module, signed=signed)
        chosen = {name: value for name, value in asdict(settings).items() if name != "ignored"}
        return PassResult(result, True, {"samples": total, **_counts(result), "signed": signed, "settings": chosen})


def _settings(config: PtqConfig, program: Program, target: Target, signed: bool) -> Settings:
    attention = any(n.target is aten.scaled_dot_product_attention.default for n in program.graph.nodes)
    return Settings(
        transformer=attention,
        device=_device(target),
        preset="performance" if signed else config.preset,
        smooth_quant=config.smooth_quant,
        bias_correction=config.bias_correction,
        ignored=_kept_in_float(program, config.attention),
    )


def _device(target: Target) -> str:
    if target.backend == "tensorrt":
        return "ANY"
    return "NPU" if "npu" in target.name else "CPU"


def _kept_in_float(program: Program, attention: bool) -> tuple[str, ...]:
    """Nodes that NNCF must not touch: what is not float at all, and fused attention where no runtime has it in int8."""

    def kept(node: fx.Node) -> bool:
        value = program.values.get(node)
        integer = isinstance(value, Tensor) and not value.dtype.is_floating_point
        return integer or (node.target is aten.scaled_dot_product_attention.default and not attention)

    return tuple(n.name for n in program.graph.nodes if n.op in ("placeholder", "call_function") and kept(n))


def _samples(batch: Batch) -> list[Sample]:
    """The batch, one sample at a time. Raises `InputError` where it is empty or not finite."""
    count = len(batch.inputs[0])
    if count == 0:
        raise InputError("there are no calibration samples", "give data with at least one training sample")
    for position, values in enumerate(batch.inputs):
        if values.is_floating_point() and not torch.isfinite(values).all():
            bad = int((~torch.isfinite(values)).flatten(1).any(1).sum())
            raise InputError(
                f"{bad} of {count} calibration samples hold NaN or infinite values in input {position}",
                "clean the training data: quantization ranges cannot be taken from them",
            )
    return [tuple(values[i : i + 1] for values in batch.inputs) for i in range(count)]


def _counts(program: Program) -> dict[str, int]:
    stored = [n for n in program.graph.nodes if is_dequantize(n) and n.args[0].op == "get_attr"]
    return {"weights": len(stored), "activations": sum(map(is_quantize, program.graph.nodes))}

"""`PostTrainingQuantization`: int8 by NNCF's placement and ranges, as plain QDQ."""

from typing import ClassVar

from compactor.ir.program import Program
from compactor.ir.quantizing import quantized
from compactor.ir.quantplan import QuantPlan
from compactor.passes.quantize.calibrate import CalibrationConfig, calibrated
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassConfig, PassResult


class PtqConfig(CalibrationConfig):
    """Options of `quantize.ptq`."""


class PostTrainingQuantization(Pass):
    """Quantize weights per channel and activations per tensor to 8 bits (Jacob et al. 2018; NNCF's placement).

    Weights are stored int8, biases stay float. Metrics: ``samples``, numbers of quantized ``weights`` and
    ``activations``, ``signed`` (signed activations with zero point 0), ``settings`` that NNCF got.
    """

    name: ClassVar[str] = "quantize.ptq"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical", "batchnorm_folded"})
    ensures: ClassVar[frozenset[str]] = frozenset({"quantized"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize", "fold_batchnorm", "search.uniform", "distill.logits")
    needs: ClassVar[dict[str, str]] = {"nncf": "quantize"}
    Config: ClassVar[type[PassConfig]] = PtqConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Calibrate and convert. Raises what `calibrated` raises."""
        found = calibrated(program, ctx, self.config)
        return PassResult(quantized(found.program, found.plan), True, {**counts(found.plan), **found.facts})


def counts(plan: QuantPlan) -> dict[str, int]:
    """How many weights and activations are quantized."""
    weights = sum(q.weight for q in plan)
    return {"weights": weights, "activations": len(plan) - weights}

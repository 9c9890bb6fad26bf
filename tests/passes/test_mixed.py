"""`quantize.mixed`: int8 where the target says that it pays and dev that it may, another precision elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from compactor import parity, scoring
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.errors import UsageError
from compactor.ir.kernels import Kernel
from compactor.ir.program import Program
from compactor.ir.quantized import is_dequantize
from compactor.ir.quantizing import quantized
from compactor.ir.verify import verify
from compactor.ir.workload import PRODUCTS
from compactor.latency import KernelTime, Latency
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.calibrate import CalibrationConfig, calibrated
from compactor.passes.quantize.candidates import Candidate
from compactor.passes.quantize.judge import Judge
from compactor.passes.quantize.mixed import Mixed, MixedConfig
from compactor.passes.quantize.mixing import Mixing
from compactor.passes.quantize.payoff import Payoff
from compactor.passes.quantize.profiled import profiled
from compactor.target import predicted
from compactor.targets.registry import profiles
from tests.models import program
from tests.passes.support import Device, context, error, reloaded
from tests.pipeline.support import Toy

pytest.importorskip("nncf")

FAST = MixedConfig(samples=4, drop=50)


def small(kernel: Kernel) -> bool:
    """Where int8 loses on this device: the head and the narrow layers."""
    return kernel.macs < 100_000


@dataclass(frozen=True)
class Layered(Device):
    """A device that is not here: int8 halves the time of large products, and doubles that of others."""

    loses: Callable[[Kernel], bool] = small

    def us(self, kernel: Kernel, precision: str) -> float:
        """Microseconds of one kernel."""
        own = 2.0 + kernel.macs / 1e4
        if precision == "int8" and kernel.kind in PRODUCTS:
            return own * (2.0 if self.loses(kernel) else 0.5)
        return own if precision != "float32" else 1.5 * own

    def predict(self, kernels: Sequence[Kernel], precision: Any) -> Latency:
        """Their sum."""
        p50 = sum(t.us for t in self.breakdown(kernels, precision)) / 1e3
        return Latency(p50, "predicted", low=p50 / 2, high=p50 * 2)

    def breakdown(self, kernels: Sequence[Kernel], precision: Any) -> list[KernelTime]:
        """Of each kernel."""
        given = [precision] * len(kernels) if isinstance(precision, str) else precision
        return [KernelTime(k, self.us(k, p), 0, "compute") for k, p in zip(kernels, given, strict=True)]


def prepared(name: str) -> Program:
    return folded_program(canonical(program(name))[0])[0]


def run(whole: Program, folder: Path, device: Device, **options: Any) -> tuple[Program, dict[str, Any]]:
    result = Mixed(FAST).run(whole, context(whole, folder, device=device, **options))
    return result.program, result.metrics


def rounded(made: Program) -> set[str]:
    """The products with rounded weights."""
    nodes = (n for n in made.graph.nodes if str(n.target) in ("aten.conv2d.default", "aten.linear.default"))
    return {n.name for n in nodes if is_dequantize(n.args[1])}


def test_layers_are_rounded_where_it_pays(tmp_path: Path) -> None:
    whole, device = prepared("resnet_b"), Layered()
    made, metrics = run(whole, tmp_path, device)
    verify(made)
    assert metrics["chosen"] == "mixed" and made.precision == "int8" and made.between == "bfloat16"
    kernels = [k for k in whole.kernels() if k.kind in PRODUCTS]
    assert rounded(made) and rounded(made) < {k.node for k in kernels}
    assert not rounded(made) & {k.node for k in kernels if small(k)}
    times = {c["precision"]: c["latency"]["p50"] for c in metrics["candidates"] if "latency" in c}
    assert times["mixed"] == predicted(device, made).p50 < 0.95 * min(t for p, t in times.items() if p != "mixed")
    assert error(whole, made) < 0.15 and reloaded(made, tmp_path).fingerprint == made.fingerprint


def test_every_kernel_has_its_precision_and_a_reason(tmp_path: Path) -> None:
    whole = prepared("resnet_b")
    made, metrics = run(whole, tmp_path, Layered())
    layers = {each["node"]: each for each in metrics["layers"]}
    assert set(layers) == {k.node for k in whole.kernels()} and metrics["between"] == "bfloat16"
    products = {k.node for k in whole.kernels() if k.kind in PRODUCTS}
    assert {n for n, each in layers.items() if each["precision"] == "int8"} & products == rounded(made)
    for each in layers.values():
        if each["precision"] == "int8" and each["node"] in products:
            assert each["why"] == "int8 is faster" and each["int8_us"] < each["float_us"]
        elif each["node"] in products:
            assert each["why"] in ("int8 is no faster", "int8 gains less than the conversion")


def test_a_device_on_which_int8_never_pays_gets_one_precision(tmp_path: Path) -> None:
    made, metrics = run(prepared("resnet_b"), tmp_path, Layered(loses=lambda kernel: True))
    assert metrics["chosen"] == made.precision == "bfloat16"
    reasons = {c["precision"]: c["reason"] for c in metrics["candidates"]}
    assert reasons["mixed"] == "no layer is predicted to gain by int8 beside bfloat16"
    assert {each["precision"] for each in metrics["layers"]} == {"bfloat16"}


def test_where_int8_always_pays_all_of_it_is_int8(tmp_path: Path) -> None:
    made, metrics = run(prepared("resnet_b"), tmp_path, Layered(loses=lambda kernel: False))
    assert metrics["chosen"].startswith("int8")
    products = {k.node for k in made.kernels() if k.kind in PRODUCTS}
    assert rounded(made) == products


def test_a_runtime_that_fills_with_float32_mixes_with_that(tmp_path: Path) -> None:
    whole = prepared("resnet_b")

    class Plain(Toy):
        """As ONNX Runtime: nothing but float32 between quantizers."""

        def supports(self, program: Program, target: Any) -> list[str]:
            """By its arithmetic."""
            return [] if program.arithmetic in ("float32", "int8") else ["no"]

    made, metrics = run(whole, tmp_path, Layered(), backend=Plain())
    assert metrics["chosen"] == "mixed" and made.between == "float32"


def test_what_costs_most_for_its_time_becomes_exact_first(tmp_path: Path) -> None:
    whole = prepared("resnet_b")
    ctx = context(whole, tmp_path, device=Layered(loses=lambda kernel: False))
    found = calibrated(whole, ctx, CalibrationConfig(samples=8, bits=3))
    payoff = Payoff.predicted(found.program, found.plan, ctx.target, "bfloat16")
    judge = Judge.of(ctx, 12)
    mixing = Mixing(found, payoff, "bfloat16", Candidate("bfloat16"), 99.0, judge, ctx, probes=8)
    mixtures = {m.candidate.precision: m for m in mixing.candidates()}
    mixed = mixtures["mixed"]
    assert mixtures["int8"].candidate.score is not None and mixtures["int8"].candidate.score < 99
    assert mixed.exact and mixed.candidate.program is not None
    assert scoring.accuracy(mixed.candidate.program, judge.split) >= 99
    assert {mixing.reason(i, mixed) for i in payoff.layers_of(mixed.exact)} == {"rounding costs too much accuracy"}
    assert not payoff.layers_of(mixed.exact) & mixed.layers


def test_same_seed_same_choice(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append(run(prepared("resnet_b"), tmp_path / name, Layered()))
    assert made[0][0].fingerprint == made[1][0].fingerprint and made[0][1] == made[1][1]


def test_without_integers_the_fastest_float_is_chosen(tmp_path: Path) -> None:
    whole, device = prepared("resnet_b"), Device(times={"float32": 2.0, "bfloat16": 1.0})
    ctx = replace(context(whole, tmp_path), target=device)  # type: ignore[arg-type]
    assert not Mixed().refuses(whole, ctx.target, ctx.budget)
    result = Mixed(FAST).run(whole, ctx)
    assert result.program.precision == "bfloat16"
    reasons = {c["precision"]: c["reason"] for c in result.metrics["candidates"]}
    assert "does not run int8" in reasons["int8"]


def test_refusals(tmp_path: Path) -> None:
    whole = prepared("resnet_b")
    with pytest.raises(UsageError, match=r"bfloat16 already\n.*quantize\.mixed"):
        Mixed().run(whole.evolve(precision="bfloat16"), context(whole, tmp_path))


@pytest.mark.parametrize("name", ["resnet_b", "bert"])
def test_openvino_computes_both_precisions_in_one_model(name: str, tmp_path: Path) -> None:
    target = profiles.resolve("host-cpu")
    if "bfloat16" not in target.precisions:
        pytest.skip("this machine has no bfloat16")
    whole = prepared(name)
    made, _ = run(whole, tmp_path, Layered(loses=lambda kernel: kernel.node in ("conv2d_4", "linear_3")))
    assert made.arithmetic == "int8+bfloat16" and rounded(made)
    (tmp_path / "lowered").mkdir()
    lowered = OpenVINOBackend().lower(made, target, tmp_path / "lowered")
    assert lowered.options["precision_hint"] == "bf16"
    session: Any = OpenVINOBackend().open(lowered, batch=1)
    notes = [op.get_rt_info() for op in session.compiled.get_runtime_model().get_ops()]
    kinds = [
        n["runtimePrecision"].astype(str)
        for n in notes
        if n["layerType"].astype(str) in ("Convolution", "FullyConnected")
    ]
    assert sum(k in ("i8", "u8") for k in kinds) == len(rounded(made)) and "bf16" in kinds
    assert parity.check(made, OpenVINOBackend().open(lowered), whole.example_inputs(8)).passed


def test_onnx_runtime_refuses_other_precisions_between(tmp_path: Path) -> None:
    made, _ = run(prepared("resnet_b"), tmp_path, Layered())
    assert "float32 between quantizers" in OnnxBackend().supports(made.evolve(between="float16"), Layered())[0]  # type: ignore[arg-type]
    assert "bfloat16" in OnnxBackend().supports(made, Layered())[0]  # type: ignore[arg-type]
    assert not OnnxBackend().supports(made.evolve(between="float32"), Layered())  # type: ignore[arg-type]


def test_a_profile_tells_what_layers_take(tmp_path: Path) -> None:
    whole, here = prepared("resnet_b"), profiles.resolve("host-cpu")
    ctx = replace(context(whole, tmp_path, backend=OpenVINOBackend()), target=here)
    found = calibrated(whole, ctx, CalibrationConfig(samples=4))
    payoff = Payoff.predicted(found.program, found.plan, here, "float32")
    plain = Candidate("float32", whole, Latency(2.0, "measured"))
    int8 = Candidate("int8", quantized(found.program, found.plan), Latency(1.0, "measured"))
    timed = profiled(payoff, plain, int8, ctx)
    assert timed is not None and [layer.nodes for layer in timed.layers] == [layer.nodes for layer in payoff.layers]
    for precision, ms in (("float_us", 2.0), ("int8_us", 1.0)):
        times = [getattr(layer, precision) for layer in timed.layers]
        assert min(times) > 0 and 0.5 * ms < sum(times) / 1e3 <= 1.001 * ms
    assert timed.conversions == payoff.conversions and not list(tmp_path.iterdir())


def test_what_cannot_be_profiled_stays_as_predicted(tmp_path: Path) -> None:
    whole = prepared("resnet_b")
    ctx = context(whole, tmp_path, device=Layered())
    found = calibrated(whole, ctx, CalibrationConfig(samples=4))
    payoff = Payoff.predicted(found.program, found.plan, ctx.target, "bfloat16")
    plain = Candidate("float32", whole, Latency(2.0, "predicted"))
    assert profiled(payoff, plain, plain, ctx) is None
    here = replace(ctx, backend=OpenVINOBackend(), target=profiles.resolve("host-cpu"))
    assert profiled(payoff, plain, Candidate("int8", reason="no"), here) is None


@pytest.mark.slow
def test_on_this_machine_mixtures_are_measured(tmp_path: Path) -> None:
    whole = prepared("resnet_b")
    ctx = replace(context(whole, tmp_path, backend=OpenVINOBackend()), target=profiles.resolve("host-cpu"))
    result = Mixed(FAST).run(whole, ctx)
    timed = [c for c in result.metrics["candidates"] if "latency" in c]
    assert {c["latency"]["basis"] for c in timed} == {"measured"} and len(timed) >= 3
    best = min(c["latency"]["p50"] for c in timed)
    chosen = next(c for c in timed if c["precision"] == result.metrics["chosen"])
    assert chosen["latency"]["p50"] <= 1.03 * best

"""`quantize.qat`: what few bits cost is won back, the result runs as `quantize.ptq`'s does, rules come first."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from compactor import parity, scoring
from compactor.backend import Backend
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.backends.tensorrt.backend import TensorRTBackend
from compactor.budget import Budget
from compactor.data import DataSource
from compactor.errors import InputError, UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.ir.quantizing import quantized, split
from compactor.ir.verify import verify
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.passes.quantize.qat import QatConfig, QuantizationAwareTraining
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import Pass, PassResult
from tests.models import program
from tests.passes.distill.support import Stop
from tests.passes.support import Device, Tensors, context, reloaded
from tests.training import samples

pytest.importorskip("nncf")

FAST: dict[str, Any] = {"samples": 8, "epochs": 2, "ema": 0.0, "batch": 16, "variants": 0}


def folded(whole: Program) -> Program:
    return folded_program(canonical(whole)[0])[0]


@cache
def convolutional() -> tuple[Program, DataSource]:
    """A trained classifier of blobs."""
    return samples.program(samples.trained(samples.network(8), samples.blobs(96, 0))), samples.source()


@cache
def encoder() -> tuple[Program, DataSource]:
    """BERT on random tokens, which it labels itself."""
    whole = program("bert")

    def split(seed: int, count: int) -> Tensors:
        random = torch.Generator().manual_seed(seed)
        mask, types = whole.example_inputs(count)[1:]
        inputs = torch.randint(0, 60, mask.shape, generator=random), torch.ones_like(mask), torch.zeros_like(types)
        found = whole(*inputs)
        return Tensors(inputs, (found if isinstance(found, torch.Tensor) else found[0]).argmax(-1))

    return whole, DataSource(split(0, 96), split(1, 64), split(2, 64))


@cache
def language() -> tuple[Program, DataSource]:
    """GPT-2 on random tokens, without labels: logits for every token."""
    whole = program("gpt2")

    def split(seed: int, count: int) -> Tensors:
        random = torch.Generator().manual_seed(seed)
        return Tensors((torch.randint(0, 60, (count, 12), generator=random),))

    return whole, DataSource(split(0, 96), split(1, 64), split(2, 64))


MODELS = {"convolutional": convolutional, "encoder": encoder, "language": language}


def around(name: str, folder: Path, backend: Backend | None = None, **options: Any) -> PassContext:
    whole, data = MODELS[name]()
    folder.mkdir(exist_ok=True)
    return replace(context(whole, folder, backend=backend), data=data, **options)


def trained(name: str, ctx: PassContext, **options: Any) -> PassResult:
    config = QatConfig(**{**FAST, **options})
    return QuantizationAwareTraining(config).run(folded(MODELS[name]()[0]), ctx)


def distance(made: Program, teacher: Program, data: DataSource) -> float:
    """Mean squared distance of the logits, relative to the teacher's, on test."""
    assert data.test is not None
    inputs = data.test.take(torch.arange(len(data.test))).inputs
    ours, theirs = (scoring.logits(m, inputs) for m in (made, teacher))
    return float((ours - theirs).square().mean() / theirs.square().mean())


@dataclass(frozen=True)
class Here:
    """What a backend asks of a target."""

    name: str = "host-cpu"
    precisions: tuple[str, ...] = ("float32", "float16", "bfloat16", "int8")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_wins_back_what_few_bits_cost(name: str, tmp_path: Path) -> None:
    ctx = around(name, tmp_path)
    whole = folded(ctx.teacher)
    plain = PostTrainingQuantization(PtqConfig(samples=8, bits=3)).run(whole, ctx).program
    result = trained(name, ctx, bits=3, epochs=8, lr=1e-3)
    made = result.program
    verify(made)
    assert made.precision == "int8" and result.metrics["after"] >= result.metrics["before"]
    assert distance(made, ctx.teacher, ctx.data) < 0.7 * distance(plain, ctx.teacher, ctx.data)
    assert {q.bits for q in made.quantization if q.weight} == {3}
    assert {q.bits for q in made.quantization if not q.weight} == {8}
    scales = [{(q.source, e): q.scale for q in each.quantization for e in q.edges} for each in (plain, made)]
    assert scales[0].keys() == scales[1].keys(), "the same plan"
    assert not all(torch.equal(scales[0][k], scales[1][k]) for k in scales[0]), "with other scales"


@cache
def made_for_cpus(name: str, bits: int) -> Program:
    """Trained under the rules that both runtimes of CPUs share."""
    assert OnnxBackend.rules.signed == OpenVINOBackend.rules.signed
    with TemporaryDirectory() as folder:
        return trained(name, around(name, Path(folder), OnnxBackend()), bits=bits, epochs=1, lr=1e-3).program


@pytest.mark.parametrize("backend", [OnnxBackend(), OpenVINOBackend()])
@pytest.mark.parametrize(("name", "bits"), [
    ("convolutional", 8), ("encoder", 8),
    pytest.param("encoder", 4, marks=pytest.mark.slow), pytest.param("language", 8, marks=pytest.mark.slow),
])  # fmt: skip
def test_runtimes_compute_what_was_trained(name: str, bits: int, backend: Backend, tmp_path: Path) -> None:
    if not backend.installed():
        pytest.skip(f"{backend.name} is not installed")
    made, data = made_for_cpus(name, bits), MODELS[name]()[1]
    target: Any = Here()
    (tmp_path / "model").mkdir()
    session = backend.open(backend.lower(made, target, tmp_path / "model"))
    assert data.test is not None
    parity.check(made, session, data.test.take(torch.arange(32)).inputs).require()
    assert reloaded(made, tmp_path).fingerprint == made.fingerprint


def test_tensorrt_gets_what_it_asks_for(tmp_path: Path) -> None:
    made = trained("convolutional", around("convolutional", tmp_path, TensorRTBackend()), epochs=1).program
    assert all(q.dtype is torch.int8 and not q.zero_point.any() for q in made.quantization)


@pytest.mark.parametrize("options", [{"symmetric": False}, {"preset": "mixed", "symmetric": False}])
def test_rules_are_checked_before_training(options: dict[str, Any], tmp_path: Path) -> None:
    ctx = replace(around("encoder", tmp_path, TensorRTBackend()), progress=Stop(0, "epoch"))
    with pytest.raises(UnsupportedError, match="TensorRT refuses the quantizer of"):
        trained("encoder", ctx, **options)
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_bytes_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    whole = trained("convolutional", around("convolutional", tmp_path / "a"), bits=4)
    again = around("convolutional", tmp_path / "b", progress=Stop(8))
    with pytest.raises(KeyboardInterrupt):
        trained("convolutional", again, bits=4)
    resumed = trained("convolutional", around("convolutional", tmp_path / "b"), bits=4)
    assert resumed.program.fingerprint == whole.program.fingerprint and resumed.metrics == whole.metrics


@pytest.mark.parametrize(
    "options",
    [
        {"attention_maps": 1.0, "attention_outputs": 1.0},
        {"relation": 1.0, "loss": "kl"},
        {"draws": 8, "k": 1, "tail": 0.5, "direction": "reverse"},
    ],
)
def test_losses_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    result = trained("encoder", around("encoder", tmp_path), bits=4, **options)
    assert result.metrics["steps"] == 12 and result.program.precision == "int8"


def test_attention_losses_of_a_network_without_attention_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="attention"):
        trained("convolutional", around("convolutional", tmp_path), attention_maps=1.0)


def test_without_labels_agreement_decides(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    ctx = replace(ctx, data=samples.source(labelled=False))
    assert trained("convolutional", ctx, epochs=1).metrics["metric"] == "dev agreement"


@pytest.mark.parametrize("calibrate", [True, False])
def test_what_rounding_costs_too_little_is_left_as_it_is(calibrate: bool, tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    whole = folded(ctx.teacher)
    plain = PostTrainingQuantization(PtqConfig(samples=8)).run(whole, ctx).program
    config = QatConfig(**FAST, calibrate=calibrate, tolerance=100.0)
    result = QuantizationAwareTraining(config).run(whole if calibrate else plain, replace(ctx, progress=Stop(0)))
    assert result.program.fingerprint == plain.fingerprint
    assert result.metrics["skipped"] == "rounding costs no more than 100 points" and "steps" not in result.metrics
    assert result.metrics["exact"] - result.metrics["before"] <= 100


def test_what_rounding_costs_more_is_trained(tmp_path: Path) -> None:
    found = trained("encoder", around("encoder", tmp_path), bits=2, epochs=1, tolerance=0.0).metrics
    assert found["steps"] > 0 and "skipped" not in found


def test_training_that_does_not_help_leaves_the_calibrated_model(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    plain = PostTrainingQuantization(PtqConfig(samples=8)).run(folded(ctx.teacher), ctx).program
    worse = trained("convolutional", ctx, lr=30.0, epochs=1, weight_decay=0.0)
    assert worse.metrics["after"] == worse.metrics["before"]
    assert worse.program.fingerprint == plain.fingerprint


@pytest.mark.parametrize("kind", [QuantizationAwareTraining, PostTrainingQuantization])
def test_a_device_without_integers_is_refused_before_any_work(kind: type[Pass]) -> None:
    whole, step, budget = convolutional()[0], kind(), Budget()
    assert "does not run int8" in step.refuses(whole, Device(times={"float32": 1.0}), budget)[0]
    assert not step.refuses(whole, Device(), budget)


def test_a_plan_that_is_there_is_trained(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    given = PostTrainingQuantization(PtqConfig(samples=8, bits=3)).run(folded(ctx.teacher), ctx).program
    exact, plan = split(given)
    last = list(plan)[-1].edges[0].node
    given = quantized(exact, plan.without([last])).evolve(between="bfloat16")
    step = QuantizationAwareTraining(QatConfig(**{**FAST, "epochs": 8, "lr": 1e-3}, calibrate=False))
    result = step.run(given, ctx)
    assert result.program.arithmetic == "int8+bfloat16"
    before, after = ([(q.source, q.edges, q.bits) for q in p.quantization] for p in (given, result.program))
    assert before == after
    assert distance(result.program, ctx.teacher, ctx.data) < 0.9 * distance(given, ctx.teacher, ctx.data)


def test_a_float_model_without_a_plan_is_left_alone(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    step, whole = QuantizationAwareTraining(QatConfig(**FAST, calibrate=False)), folded(ctx.teacher)
    assert not step.refuses(whole, Device(times={"float32": 1.0}), Budget())
    result = step.run(whole, ctx)
    assert result.program is whole and result.metrics == {"skipped": "the model is float32"}


def test_what_is_quantized_already_is_not_calibrated_again(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    once = PostTrainingQuantization(PtqConfig(samples=8)).run(folded(ctx.teacher), ctx).program
    with pytest.raises(UsageError, match="int8 already"):
        QuantizationAwareTraining(QatConfig(**FAST)).run(once, ctx)


def test_a_node_that_computes_nan_of_the_data_is_named(tmp_path: Path) -> None:
    ctx = around("convolutional", tmp_path)
    whole = folded(ctx.teacher)
    name = next(n for n in sorted(whole.trainable) if whole.state[n].dim() == 4)
    broken = whole.with_state({name: torch.full_like(whole.state[name], 3e38)})
    with pytest.raises(InputError, match=r"makes node .* compute NaN"):
        QuantizationAwareTraining(QatConfig(**FAST)).run(broken, ctx)

"""The contenders in OpenVINO: the teacher at float32, at bfloat16 and quantised by plain NNCF; all run the same way."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Sample, Samples

LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
CALIBRATION_SAMPLES = 300


@dataclass(frozen=True)
class Contender:
    """A compiled model at batch 1. ``settings`` are the properties the runtime says it runs with."""

    name: str
    request: Any
    inputs: tuple[str, ...]
    settings: Mapping[str, str]

    def feed(self, sample: Sample) -> list[Any]:
        """The sample as the runtime's tensors, in the order of the model's inputs."""
        import openvino

        arrays = [sample[name] for name in self.inputs] if set(self.inputs) <= set(sample) else sample.values()
        return [openvino.Tensor(array, shared_memory=True) for array in arrays]

    def __call__(self, feed: Sequence[Any]) -> Any:
        """Logits (1, classes), which the next query overwrites. Arrays handed to ``infer`` itself cost much more."""
        for index, tensor in enumerate(feed):
            self.request.set_input_tensor(index, tensor)
        self.request.infer()
        return self.request.get_output_tensor(0).data


def compiled(name: str, model: Any, **options: str) -> Contender:
    """Compile an OpenVINO model for the CPU with the latency hint and ``options``."""
    import openvino

    return contender(name, openvino.Core().compile_model(model, "CPU", {**LATENCY, **options}))


def contender(name: str, ready: Any) -> Contender:
    """A compiled model and what the runtime says about it."""
    inputs = tuple(port.get_any_name() for port in ready.inputs)
    wanted = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS")
    settings = {key: str(ready.get_property(key)) for key in wanted}
    return Contender(name, ready.create_infer_request(), inputs, settings)


def teachers(model: Any, calibration: Samples, *, transformer: bool) -> list[Contender]:
    """The float32 OpenVINO model as it is, run in bfloat16, and after ``nncf.quantize`` with its defaults."""
    quantised = nncf_quantised(model, calibration, transformer=transformer)
    return [
        compiled("teacher float32", model.clone(), INFERENCE_PRECISION_HINT="f32"),
        compiled("teacher bfloat16", model.clone(), INFERENCE_PRECISION_HINT="bf16"),
        compiled("teacher NNCF int8", quantised),
    ]


def nncf_quantised(model: Any, samples: Samples, *, transformer: bool) -> Any:
    """Plain post-training quantization: NNCF's defaults and its own number of samples."""
    import nncf

    names = [port.get_any_name() for port in model.inputs]
    batches = [samples[i] for i in range(min(CALIBRATION_SAMPLES, len(samples)))]
    data = nncf.Dataset(batches, lambda batch: {name: batch[name] for name in names})
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    return nncf.quantize(model.clone(), data, subset_size=CALIBRATION_SAMPLES, model_type=kind)


def convert_archive(path: Path, samples: Samples) -> Any:
    """The OpenVINO model of a `torch.export` archive at batch 1, inputs named as in the archive."""
    import openvino
    import torch

    exported = torch.export.load(path)
    model = openvino.convert_model(exported)
    for port, name in zip(model.inputs, exported.graph_signature.user_inputs, strict=True):
        port.set_names({str(name)})
    return _pinned(model, samples)


def convert_huggingface(folder: Path, samples: Samples) -> Any:
    """The OpenVINO model of a Hugging Face sequence classifier at batch 1 and the samples' length."""
    import openvino
    import torch
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    example = {name: torch.from_numpy(values) for name, values in samples[0].items()}
    model = openvino.convert_model(module, example_input=example)
    return _pinned(model, samples)


def interleaved(
    contenders: Sequence[Contender], samples: Samples, *, rounds: int = 30, queries: int = 20
) -> dict[str, dict[str, float]]:
    """Latency in milliseconds at batch 1, every contender in every round, so that drifts of the machine hit all alike.

    The order rotates from round to round; each turn starts with two unmeasured queries.
    """
    feeds = {c.name: [c.feed(samples[i % len(samples)]) for i in range(queries)] for c in contenders}
    times: dict[str, list[float]] = {c.name: [] for c in contenders}
    for turn in range(rounds):
        shift = turn % len(contenders)
        for one in [*contenders[shift:], *contenders[:shift]]:
            for feed in feeds[one.name][:2]:
                one(feed)
            for feed in feeds[one.name]:
                start = time.perf_counter_ns()
                one(feed)
                times[one.name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: _summary(values) for name, values in times.items()}


def accuracy(model: Contender, samples: Samples) -> float:
    """Percent of the samples whose largest logit is the label, one at a time as in deployment."""
    right = sum(int(model(model.feed(samples[i])).argmax(-1)[0]) == int(samples.labels[i]) for i in range(len(samples)))
    return 100 * right / len(samples)


def _summary(values: list[float]) -> dict[str, float]:
    quantiles = np.percentile(values, [50, 90, 99])
    return {**{f"p{q}": round(float(v), 4) for q, v in zip((50, 90, 99), quantiles, strict=True)}, "n": len(values)}


def _pinned(model: Any, samples: Samples) -> Any:
    """The model with every input of the shape of one sample."""
    model.reshape({port: samples.inputs[port.get_any_name()][:1].shape for port in model.inputs})
    return model

"""Throughput of the training engine's step against a plain float32 eager loop over the same model.

``python -m benchmarks.training_step``. A ResNet-20 at batch 128 and a 4-layer, 384-wide BERT at batch 32, length 32;
same optimizer, same loss, no dropout. The plain loop runs in a process of its own and makes a step after every step of
the engine, so both see the same machine.
Exit status 1 when the engine is below twice the throughput.
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from benchmarks import facts
from compactor.data import Batch
from compactor.ir.exported import from_exported
from compactor.training import Micro, TrainConfig, fit, losses
from tests.models.resnets import Basic, ResNet

BAR = 2.0
STEPS, SKIPPED = 40, 5


@dataclass(frozen=True)
class Samples:
    """Random inputs with random soft targets; both a split and what is learned of it."""

    inputs: tuple[Tensor, ...]
    goal: Tensor
    labelled: bool = False
    fingerprint: str = "benchmark"
    key: str = "benchmark"

    def __len__(self) -> int:
        return len(self.goal)

    def take(self, indices: Tensor) -> Batch:
        """The batch of these samples."""
        return Batch(tuple(x[indices] for x in self.inputs))

    def batch(self, micro: Micro) -> Batch:
        """The samples of a step."""
        return self.take(micro.indices)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """The distillation loss."""
        return losses.soft(module(*batch.inputs)[0], self.goal[micro.indices], 4.0)


class Plain:
    """The plain loop."""

    def __init__(self, module: nn.Module, samples: Samples, config: TrainConfig) -> None:
        self.module, self.samples, self.config = module.train(), samples, config
        kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        momentum = {"momentum": config.momentum, "nesterov": True} if config.optimizer == "sgd" else {}
        self.optimizer = kinds[config.optimizer](
            module.parameters(), lr=config.lr, weight_decay=config.weight_decay, **momentum
        )

    def step(self) -> float:
        """Make a step; its seconds."""
        started = time.perf_counter()
        indices = torch.randperm(len(self.samples))[: self.config.batch]
        loss = losses.soft(self.module(*self.samples.take(indices).inputs), self.samples.goal[indices], 4.0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return time.perf_counter() - started


def serve(case: str, pipe: Connection) -> None:
    """The plain loop in a process of its own: makes a step whenever told to."""
    torch.manual_seed(0)
    plain = Plain(*CASES[case]())
    while pipe.recv():
        pipe.send(plain.step())


class Alternate:
    """The engine's progress display: times every step of the engine, then lets the plain loop make one."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.engine: list[float] = []
        self.plain: list[float] = []
        self.mark = time.perf_counter()

    def update(self, done: int, total: int, text: str = "") -> None:
        """The engine has made a step."""
        self.engine.append(time.perf_counter() - self.mark)
        self.pipe.send(True)
        self.plain.append(self.pipe.recv())
        self.mark = time.perf_counter()

    def note(self, text: str) -> None:
        """Nothing."""


def resnet20() -> tuple[nn.Module, Samples, TrainConfig]:
    """Three stages of three blocks, 16 to 64 wide, images of 32 x 32."""
    stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
    sides = [side for i, o, s in stages for side in ((i, o, s), (o, o, 1), (o, o, 1))]
    module = ResNet([Basic(*side, "A") for side in sides], 16, 64, pool=False, normalize=True)
    config = TrainConfig(epochs=STEPS // 4, batch=128, optimizer="sgd", lr=0.01, weight_decay=5e-4)
    return module, Samples((torch.rand(512, 3, 32, 32),), torch.randn(512, 10)), config


def bert() -> tuple[nn.Module, Samples, TrainConfig]:
    """Four layers, 384 wide, 12 heads, length 32."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {
        "hidden_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "sdpa",
    }

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = BertForSequenceClassification(BertConfig(**sizes))

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits

    config = TrainConfig(epochs=STEPS // 4, batch=32, optimizer="adamw", lr=1e-4, weight_decay=0.01)
    ids = torch.randint(0, 30000, (128, 32))
    return Logits(), Samples((ids, torch.ones_like(ids)), torch.randn(128, 2)), config


CASES: dict[str, Callable[[], tuple[nn.Module, Samples, TrainConfig]]] = {"resnet20": resnet20, "bert_4x384": bert}


def compare(case: str) -> dict[str, Any]:
    """Steps of both loops, interleaved: medians of seconds, and the median ratio of neighbours."""
    torch.manual_seed(0)
    module, samples, config = CASES[case]()
    example = samples.take(torch.arange(2)).inputs
    batch = Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = [{0: batch}] * len(example)
        exported = torch.export.export(_Positional(module.eval()), example, dynamic_shapes=(tuple(shapes),))
    trainee = from_exported(exported).module(train=True)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(case, there))
    server.start()
    both = Alternate(here)
    with tempfile.TemporaryDirectory() as folder:
        fit(trainee, samples, samples, config, Path(folder), progress=both)
    here.send(False)
    server.join()
    engine, eager = both.engine[SKIPPED:], both.plain[SKIPPED:]
    return {
        "batch": config.batch,
        "steps": len(engine),
        "engine_seconds": statistics.median(engine),
        "plain_seconds": statistics.median(eager),
        "engine_samples_per_second": config.batch / statistics.median(engine),
        "plain_samples_per_second": config.batch / statistics.median(eager),
        "ratio": statistics.median(b / a for a, b in zip(engine, eager, strict=True)),
    }


class _Positional(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        found: Tensor = self.module(*inputs)
        return found


def main() -> int:
    """Measure, print, write ``results/training_step.json``."""
    result: dict[str, Any] = {**facts.facts(seed=0), "bar": BAR, "threads": torch.get_num_threads()}
    for name in CASES:
        row = result[name] = compare(name)
        print(
            f"{name}: engine {row['engine_samples_per_second']:.0f} samples/s, plain float32 "
            f"{row['plain_samples_per_second']:.0f} samples/s, ratio {row['ratio']:.2f}"
        )
    print(f"written to {facts.write('training_step', result)}")
    return int(min(result[name]["ratio"] for name in CASES) < BAR)


if __name__ == "__main__":
    sys.exit(main())

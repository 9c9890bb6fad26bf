"""How long a prediction takes: ``python -m benchmarks.latency_model.speed``.

ResNet-50 for each target. Times are of one thread: processor time, the least of several batches of repetitions, so that
they tell something on a busy machine too; run it on an idle one for figures to quote.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks import facts
from compactor.frontend.exporting import export
from compactor.ir.program import Program
from compactor.ir.space import SearchSpace
from compactor.pipeline.canonical import canonical
from compactor.pipeline.request import resolve_target
from compactor.targets.registry import profiles

BARS = {"program_ms": 5.0, "subnet_ms": 1.0}
_REPEATS = 5


def main() -> int:
    """Measure, print, write ``prediction_speed.json``; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subnets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    space = SearchSpace(canonical(resnet50()))
    space.kernels(space.full())
    targets = {name: measured(space, name, options.subnets, options.seed) for name in profiles.names()}
    worst = {bar: max(found[bar] for found in targets.values()) for bar in BARS}
    met = {bar: worst[bar] < limit for bar, limit in BARS.items()}
    for name, found in targets.items():
        print(f"{name:20} program {found['program_ms']:.3f} ms  subnet {found['subnet_ms']:.3f} ms (median)")
    print(f"bars: {BARS}; met: {met}")
    counts = {"kernels": len(space.kernels(space.full())), "blocks": len(space.blocks), "subnets": options.subnets}
    result = {**facts.facts(options.seed), "bars": BARS, "worst": worst, "met": met, **counts, "targets": targets}
    facts.write("prediction_speed", result)
    return 0 if all(met.values()) else 1


def resnet50() -> Program:
    """ResNet-50, 224 x 224, random weights."""
    torch.manual_seed(0)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ResNetForImageClassification(ResNetConfig(num_labels=1000))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).logits

    return export(Logits().eval(), (torch.zeros(2, 3, 224, 224),))


def measured(space: SearchSpace, name: str, subnets: int, seed: int) -> dict[str, float]:
    """Milliseconds of a prediction for the whole Program, and over random subnets with fewer blocks."""
    target = resolve_target(name)
    precision, program = target.precisions[0], space.program
    whole = [milliseconds(lambda: target.predict(program.kernels(), precision)) for _ in range(_REPEATS)]
    chosen = [space.sample(seed + i) for i in range(subnets)]
    times = [milliseconds(lambda s=s: target.predict(space.kernels(s), precision), 3) for s in chosen]
    return {
        "program_ms": min(whole),
        "subnet_ms": statistics.median(times),
        "subnet_p90_ms": statistics.quantiles(times, n=10)[-1],
        "regrouped": sum(space.plan.kernels(s) is None for s in chosen),
    }


def milliseconds(work: Callable[[], Any], repeats: int = _REPEATS) -> float:
    """Least processor time of one call, in milliseconds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found) * 1e3


if __name__ == "__main__":
    sys.exit(main())

"""What a step of a super-network costs beside its subnets' own: ``python -m benchmarks.search.supernet``.

The teachers of the other benchmarks, sub-spaces tiny and base, the largest subnet, the smallest and two others. Time: a
step on the shared weights against the sum of the steps that these subnets take as networks of their own, in turns,
without the teacher, whose outputs are given. Memory: the highest resident set of a process that trains the
super-network, the teacher's forwards included, against one that trains the teacher by itself, both above what they hold
before. Writes ``results/supernet.json``; exit status 1 when a bar is missed.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import data, facts
from compactor import frontend
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.passes.search.bands import BANDS, subnets
from compactor.pipeline.canonical import canonical
from compactor.training.precision import as_trained, bfloat16_is_fast, channels_last, reduced
from compactor.training.sandwich import Terms
from compactor.training.supernet import Supernet
from compactor.training.taps import Named, tapped

BARS = {"time": 1.15, "memory": 2.0}
TEACHERS = {"resnet56": ("cifar10-resnet56/resnet56.pt2", 128), "minilm": ("sst2-minilm", 64)}
"""Files and batch sizes."""
SPACES = ("tiny", "base")
ROUNDS, SKIPPED, REMEMBERED = 14, 2, 4


def case(name: str, band: str) -> tuple[Program, list[Subnet], tuple[Tensor, ...]]:
    """A teacher, four of a sub-space's subnets with the largest first, and a batch of random inputs."""
    file, batch = TEACHERS[name]
    teacher = canonical(frontend.load(data.shared() / "teachers" / file))
    found = subnets(space_of(teacher), next(b for b in BANDS if b.name == band))
    drawn = torch.randint(len(found), (2,), generator=torch.Generator().manual_seed(0)).tolist()
    return teacher, [found[0], found[-1], *(found[i] for i in drawn)], tuple(teacher.example_inputs(batch, seed=0))


class Trainer:
    """Steps of a module; each of ``forwards`` gives outputs by name, whose gradients are taken before the next."""

    def __init__(self, module: nn.Module, forwards: Sequence[Callable[[nn.Module], Named]], goal: Named) -> None:
        self.module, self.forwards, self.goal = channels_last(module), forwards, goal
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)

    def step(self) -> float:
        """Make a step; its seconds."""
        started = time.perf_counter()
        for forward in self.forwards:
            with reduced("cpu", bfloat16_is_fast()):
                loss = Terms().loss(forward(self.module), self.goal) / len(self.forwards)
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - started


def shared(teacher: Program, chosen: Sequence[Subnet], inputs: Sequence[Tensor], goal: Named) -> Trainer:
    """All subnets on one set of weights."""
    forwards = [lambda net, subnet=subnet: net(subnet, *inputs) for subnet in chosen]
    return Trainer(Supernet(teacher, chosen[0]), forwards, goal)


def alone(program: Program, inputs: Sequence[Tensor], goal: Named) -> Trainer:
    """A network with weights of its own."""
    names = tapped(program).outputs
    module = tapped(program).module(train=True, dropout=False)
    return Trainer(module, [lambda net: dict(zip(names, net(*inputs), strict=True))], goal)


def answers(teacher: Program, inputs: Sequence[Tensor]) -> Named:
    """What the students follow."""
    with torch.no_grad():
        outputs = tapped(teacher).module()(*inputs)
    return dict(zip(tapped(teacher).outputs, outputs, strict=True))


def times(name: str, band: str) -> dict[str, Any]:
    """Median seconds of both sides, and the median ratio of neighbours."""
    teacher, chosen, inputs = case(name, band)
    inputs = as_trained(inputs, "cpu")
    goal = answers(teacher, inputs)
    together = shared(teacher, chosen, inputs, goal)
    own = [alone(slice_program(teacher, subnet), inputs, goal) for subnet in chosen]
    rounds = [(together.step(), sum(trainer.step() for trainer in own)) for _ in range(ROUNDS)][SKIPPED:]
    return {
        "shared_seconds": round(statistics.median(a for a, _ in rounds), 4),
        "own_seconds": round(statistics.median(b for _, b in rounds), 4),
        "ratio": round(statistics.median(a / b for a, b in rounds), 4),
    }


def grown(name: str, band: str, kind: str) -> float:
    """MiB by which a process grows that trains the ``teacher`` or the ``supernet``."""
    teacher, chosen, inputs = case(name, band)
    inputs = as_trained(inputs, "cpu")
    before = _peak()
    goal = answers(teacher, inputs)
    trainer = alone(teacher, inputs, goal) if kind == "teacher" else shared(teacher, chosen, inputs, goal)
    for _ in range(REMEMBERED):
        trainer.goal = answers(teacher, inputs) if kind == "supernet" else goal
        trainer.step()
    return _peak() - before


def _peak() -> float:
    """Highest resident set so far, MiB; unlike ``ru_maxrss`` it does not begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> int:
    """Measure, print, write."""
    result: dict[str, Any] = {**facts.facts(seed=0), "bars": BARS, "threads": torch.get_num_threads(), "cases": {}}
    for name in TEACHERS:
        for band in SPACES:
            row = times(name, band)
            for kind in ("teacher", "supernet"):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    row[f"{kind}_mib"] = round(pool.apply(grown, (name, band, kind)), 1)
            row["memory"] = round(row["supernet_mib"] / row["teacher_mib"], 3)
            result["cases"][f"{name} {band}"] = row
            print(name, band, row, flush=True)
    rows = result["cases"].values()
    passed = {"time": max(r["ratio"] for r in rows) <= BARS["time"]}
    passed["memory"] = max(r["memory"] for r in rows) <= BARS["memory"]
    result["passed"] = passed
    print(passed, facts.write("supernet", result))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

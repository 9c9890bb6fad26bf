"""What a step of layerwise distillation costs: against a loop written by hand, and with the teacher's states kept.

``python -m benchmarks.distillation.step``. ResNet-56 at batch 128 and MiniLM on SST-2 at batch 32, each with a student
of half its width. ``uncached``: `distill.layerwise` with the teacher in every step; ``cached``: with its hidden states
on disk; ``by_hand``: a plain loop with the same batches, forward passes and loss; ``logits_uncached`` and ``logits``:
`distill.logits` with the teacher in every step and with kept logits. Every one has a process of its own and they take
turns, a step each, so that all see the same machine. Ratios are medians over the rounds. Exit status 1 when a bar is
missed.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import data, facts
from compactor import frontend
from compactor.data import Split
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.pipeline.canonical import canonical
from compactor.pipeline.request import open_data
from compactor.training import Objective, TrainConfig, fit, layerwise, taps
from compactor.training.cache import Teacher
from compactor.training.distillation import Distillation
from compactor.training.kept import Kept
from compactor.training.layerwise import Layerwise, Weights
from compactor.training.optimizers import build
from compactor.training.pairing import Pair
from compactor.training.precision import as_trained, bfloat16_is_fast, channels_last, reduced
from compactor.training.projection import HIDDEN, free
from compactor.training.schedule import order
from tests.passes.support import Tensors

BARS = {"over_by_hand": 1.05, "cached_over_uncached": 0.75, "logits_over_uncached": 0.75}
KINDS = ("uncached", "cached", "by_hand", "logits", "logits_uncached")
SAMPLES, SKIPPED = 1024, 5
WEIGHTS = Weights()


def resnet56() -> tuple[Program, Split, TrainConfig]:
    """Random images; SGD."""
    teacher = frontend.load(data.shared() / "teachers" / "cifar10-resnet56" / "resnet56.pt2")
    images = torch.rand(SAMPLES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = TrainConfig(batch=128, optimizer="sgd", lr=0.01, weight_decay=5e-4, ema=0.998, checkpoint_seconds=1e6)
    return canonical(teacher), Tensors((images,)), config


def minilm() -> tuple[Program, Split, TrainConfig]:
    """Sentences of SST-2, of their own lengths; AdamW."""
    teacher = canonical(frontend.load(data.shared() / "teachers" / "sst2-minilm"))
    split = data.drawn(open_data(data.shared() / "data" / "sst2", teacher, 0).train, SAMPLES)
    config = TrainConfig(batch=32, lr=1e-4, weight_decay=0.01, clip=1.0, ema=0.998, checkpoint_seconds=1e6)
    return teacher, split, config


CASES: dict[str, Callable[[], tuple[Program, Split, TrainConfig]]] = {"resnet56": resnet56, "minilm": minilm}


class Turns:
    """A progress display that reports every step and waits for its turn."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.mark = pipe, time.perf_counter()

    def update(self, done: int, total: int, text: str = "") -> None:
        """A step is done; raises `EOFError` when it was the last one wanted."""
        if "epoch" in text:
            self.pipe.send(time.perf_counter() - self.mark)
            self.pipe.recv()
            self.mark = time.perf_counter()

    def note(self, text: str) -> None:
        """Nothing."""


def serve(case: str, kind: str, pipe: Connection) -> None:
    """One contender: a step per turn, until the other end of the pipe is closed."""
    torch.manual_seed(0)
    teacher, split, config = CASES[case]()
    space = space_of(teacher)
    pair = Pair(slice_program(teacher, space.sample(0, keep=0.5, depth=1.0)), teacher, 4)
    turns = Turns(pipe)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if kind == "by_hand":
                for step, _ in enumerate(by_hand(pair, split, config)):
                    turns.update(step, 0, "epoch")
            else:
                module, objective = trainee(kind, pair, split, Path(folder))
                endless = config.model_copy(update={"epochs": 10**6})
                fit(module, objective, split, endless, Path(folder), progress=turns)
        except EOFError:
            return


def trainee(kind: str, pair: Pair, split: Split, folder: Path) -> tuple[nn.Module, Objective]:
    """The module and the objective of a contender that runs in the engine."""
    if kind.startswith("logits"):
        objective = Distillation(Teacher(pair.teacher), split, folder, keep=kind == "logits")
        return pair.student.module(train=True, dropout=False), objective
    reference = layerwise.reference(pair, WEIGHTS)
    kept = Kept(pair, reference, split, folder) if kind == "cached" else None
    return layerwise.student(pair, split, WEIGHTS), Layerwise(
        pair, reference, split, WEIGHTS, projector="auto", kept=kept
    )


def by_hand(pair: Pair, split: Split, config: TrainConfig) -> Iterator[None]:
    """A plain loop: the teacher, the student, the layers that fit best, a step of the optimizer."""
    teacher = channels_last(layerwise.reference(pair, WEIGHTS))
    student = channels_last(layerwise.student(pair, split, WEIGHTS))
    optimizer = build(student.named_parameters(), config)
    average = [p.detach().clone() for p in student.parameters()]
    temperature = WEIGHTS.temperature
    while True:
        for indices in order(len(split), config.batch, config.seed, 0, getattr(split, "lengths", None)):
            inputs = as_trained(split.take(indices).inputs, "cpu")
            with reduced("cpu", bfloat16_is_fast()):
                with torch.no_grad():
                    goal = teacher(*inputs)
                found = student(*inputs)
                soft = (next(iter(side.values())).float() / temperature for side in (found, goal))
                ours, theirs = (F.log_softmax(x, -1) for x in soft)
                loss = WEIGHTS.logits * temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
            loss = loss + WEIGHTS.hidden * hidden_loss(pair, found, goal)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.clip:
                nn.utils.clip_grad_norm_(student.parameters(), config.clip)
            if not loss.isfinite():
                raise SystemExit("the loop by hand diverged")
            optimizer.step()
            optimizer.zero_grad()
            torch._foreach_lerp_(average, [p.detach() for p in student.parameters()], 1 - config.ema)
            yield


def hidden_loss(pair: Pair, found: dict[str, Tensor], goal: dict[str, Tensor]) -> Tensor:
    """From the top teacher layer down, the best fitting student layer below the one before."""
    seen = taps.visible(goal[taps.MASK]) if taps.MASK in goal else None

    def error(layer: int, stream: int) -> Tensor:
        learner = pair.streams[stream]
        ours, theirs = found[HIDDEN + learner.name], goal[HIDDEN + pair.layers[layer].name].float()
        counted = seen if seen is not None and seen.shape[1] == theirs.shape[1] else torch.ones_like(theirs[:1, :, 0])
        if free("auto", learner.widths):
            return ((ours - theirs).square() * counted[..., None]).sum() / (theirs.square() * counted[..., None]).sum()
        each = F.smooth_l1_loss(ours, F.layer_norm(theirs, theirs.shape[-1:]), reduction="none").mean(-1)
        return (each * counted).sum() / counted.expand_as(each).sum()

    pairs = [
        (t, s)
        for t, layer in enumerate(pair.layers)
        for s, stream in enumerate(pair.streams)
        if layer.whole == stream.whole
    ]
    with torch.no_grad():
        costs = dict(zip(pairs, torch.stack([error(*p) for p in pairs]).tolist(), strict=True))
    total, below = torch.zeros(()), len(pair.streams)
    for t in reversed(range(len(pair.layers))):
        best = min((s for layer, s in pairs if layer == t and s < below), key=lambda s: costs[t, s], default=None)
        if best is not None:
            total, below = total + error(t, best), best
    return total


def rounds(case: str, kinds: Sequence[str], count: int) -> dict[str, list[float]]:
    """Seconds of every contender's step, in every round."""
    spawn = multiprocessing.get_context("spawn")
    pipes, servers = {}, []
    for kind in kinds:
        pipes[kind], there = spawn.Pipe()
        servers.append(spawn.Process(target=serve, args=(case, kind, there)))
        servers[-1].start()
        there.close()
    seconds: dict[str, list[float]] = {kind: [pipes[kind].recv()] for kind in kinds}  # one after the other is ready
    for number in range(count):
        shift = number % len(kinds)
        for kind in (*kinds[shift:], *kinds[:shift]):
            pipes[kind].send(True)
            seconds[kind].append(pipes[kind].recv())
    for pipe in pipes.values():
        pipe.close()
    for server in servers:
        server.join()
    return {kind: found[SKIPPED:] for kind, found in seconds.items()}


def compare(case: str, count: int) -> dict[str, Any]:
    """Medians, and median ratios of the rounds."""
    seconds = rounds(case, KINDS, count)

    def ratio(over: str, under: str) -> float:
        return round(statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True)), 4)

    return {
        "rounds": count - SKIPPED + 1,
        "milliseconds": {kind: round(1e3 * statistics.median(found), 2) for kind, found in seconds.items()},
        "over_by_hand": ratio("uncached", "by_hand"),
        "cached_over_uncached": ratio("cached", "uncached"),
        "logits_over_uncached": ratio("logits", "logits_uncached"),
        "cached_over_logits": ratio("cached", "logits"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write ``results/distillation_step.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="by default all; else nothing is stored")
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args(arguments)
    result: dict[str, Any] = {**facts.facts(0), "threads": torch.get_num_threads(), "bars": BARS, "cases": {}}
    missed = False
    for case in given.cases or CASES:
        row = result["cases"][case] = compare(case, given.rounds)
        missed |= any(row[name] > bar for name, bar in BARS.items())
        print(f"{case}: {row}", flush=True)
    if not given.cases:
        print(f"written to {facts.write('distillation_step', result)}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

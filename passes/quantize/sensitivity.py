"""Accuracy-aware quantization: the nodes that rounding hurts most compute exactly."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from compactor import scoring
from compactor.data import Batch
from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantPlan
from compactor.pipeline.context import Progress
from compactor.training.fakequant import fake_quantized

Score = Callable[[scoring.Run], float]


def ranked(program: Program, plan: QuantPlan, batch: Batch, progress: Progress) -> list[tuple[str, float]]:
    """The nodes that read rounded values and how much exact ones help, in percent of the error, the most helpful first.

    The error is the squared distance of the first output from the float Program's on the batch; nodes are set to exact
    one by one, all others staying as they are.
    """
    wanted = scoring.logits(program, batch.inputs)

    def error(tried: QuantPlan) -> float:
        return float((scoring.logits(runner(program, tried), batch.inputs) - wanted).square().sum())

    whole = max(error(plan), torch.finfo(torch.float32).tiny)
    nodes = list(dict.fromkeys(e.node for q in plan for e in q.edges))
    found = []
    for i, node in enumerate(nodes):
        progress.update(i, len(nodes), f"sensitivity of {node}")
        found.append((node, round(100 * (1 - error(plan.without([node])) / whole), 4)))
    return sorted(found, key=lambda pair: -pair[1])


def relieved(
    program: Program, plan: QuantPlan, order: Iterable[str], score: Score, floor: float
) -> tuple[QuantPlan, list[str]]:
    """The plan without the fewest of the first nodes of ``order`` so that the score is at least ``floor``, and these.

    Found by halving, as if every further exact node could only help. Raises `UnsupportedError` where no quantizer may
    stay.
    """
    nodes = tuple(order)

    def reaches(count: int) -> bool:
        return score(runner(program, plan.without(nodes[:count]))) >= floor

    low, high = 0, len(nodes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    left = plan.without(nodes[:low])
    if not len(left):
        raise UnsupportedError(
            f"no int8 form of this model scores {floor:.2f} or better on dev",
            "allow a larger drop=, train it with quantize.qat, or let quantize.fastest choose a precision",
        )
    return left, list(nodes[:low])


def runner(program: Program, plan: QuantPlan) -> scoring.Run:
    """The Program under a plan, to be scored."""
    module = fake_quantized(program, plan)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = module(*inputs)
        return outputs

    return run

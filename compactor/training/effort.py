"""How long to train: epochs from a budget of arithmetic, never from the clock, so that every run takes the same."""

from collections.abc import Mapping

from compactor.data import Split, lengths_of
from compactor.ir.program import Program

MACS: Mapping[str, float] = {"quick": 5e12, "balanced": 160e12, "max": 240e12}
"""Multiply-accumulates of one training; two CPU cores with bfloat16 instructions do about 1e11 in a second."""

EPOCHS: Mapping[str, tuple[int, int]] = {"quick": (1, 20), "balanced": (2, 80), "max": (2, 300)}
"""Fewest and most epochs."""


def sample_macs(program: Program, split: Split) -> float:
    """Multiply-accumulates of one forward on a sample of the split, at the speed of nominal ones.

    Shorter texts cost less, down to a half: the shorter they are, the less well they fill a processor.
    """
    macs = float(program.cost().macs)
    lengths = lengths_of(split)
    if lengths is None or len(program.inputs[0].shape) < 2:
        return macs
    mean = float(lengths.float().mean())
    return macs * min(1.0, max(0.5, mean / program.inputs[0].shape[1]))


def epochs(effort: str, student: Program, teacher: Program, split: Split, views: int, *, share: float = 1.0) -> int:
    """Epochs that a share of the effort pays for, when the teacher answers once for each of ``views`` views.

    A training step costs three forwards (Kaplan et al., arXiv 2001.08361, section 2.1).
    """
    asked = views * sample_macs(teacher, split) * len(split)
    return affordable(effort, 3 * sample_macs(student, split) * len(split), asked, share=share)


def affordable(effort: str, epoch: float, before: float = 0.0, *, share: float = 1.0) -> int:
    """Epochs of ``epoch`` multiply-accumulates each that a share of the effort pays for, after ``before`` of them."""
    low, high = EPOCHS[effort]
    return max(low, int(min(share * high, (share * MACS[effort] - before) / epoch)))

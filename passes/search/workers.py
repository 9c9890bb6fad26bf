"""Scores candidates in this process or in several: the same numbers either way."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compactor.ir import archive
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.subnet import Subnet
from compactor.passes.search.proxies import PROXIES, Costs, Setting, values

Task = tuple[Subnet, Costs]
Scores = Callable[[Sequence[Task]], list[tuple[float, ...]]]


class Scorer:
    """Slices a candidate of a Program and scores it with these proxies, on one thread."""

    def __init__(self, program: Program, setting: Setting, proxies: Sequence[str]) -> None:
        self._program, self._setting = program, setting
        self._proxies = tuple(PROXIES[name] for name in proxies)

    def __call__(self, task: Task) -> tuple[float, ...]:
        """The candidate's scores, one per proxy."""
        subnet, costs = task
        with one_thread():
            student = slice_program(self._program, subnet, check=False)
            return values(self._setting.subject(student, costs, self._proxies), self._proxies)


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads split sums, so the last bits depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def scorers(program: Program, setting: Setting, proxies: Sequence[str], workers: int) -> Iterator[Scores]:
    """A function that scores candidates in order, in this process or in ``workers`` others."""
    if workers < 2:
        scorer = Scorer(program, setting, proxies)
        yield lambda tasks: [scorer(task) for task in tasks]
        return
    with TemporaryDirectory(prefix="compactor-") as folder:
        path = Path(folder) / "program.pt2"
        program.save(path)
        arguments = (path, pickle.dumps(setting), tuple(proxies))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=arguments) as pool:
            yield lambda tasks: list(pool.map(_score, tasks))


_scorer: Scorer | None = None
"""Of this worker process."""


def _begin(path: Path, setting: bytes, proxies: Sequence[str]) -> None:
    global _scorer
    _scorer = Scorer(archive.load(path), pickle.loads(setting), proxies)  # noqa: S301 (from the parent process)


def _score(task: Task) -> tuple[float, ...]:
    assert _scorer is not None  # the initializer ran
    return _scorer(task)

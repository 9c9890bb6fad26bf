"""Several processes, as ``torchrun`` starts them; one process needs none of it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process among all; the first one writes files and shows progress."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes."""
        return DistributedDataParallel(module) if self.world > 1 else module

    def share(self, indices: Tensor) -> Tensor:
        """This process's part of a batch."""
        return indices.tensor_split(self.world)[self.rank]

    def quiet(self, module: nn.Module, last: bool) -> AbstractContextManager[object]:
        """No gradient exchange but on the last micro-batch."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()

    def mean(self, value: float) -> float:
        """The mean of a number over the processes."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(total)
        return float(total) / self.world

    def same(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first process's tensors, in every process."""
        shared = {k: v.detach() for k, v in state.items()}
        if self.world > 1:
            shared = {k: v.clone() for k, v in shared.items()}
            for value in shared.values():
                dist.broadcast(value, 0)
        return shared

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """The processes that ``torchrun`` announced in the environment, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not dist.is_available():
        yield Processes()
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()

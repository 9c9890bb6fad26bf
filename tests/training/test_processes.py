"""Several processes, started as ``torchrun`` does, train one model."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from compactor.training import TrainConfig, fit
from tests.training.samples import Labels, blobs, program

CONFIG = TrainConfig(epochs=3, batch=16, lr=0.1, optimizer="sgd", reduced=False, ema=0.9)
WORKER = """
    import os, sys, torch
    from pathlib import Path
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[2])
    from tests.training.test_processes import train
    torch.save(train(Path(sys.argv[1])), Path(sys.argv[1]) / f"{os.environ['RANK']}.pt")
"""


def train(folder: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    split = blobs(96, 0)
    module = program(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))).module(train=True)
    return fit(module, Labels(split), split, CONFIG, folder).state


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    both.mkdir()
    alone.mkdir()
    root = str(Path(__file__).parents[2])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), str(both), root],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [w.wait(timeout=300) for w in workers] == [0, 0]
    first, second = (torch.load(both / f"{rank}.pt") for rank in range(2))
    one = train(alone)
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)

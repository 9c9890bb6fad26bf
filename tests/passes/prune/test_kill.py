"""`kill -9` in the warm-up, the pruning and the fine-tuning of `prune.cofi`: run again, it ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_PHASES = {"warm-up": 30, "pruning": 60, "fine-tuning": 90}
"""Steps of each training."""


def start(folder: Path, layerwise: float) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.passes.prune.killed", str(folder), str(layerwise)]
    return subprocess.Popen(command, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)})


def steps(folder: Path, total: int) -> int:
    trace = folder / "trace"
    return trace.read_text().splitlines().count(str(total)) if trace.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("layerwise", [0.0, 0.9])
def test_killed_in_every_phase(layerwise: float, tmp_path: Path) -> None:
    assert start(tmp_path / "whole", layerwise).wait() == 0
    killed = tmp_path / "killed"
    for total in _PHASES.values():
        process = start(killed, layerwise)
        while steps(killed, total) < total // 3:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert steps(killed, total) < total
    assert start(killed, layerwise).wait() == 0
    assert (killed / "result").read_text() == (tmp_path / "whole" / "result").read_text()

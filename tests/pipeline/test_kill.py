"""`kill -9` at random moments of a build, then the same command: it ends in the hashes of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from compactor.report.artifact import Artifact

_DIGITS = Path(__file__).parents[2] / "examples" / "digits"
_KILLS = int(os.environ.get("COMPACTOR_KILLS", "10"))
_SEED = int(os.environ.get("COMPACTOR_KILL_SEED", str(random.SystemRandom().randrange(1000))))


@dataclass(frozen=True)
class _Build:
    """One command with a store of its own."""

    target: str
    output: Path
    store: Path

    def start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "compactor", "build", str(_DIGITS / "teacher.pt2")]
        command += ["--data", str(_DIGITS / "data"), "--target", self.target, "--output", str(self.output)]
        command += ["--effort", "balanced", "--store", str(self.store), "--json"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def finish(self) -> Artifact:
        process = self.start()
        out, err = process.communicate(timeout=900)
        assert process.returncode == 0, f"{out}\n{err}"
        return Artifact.open(self.output)

    def kill_after(self, seconds: float) -> bool:
        """Kill with signal 9; False when the build was done before."""
        process = self.start()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        process.communicate()
        return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "target",
    [
        "jetson-orin",
        pytest.param(
            "host-cpu",
            marks=pytest.mark.skipif("CI" in os.environ, reason="rests on measurements: needs an idle machine"),
        ),
    ],
)
def test_killed_builds_end_in_the_same_hashes(target: str, tmp_path: Path) -> None:
    calm = _Build(target, tmp_path / "calm" / "artifact", tmp_path / "calm" / "store")
    started = time.perf_counter()
    expected = calm.finish()
    whole = time.perf_counter() - started
    killed = _Build(target, tmp_path / "killed" / "artifact", tmp_path / "killed" / "store")
    # Decisions may rest on measured latencies, which differ from run to run: both builds get the same ledger.
    ledger = calm.store / "ledger"
    moments, kills = random.Random(_SEED), 0
    while kills < _KILLS:
        if ledger.is_dir() and not killed.store.exists():
            shutil.copytree(ledger, killed.store / "ledger")
        if killed.kill_after(moments.uniform(0, whole)):
            kills += 1
            assert not killed.output.exists() or not Artifact.open(killed.output).damage()
        else:  # done before its moment: the next one starts from nothing
            shutil.rmtree(killed.output.parent)
    found = killed.finish()
    assert found.manifest.content == expected.manifest.content, f"seed {_SEED}"
    assert found.manifest.files == expected.manifest.files, f"seed {_SEED}"
    assert not found.damage()
    assert not [p.name for p in killed.output.parent.iterdir() if "partial" in p.name]

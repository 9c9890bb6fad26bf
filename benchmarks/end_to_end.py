"""Build a student of a real teacher with the command line and hold it against the teacher and plain NNCF.

``python -m benchmarks.end_to_end cifar10`` (or ``sst2``). The build is timed from an empty store; then the teacher at
float32, at bfloat16, quantised by NNCF's defaults, and the student run interleaved in OpenVINO at batch 1, and each is
scored on the whole test split. Exit status 1 when a bar is missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import data, facts, runtime
from benchmarks.data import Samples
from benchmarks.runtime import Contender
from compactor.backend import Lowered
from compactor.backends.openvino.backend import OpenVINOBackend

BARS = {"speedup": 4.0, "drop": 1.5, "build_minutes": 40.0}
_OK, _GATE_FAILED = 0, 1


@dataclass(frozen=True)
class Case:
    """One teacher: its file, its data, and how to read both without compactor.

    ``samples(split, length, limit)`` gives a split; ``convert(teacher, samples)`` the teacher's OpenVINO model.
    """

    name: str
    teacher: Path
    data: Path
    transformer: bool
    samples: Callable[[str, int | None, int | None], Samples]
    convert: Callable[[Path, Samples], Any]


def cifar10(work: Path) -> Case:
    """ResNet-56 on CIFAR-10."""
    teacher = data.shared() / "teachers" / "cifar10-resnet56" / "resnet56.pt2"
    folder = data.prepare_cifar10(work / "data")

    def samples(split: str, length: int | None, limit: int | None) -> Samples:
        return data.images(folder / f"{split}.npz", limit=limit)

    return Case("cifar10", teacher, folder, False, samples, runtime.convert_archive)


def sst2(work: Path) -> Case:
    """MiniLM-L6 on SST-2; ``work`` is not needed."""
    teacher = data.shared() / "teachers" / "sst2-minilm"
    folder = data.shared() / "data" / "sst2"

    def samples(split: str, length: int | None, limit: int | None) -> Samples:
        if length is None:
            raise SystemExit("the student takes sentences of any length; the comparison needs a fixed one")
        return data.sentences(folder / f"{split}.tsv", teacher, length, limit=limit)

    return Case("sst2", teacher, folder, True, samples, runtime.convert_huggingface)


CASES = {"cifar10": cifar10, "sst2": sst2}


def build(case: Case, work: Path, seed: int) -> dict[str, Any]:
    """Run ``compactor build`` with an empty store: command, seconds and exit status. Raises `SystemExit`."""
    for stale in ("store", "artifact"):
        shutil.rmtree(work / stale, ignore_errors=True)
    options = [
        "--target",
        "host-cpu",
        "--effort",
        "balanced",
        "--latency",
        "25%",
        "--drop",
        "1.5%",
        "--seed",
        str(seed),
    ]
    command = ["build", str(case.teacher), "--data", str(case.data), *options, "--output", str(work / "artifact")]
    compactor = shutil.which("compactor", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if compactor is None:
        raise SystemExit("the compactor command is not installed in this environment: pip install -e .[all]")
    start = time.perf_counter()
    done = subprocess.run(
        [compactor, *command], env={**os.environ, "COMPACTOR_STORE": str(work / "store")}, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode not in (_OK, _GATE_FAILED):
        raise SystemExit(f"compactor build ended with exit status {done.returncode}")
    shown = ["compactor", "build", case.teacher.name, "--data", case.name, *options]
    record = {"command": " ".join(shown), "seconds": round(seconds, 1), "exit": done.returncode}
    (work / "build.json").write_text(json.dumps(record))
    return record


def student(artifact: Path) -> tuple[Contender, int | None, dict[str, Any]]:
    """The student at batch 1 as its backend opens it, its sequence length if it has one, and the manifest."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    found = [m for m in manifest["lowered"] if m["backend"] == "openvino"]
    if not found:
        raise SystemExit(f"the artifact holds no OpenVINO model, only {[m['backend'] for m in manifest['lowered']]}")
    model = found[0]
    lowered = Lowered(
        "openvino", artifact / model["folder"], tuple(model["files"]), model["precision"], model["options"]
    )
    session: Any = OpenVINOBackend().open(lowered, batch=1)
    contender = runtime.contender("student", session.compiled)
    shape = contender.request.get_input_tensor(0).shape
    return contender, (shape[1] if len(shape) == 2 else None), manifest


def compare(case: Case, artifact: Path, *, rounds: int = 30) -> dict[str, Any]:
    """Latency and test accuracy of every contender, and what the manifest claims."""
    ours, length, manifest = student(artifact)
    test = case.samples("test", length, None)
    calibration = case.samples("train", length, runtime.CALIBRATION_SAMPLES)
    contenders = [*runtime.teachers(case.convert(case.teacher, test), calibration, transformer=case.transformer), ours]
    latency = runtime.interleaved(contenders, test, rounds=rounds)
    reference = latency[contenders[0].name]["p50"]
    rows = {
        c.name: {
            "latency_ms": latency[c.name],
            "speedup": round(reference / latency[c.name]["p50"], 3),
            "accuracy": round(runtime.accuracy(c, test), 3),
            "settings": dict(c.settings),
        }
        for c in contenders
    }
    claims = {key: manifest[key] for key in ("pipeline", "teacher", "student", "metrics", "gate")}
    for network in ("teacher", "student"):
        claims[network] = {key: claims[network].get(key) for key in ("parameters", "macs", "precision")}
    return {"test_samples": len(test), "length": length, "contenders": rows, "manifest": claims}


def verdict(result: dict[str, Any]) -> dict[str, Any]:
    """Every bar with its value: speed-up over and accuracy below the float32 teacher, minutes of build."""
    rows = result["contenders"]
    teacher, ours = next(iter(rows.values())), rows["student"]
    values = {
        "speedup": (ours["speedup"], ours["speedup"] >= BARS["speedup"]),
        "drop": (drop := round(teacher["accuracy"] - ours["accuracy"], 3), drop <= BARS["drop"]),
        "build_minutes": (minutes := round(result["build"]["seconds"] / 60, 2), minutes <= BARS["build_minutes"]),
    }
    return {name: {"bar": BARS[name], "value": value, "passed": passed} for name, (value, passed) in values.items()}


def table(result: dict[str, Any]) -> str:
    """The comparison as text."""
    lines = [f"{'':18s} {'p50 ms':>8s} {'p90 ms':>8s} {'p99 ms':>8s} {'speed-up':>9s} {'accuracy':>9s}"]
    for name, row in result["contenders"].items():
        p = row["latency_ms"]
        figures = f"{p['p50']:8.3f} {p['p90']:8.3f} {p['p99']:8.3f} {row['speedup']:8.2f}x {row['accuracy']:8.2f}%"
        lines.append(f"{name:18s} {figures}")
    for name, bar in result["bars"].items():
        lines.append(f"{name}: {bar['value']} (bar {bar['bar']}): {'passed' if bar['passed'] else 'MISSED'}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Parse, build, compare, write, print; 0 when every bar is passed."""
    parser = argparse.ArgumentParser(prog="benchmarks.end_to_end", description=__doc__)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for data, store and artifact")
    parser.add_argument("--reuse", action="store_true", help="compare the artifact of the last build again")
    given = parser.parse_args(arguments)
    work = given.work or facts.ROOT / ".compactor" / "benchmarks" / given.case
    work.mkdir(parents=True, exist_ok=True)
    case = CASES[given.case](work)
    built = json.loads((work / "build.json").read_text()) if given.reuse else build(case, work, given.seed)
    result = {"benchmark": case.name, **facts.facts(given.seed), "build": built, **compare(case, work / "artifact")}
    result["bars"] = verdict(result)
    path = facts.write(f"end_to_end-{case.name}", result)
    print(f"{table(result)}\n{path.relative_to(facts.ROOT)}")
    return 0 if all(bar["passed"] for bar in result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Build a student of a real teacher with the command line and hold it against the teacher and plain NNCF.

``python -m benchmarks.end_to_end cifar10`` (or ``sst2``), with ``--effort max`` for several students. Every build is
timed from an empty store; then the teacher at float32, at bfloat16, quantised by NNCF's defaults, and the students run
interleaved in OpenVINO at batch 1, and each is scored on the whole test split. Exit status 1 when a bar is missed.
``--beside`` measures artifacts built otherwise with them, for the curve; the bars are the builds' alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data, facts, runtime
from benchmarks.data import Samples
from benchmarks.runtime import Contender
from compactor.backend import Lowered
from compactor.backends.openvino.backend import OpenVINOBackend

_OK, _GATE_FAILED = 0, 1
_NOTED = 20.0
"""Seconds between two notes of how long a build has run."""


@dataclass(frozen=True)
class Bars:
    """Least speed-up over the float32 teacher by case, most points below it, minutes a build may take.

    ``over_peer``: least speed-up over the faster of the teacher in bfloat16 and in NNCF's int8.
    """

    speedup: Mapping[str, float]
    drop: float
    build_minutes: float
    over_peer: float | None = None


BARS = {
    "balanced": Bars({"cifar10": 4.0, "sst2": 4.0}, 1.5, 40.0),
    "max": Bars({"cifar10": 8.0, "sst2": 10.0}, 1.0, 120.0, over_peer=3.0),
}
LATENCIES = {
    "balanced": {"cifar10": ("25%",), "sst2": ("25%",)},
    "max": {"cifar10": ("12.3%", "8%"), "sst2": ("9.8%", "7%")},
}
"""What builds are asked for, of the teacher's latency: what the bars need, and less."""

CURVE = (0.5, 1.0, 2.0, 3.0)
"""Points below the teacher for which the largest speed-up is reported."""


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


def build(case: Case, work: Path, effort: str, latency: str, seed: int, *, afresh: bool = True) -> dict[str, Any]:
    """Run ``compactor build`` with an empty store: command, seconds and exit status. Raises `SystemExit`.

    Not ``afresh``, a build that was stopped goes on, and its seconds are those of all its runs.
    """
    if afresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    asked = {
        "target": "host-cpu",
        "effort": effort,
        "latency": latency,
        "drop": f"{BARS[effort].drop:g}%",
        "seed": seed,
    }
    options = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
    command = ["build", str(case.teacher), "--data", str(case.data), *options, "--output", str(work / "artifact")]
    compactor = shutil.which("compactor", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if compactor is None:
        raise SystemExit("the compactor command is not installed in this environment: pip install -e .[all]")
    running = subprocess.Popen([compactor, *command], env={**os.environ, "COMPACTOR_STORE": str(work / "store")})
    status, seconds = _timed(running, work / "seconds.json")
    if status not in (_OK, _GATE_FAILED):
        raise SystemExit(f"compactor build ended with exit status {status}")
    shown = ["compactor", "build", case.teacher.name, "--data", case.name, *options]
    return {"command": " ".join(shown), "seconds": round(seconds, 1), "exit": status}


def _timed(running: subprocess.Popen[bytes], notes: Path) -> tuple[int, float]:
    """Exit status and seconds, those of earlier runs included; noted now and then, for when this one is killed."""
    before = json.loads(notes.read_text()) if notes.exists() else 0.0
    start = time.perf_counter()
    while True:
        with suppress(subprocess.TimeoutExpired):
            running.wait(_NOTED)
        seconds = before + time.perf_counter() - start
        notes.write_text(json.dumps(seconds))
        if running.returncode is not None:
            return running.returncode, seconds


def student(name: str, artifact: Path) -> tuple[Contender, int | None, dict[str, Any]]:
    """A student at batch 1 as its backend opens it, its sequence length if it has one, and the manifest."""
    manifest = json.loads((artifact / "manifest.json").read_text())
    found = [m for m in manifest["lowered"] if m["backend"] == "openvino"]
    if not found:
        raise SystemExit(f"the artifact holds no OpenVINO model, only {[m['backend'] for m in manifest['lowered']]}")
    model = found[0]
    lowered = Lowered(
        "openvino", artifact / model["folder"], tuple(model["files"]), model["precision"], model["options"]
    )
    session: Any = OpenVINOBackend().open(lowered, batch=1)
    contender = runtime.contender(name, session.compiled)
    shape = contender.request.get_input_tensor(0).shape
    return contender, (shape[1] if len(shape) == 2 else None), manifest


def compare(case: Case, artifacts: Mapping[str, Path], *, rounds: int = 30) -> dict[str, Any]:
    """Latency and test accuracy of every contender, students by name, and what the manifests claim."""
    students = {name: student(name, folder) for name, folder in artifacts.items()}
    (length,) = {length for _, length, _ in students.values()}
    test = case.samples("test", length, None)
    calibration = case.samples("train", length, runtime.CALIBRATION_SAMPLES)
    teachers = runtime.teachers(case.convert(case.teacher, test), calibration, transformer=case.transformer)
    contenders = [*teachers, *(ours for ours, _, _ in students.values())]
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
    manifests = {name: _claims(manifest) for name, (_, _, manifest) in students.items()}
    return {"test_samples": len(test), "length": length, "contenders": rows, "manifests": manifests}


def _claims(manifest: Mapping[str, Any]) -> dict[str, Any]:
    claims = {key: manifest[key] for key in ("pipeline", "teacher", "student", "metrics", "gate")}
    for network in ("teacher", "student"):
        claims[network] = {key: claims[network].get(key) for key in ("parameters", "macs", "precision")}
    return claims


def curve(rows: Mapping[str, Any], students: Collection[str]) -> dict[str, float | None]:
    """The largest speed-up of the students that are at most so many points below the teacher."""
    best = next(iter(rows.values()))["accuracy"]
    found: dict[str, float | None] = {}
    for points in CURVE:
        fitting = [rows[name]["speedup"] for name in students if best - rows[name]["accuracy"] <= points]
        found[f"{points:g}"] = max(fitting, default=None)
    return found


def verdict(result: Mapping[str, Any], bars: Bars) -> dict[str, Any]:
    """Every bar with its value, of the fastest student within the drop, or of the most accurate one."""
    rows, students = result["contenders"], result["builds"]
    teacher, *peers = (row for name, row in rows.items() if name not in result["manifests"])

    def drop(name: str) -> float:
        return round(teacher["accuracy"] - rows[name]["accuracy"], 3)

    within = [name for name in students if drop(name) <= bars.drop]
    name = max(within, key=lambda n: rows[n]["speedup"]) if within else min(students, key=drop)
    ours, least = rows[name], bars.speedup[result["benchmark"]]
    minutes = round(max(b["seconds"] for b in students.values()) / 60, 2)
    found: dict[str, tuple[float, float, bool]] = {
        "speedup": (least, ours["speedup"], ours["speedup"] >= least),
        "drop": (bars.drop, drop(name), drop(name) <= bars.drop),
        "build_minutes": (bars.build_minutes, minutes, minutes <= bars.build_minutes),
    }
    if bars.over_peer is not None:
        over = round(ours["speedup"] / max(p["speedup"] for p in peers), 3)
        found["over_peer"] = (bars.over_peer, over, over >= bars.over_peer)
    return {key: {"bar": bar, "value": value, "passed": passed} for key, (bar, value, passed) in found.items()}


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
    parser.add_argument("--effort", choices=sorted(BARS), default="balanced")
    parser.add_argument("--latency", nargs="+", help="one build for each; default by effort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for data, stores and artifacts")
    parser.add_argument("--beside", nargs="+", type=Path, default=[], help="other artifacts, for the curve")
    parser.add_argument(
        "--reuse", action="store_true", help="compare artifacts of earlier builds; go on with those stopped"
    )
    given = parser.parse_args(arguments)
    work = given.work or facts.ROOT / ".compactor" / "benchmarks" / given.case
    work.mkdir(parents=True, exist_ok=True)
    case = CASES[given.case](work)
    builds, artifacts = {}, {}
    for latency in given.latency or LATENCIES[given.effort][given.case]:
        name = f"student {latency}"
        own = work / f"{given.effort}-{latency.rstrip('%')}"
        known = own / "build.json"
        if not given.reuse:
            known.unlink(missing_ok=True)
        builds[name] = facts.kept(
            known, partial(build, case, own, given.effort, latency, given.seed, afresh=not given.reuse)
        )
        artifacts[name] = own / "artifact"
    result = {"benchmark": case.name, **facts.facts(given.seed), "effort": given.effort, "builds": builds}
    artifacts |= {f"beside {folder.parent.name}": folder for folder in given.beside}
    result |= compare(case, artifacts)
    result["curve"] = curve(result["contenders"], artifacts)
    result["bars"] = verdict(result, BARS[given.effort])
    path = facts.write("-".join(["end_to_end", case.name, *([given.effort] * (given.effort != "balanced"))]), result)
    print(f"{table(result)}\n{path.relative_to(facts.ROOT)}")
    return 0 if all(bar["passed"] for bar in result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())

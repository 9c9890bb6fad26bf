"""Fitting a target to this machine: random networks in, predictions that know the machine out."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from compactor.backend import Lowered
from compactor.cli.main import run
from compactor.errors import ExitCode
from compactor.frontend import export
from compactor.ir.kernels import KINDS
from compactor.pipeline import fitting
from compactor.pipeline.bench import Bench, Sample, Timing
from compactor.pipeline.suite import LARGEST, network
from compactor.targets.registry import profiles


def test_a_seed_gives_the_same_network() -> None:
    (first, inputs), (second, again) = network(3), network(3)
    assert torch.equal(first(*inputs), second(*again))


@pytest.mark.slow
def test_the_suite_has_every_kind_of_kernel() -> None:
    found: set[str] = set()
    for seed in range(24):
        program = export(*network(seed))
        assert program.cost().macs < 2 * LARGEST
        found |= {k.kind for k in program.kernels()}
    assert found == set(KINDS) - {"matmul", "unknown"}, "attention covers products of two activations"


@pytest.mark.slow
def test_a_fit_changes_predictions_until_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPACTOR_STORE", str(tmp_path))
    program = export(*network(5))
    before = profiles.resolve("host-cpu-onnx")
    plain, known = before.predict(program.kernels(), "float32"), before.fingerprint
    facts = fitting.fit(before, seconds=120, samples=2)
    assert facts["networks"] == 2 and Path(facts["file"]).parent == tmp_path / "fits"
    after = profiles.resolve("host-cpu-onnx")
    fitted = after.predict(program.kernels(), "float32")
    assert fitted.basis == "predicted" and fitted.p50 != plain.p50
    assert after.fingerprint != known
    Path(facts["file"]).unlink()
    assert profiles.resolve("host-cpu-onnx").predict(program.kernels(), "float32") == plain


class Recorded(Bench):
    """A bench of one model, whose reference took these milliseconds meanwhile."""

    def __init__(self, folder: Path, reference: Sequence[float]) -> None:
        kernels = export(*network(5)).kernels()
        sample = Sample("float32", kernels, Lowered("onnx", folder, ("model.onnx",), "float32"), (), {})
        self.timings = [Timing(sample, 2 * ms, ms) for ms in reference]
        self.fastest = min(reference)


@pytest.mark.parametrize(("reference", "noisy"), [((1.0, 1.05, 1.1, 1.0), False), ((1.0, 1.7, 1.1, 1.6), True)])
def test_a_machine_whose_speed_moves_is_told(
    reference: tuple[float, ...], noisy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPACTOR_STORE", str(tmp_path))
    monkeypatch.setattr(fitting, "observe", lambda target, **_: Recorded(tmp_path, reference))
    facts = fitting.fit(profiles.resolve("host-cpu-onnx"), seconds=1)
    assert ("the speed of this machine moved by" in facts.get("warning", "")) == noisy


def test_a_device_elsewhere_cannot_be_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "fit", "jetson-orin", "--minutes", "1"]) == ExitCode.UNSUPPORTED
    assert "run compactor targets fit on the device itself" in capsys.readouterr().err


def test_latencies_measured_elsewhere_move_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPACTOR_STORE", str(tmp_path / "store"))
    entries = []
    for seed in (5, 7, 9):
        program = export(*network(seed))
        program.save(tmp_path / f"{seed}.pt2")
        plain = profiles.resolve("jetson-orin").predict(program.kernels(), "int8")
        entries.append({"model": f"{seed}.pt2", "precision": "int8", "ms": 3 * plain.p50})
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert run(["targets", "fit", "jetson-orin", "--measured", str(tmp_path / "list.json")]) == ExitCode.OK
    after = profiles.resolve("jetson-orin").predict(program.kernels(), "int8")
    assert after.p50 > 2 * plain.p50


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("[]", ExitCode.BAD_INPUT, "has no latencies"),
        ("{", ExitCode.BAD_INPUT, "no list of latencies"),
        ('[{"model": "a.pt2", "ms": -1}]', ExitCode.BAD_INPUT, "0.ms"),
        ('[{"model": "a.pt2", "ms": 1, "precision": "float64"}]', ExitCode.UNSUPPORTED, "float64"),
        ('[{"model": "missing.pt2", "ms": 1, "precision": "int8"}]', ExitCode.BAD_INPUT, "missing.pt2"),
    ],
)
def test_lists_that_teach_nothing(
    text: str, code: ExitCode, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.json").write_text(text)
    assert run(["targets", "fit", "jetson-orin", "--measured", str(tmp_path / "list.json")]) == code
    assert said in capsys.readouterr().err

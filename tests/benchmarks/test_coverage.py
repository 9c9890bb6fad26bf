"""The coverage benchmarks on a few small models: what holds passes, what does not is found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

from benchmarks.coverage import __main__ as command
from benchmarks.coverage import cofi, generated, invariants, scaling
from benchmarks.coverage.architectures import Row, examine
from benchmarks.coverage.building import architectures, build
from benchmarks.coverage.byhand import ByHand
from compactor.frontend.exporting import export
from compactor.ir.program import Program


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu())


MLP = ByHand("mlp", Mlp, ((6,),), frozenset({"ffn"}))


def test_there_are_enough_architectures_and_names_are_unique() -> None:
    known = architectures()
    assert len(known) >= 75
    assert all(entry.expected <= {"channels", "heads", "ffn", "hidden", "blocks"} for entry in known.values())


@pytest.mark.parametrize("name", ["two_inputs", "lstm"])
def test_same_seed_same_module_and_inputs(name: str) -> None:
    (first, inputs), (second, again) = (build(architectures()[name]) for _ in range(2))
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)


def test_an_architecture_that_holds() -> None:
    row = examine(MLP, range(3), 1)
    assert row.status == "passed", row
    assert row.found == ("ffn",) and row.parameters == 83
    # All but the bias of the last layer lies on a hidden unit.
    assert row.share == pytest.approx(80 / 83, abs=1e-4)
    assert (row.findings.subnets, row.findings.exports) == (3, 1)


def test_a_kind_that_is_not_there_is_missing() -> None:
    row = examine(ByHand("mlp", Mlp, ((6,),), frozenset({"ffn", "blocks"})), range(1), 0)
    assert row.status == "missing blocks"


def test_a_model_that_fails_does_not_raise() -> None:
    def broken() -> nn.Module:
        raise ValueError("no such layer\nsecond line")

    row = examine(ByHand("broken", broken, ((6,),), frozenset({"ffn"})), range(1), 0)
    assert row.status == "failed: ValueError: no such layer"
    assert row.missing == ("ffn",)


def _damage(change: Callable[[Tensor], Tensor]) -> Callable[..., Program]:
    original = invariants.slice_program

    def damaged(*args: Any) -> Program:
        student = original(*args)
        return student.evolve(state={name: change(tensor) for name, tensor in student.state.items()})

    return damaged


@pytest.mark.parametrize("change", [lambda t: t * 1.001, lambda t: t * float("nan")])
def test_a_wrong_slice_is_a_mismatch(monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    monkeypatch.setattr(invariants, "slice_program", _damage(change))
    row = examine(MLP, range(4, 5), 0)
    assert row.status.startswith("mismatch: mask and slice: relative error")
    assert row.findings.mismatches[0].endswith("(subnet seed 4)")


class Offset(nn.Module):
    """Adds a number and takes it away again."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.scale, self.by = nn.Parameter(torch.ones(6)), by

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale + self.by) - self.by


def test_rounding_is_told_from_a_mismatch() -> None:
    x = torch.rand(2, 6, generator=torch.Generator().manual_seed(0))
    plain, rounded = (export(Offset(by), (x,)) for by in (0.0, 1000.0))
    findings = invariants.Findings()
    findings.compare(rounded, plain, (x,))
    assert findings.error > invariants.TOLERANCE
    assert (findings.rounding, findings.mismatches) == (1, [])
    wrong = plain.with_state({name: tensor * 1.0001 for name, tensor in plain.state.items()})
    findings.compare(wrong, plain, (x,))
    assert findings.rounding == 1 and len(findings.mismatches) == 1


def test_bars() -> None:
    good = Row("good", ("ffn",), ("ffn",), share=0.9)
    bad = Row("bad", ("ffn", "blocks"), ("ffn",), share=0.5)
    values = command.totals([good, good, bad])
    assert values == {"mismatches": 0, "complete": 0.6667, "share": 0.9, "architectures": 2}
    passed = {name: bar["passed"] for name, bar in command.verdict(values).items()}
    assert passed == {"mismatches": True, "complete": False, "share": True, "architectures": False}


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "architectures", lambda: {"mlp": MLP})
    monkeypatch.setattr(command.facts, "write", lambda *args: pytest.fail("a part is not stored"))
    assert command.main(["mlp", "--subnets", "2", "--no-export", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "[1/1] mlp: passed" in shown and "complete: 1 (bar 0.97): passed" in shown
    with pytest.raises(SystemExit):
        command.main(["unheard_of"])


def test_generated_graphs_are_the_same_for_the_same_seed() -> None:
    console = command.Console(quiet=True)
    first, second, other = (generated.run(4, seed, console).to_dict() for seed in (3, 3, 4))
    assert first["graphs"] == 4 and not first["mismatches"] and not first["errors"]
    assert first == second != other


def test_exponent_and_bars_of_scaling() -> None:
    rows = [
        {"layers": layers, "nodes": 10 * layers, "analysis_seconds": layers * 0.1, "slice_seconds": layers**2 * 1e-3,
         "analysis_memory": 1.05, "slice_memory": 1.1}
        for layers in scaling.DEPTHS
    ]  # fmt: skip
    assert scaling.exponent(rows, "analysis_seconds") == pytest.approx(1)
    bars = scaling.verdict(rows)
    assert bars["exponent"] == {"bar": 1.1, "value": 2.0, "passed": False}
    assert bars["analysis_seconds"]["value"] == pytest.approx(1.2) and bars["peak_memory"]["value"] == 1.1


def test_pruning_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    row = cofi.examine(MLP)
    assert row.status == "passed" and 0.4 < row.share <= 0.5, row
    original = cofi.mask_program

    def damaged(*args: Any) -> Program:
        masked = original(*args)
        return masked.with_state({name: 1.1 * masked.state[name] for name in masked.trainable})

    monkeypatch.setattr(cofi, "mask_program", damaged)
    assert cofi.examine(MLP).status.startswith("mismatch: mask and slice")


def test_refusals_are_no_failures() -> None:
    rows = [cofi.Row("a"), cofi.Row("b", "refused: no class logits")]
    assert cofi.verdict(rows) == {"bar": 1, "value": 1, "passed": True}
    assert not cofi.verdict([*rows, cofi.Row("c", "failed: KeyError")])["passed"]

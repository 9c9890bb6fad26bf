"""The ledger: one measurement per structure, whatever the weights."""

from pathlib import Path

from compactor.latency import Latency
from compactor.pipeline.ledger import Ledger, structure
from tests.pipeline.support import Device, program


def test_measures_once_per_structure(tmp_path: Path) -> None:
    calls: list[float] = []

    def measure() -> Latency:
        calls.append(1.0 + len(calls))
        return Latency(calls[-1], "measured", p90=2.0, p99=3.0, n=64)

    first = Ledger(tmp_path, Device())(program(seed=0), measure)
    again = Ledger(tmp_path, Device())(program(seed=1), measure)
    assert first == again == Latency(1.0, "measured", p90=2.0, p99=3.0, n=64)
    other = Ledger(tmp_path, Device(fingerprint="toy-2"))(program(), measure)
    assert other.p50 == 2.0


def test_structure_sees_shapes_and_precision() -> None:
    base = program()
    cut = base.with_state({k: v[:, :1] if v.dim() == 4 else v for k, v in base.state.items()})
    assert len({structure(base), structure(cut), structure(base.evolve(precision="int8"))}) == 3


def test_unreadable_entries_are_measured_again(tmp_path: Path) -> None:
    ledger, teacher = Ledger(tmp_path, Device()), program()
    ledger(teacher, lambda: Latency(1.0, "measured"))
    (tmp_path / "ledger" / f"{ledger.key(teacher)}.json").write_text("{")
    assert ledger(teacher, lambda: Latency(2.0, "measured")).p50 == 2.0

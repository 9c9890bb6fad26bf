"""Artifacts: whole or absent, replaced only by a whole one, damage found."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from compactor.budget import Budget
from compactor.errors import InputError, UsageError
from compactor.report.artifact import Artifact, draft
from compactor.report.gate import evaluate, merge
from compactor.report.manifest import Limits, Manifest
from tests.disks import files_up_to
from tests.report.samples import build, finished, manifest


def test_round_trip(tmp_path: Path) -> None:
    artifact = build(tmp_path / "out")
    again = Artifact.open(tmp_path / "out")
    assert again == artifact
    assert again.damage() == []
    assert set(again.manifest.files) == {"student.pt2", "onnx/model.onnx"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json", "onnx", "student.pt2", "summary.txt",
    ]  # fmt: skip
    assert again.lowered()[0].size_bytes == 5


@pytest.mark.parametrize("name", ["student.pt2", "onnx/model.onnx"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    artifact = build(tmp_path / "out")
    (artifact.folder / name).write_bytes(b"other")
    assert artifact.damage() == [f"{name} has changed"]
    (artifact.folder / name).unlink()
    assert artifact.damage() == [f"{name} is missing"]


def test_a_changed_score_is_damage(tmp_path: Path) -> None:
    path = build(tmp_path / "out").folder / "manifest.json"
    data = json.loads(path.read_text())
    data["metrics"]["score"]["student"] = 99.0
    path.write_text(json.dumps(data))
    assert Artifact.open(tmp_path / "out").damage() == ["manifest.json has changed"]


def test_measured_times_do_not_change_the_content_hash() -> None:
    assert manifest(p50=1.0).content_hash() == manifest(p50=2.0).content_hash()
    assert manifest(p50=1.0, basis="predicted").content_hash() != manifest(p50=2.0, basis="predicted").content_hash()


def test_a_failed_build_keeps_the_old_artifact(tmp_path: Path) -> None:
    old = build(tmp_path / "out")
    with suppress(ZeroDivisionError), draft(tmp_path / "out") as work:
        (work.folder / "student.pt2").write_bytes(b"half")
        raise ZeroDivisionError
    assert Artifact.open(tmp_path / "out") == old
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["out"]


def test_a_new_build_replaces_the_old_artifact(tmp_path: Path) -> None:
    build(tmp_path / "out", seed=1)
    build(tmp_path / "out", seed=2)
    assert Artifact.open(tmp_path / "out").manifest.seed == 2


def test_killed_between_the_renames(tmp_path: Path) -> None:
    build(tmp_path / "out", seed=1)
    (tmp_path / "out").rename(tmp_path / ".out.previous")
    with draft(tmp_path / "out"):
        assert Artifact.open(tmp_path / "out").manifest.seed == 1


def test_two_builds_in_one_folder(tmp_path: Path) -> None:
    with draft(tmp_path / "out"), pytest.raises(UsageError, match="another build is writing"), draft(tmp_path / "out"):
        pass


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not an artifact"), draft(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_output_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"), draft(tmp_path / "file" / "out"):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "schema None"), ('{"schema": 99}', "schema 99"), ('{"schema": 1}', "compactor: Field")],
)
def test_bad_manifests(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Artifact.open(tmp_path)


def test_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no manifest"):
        Artifact.open(tmp_path / "nowhere")


def test_rewrite_keeps_the_files(tmp_path: Path) -> None:
    artifact = build(tmp_path / "out", p50=2.0)
    changed = artifact.rewrite(manifest(p50=1.0))
    assert changed.damage() == []
    assert changed.manifest.files == artifact.manifest.files
    assert "1.000 ms (measured)" in (tmp_path / "out" / "summary.txt").read_text()


def test_finishing_keeps_the_content_hash() -> None:
    built = manifest(basis="predicted")
    assert finished(built, p50=2.0).content_hash() == built.content_hash()
    assert finished(finished(built, p50=2.0), p50=3.0).content_hash() == built.content_hash()


def test_rewriting_on_a_full_disk_keeps_the_artifact(tmp_path: Path) -> None:
    artifact = build(tmp_path / "out", p50=2.0)
    before = {p.name: p.read_bytes() for p in artifact.folder.iterdir() if p.is_file()}
    changed = manifest(p50=1.0).model_copy(update={"environment": {"python": "3" * 100_000}})
    with files_up_to(50_000), pytest.raises(OSError, match="too large"):
        artifact.rewrite(changed)
    assert {p.name: p.read_bytes() for p in artifact.folder.iterdir() if p.is_file()} == before


def _missed(limits: Limits, **changes: object) -> list[str]:
    gate = evaluate(manifest(**changes).metrics, limits)
    assert gate.passed == all(c.passed for c in gate.checks)
    return [c.name for c in gate.checks if not c.passed]


def test_gate() -> None:
    assert _missed(Limits()) == []
    assert _missed(Limits(latency=1.0, size=5, drop=0.5), p50=1.0) == []
    assert _missed(Limits(latency=0.99, size=4, drop=0.49), p50=1.0) == ["latency", "size", "drop"]
    assert _missed(Limits(latency_share=0.25), p50=1.0) == []
    assert _missed(Limits(latency_share=0.2), p50=1.0) == ["latency"]


def test_a_share_is_held_against_figures_of_one_kind() -> None:
    built = manifest(p50=1.0, basis="predicted", limits=Limits(latency=1.5, latency_share=0.3))
    absolute, share = finished(built, p50=2.0).gate.checks
    assert (absolute.value, absolute.basis, absolute.passed) == (2.0, "measured", False)
    assert (share.value, share.basis, share.passed) == (1.0, "predicted", True)
    latencies = finished(built, p50=2.0).metrics.latency_ms.model_copy(update={"predicted": None})
    (unknown,) = evaluate(built.metrics.model_copy(update={"latency_ms": latencies}), Limits(latency_share=0.9)).checks
    assert (unknown.value, unknown.passed) == (None, False)


def test_an_unverified_drop_is_missed() -> None:
    assert _missed(Limits(drop=50.0), score="unverified") == ["drop"]


def test_overriding_limits() -> None:
    recorded = Limits(latency_share=0.25, size=5, drop=1.0)
    assert merge(recorded, Budget()) == recorded
    assert merge(recorded, Budget(latency="5ms")) == Limits(latency=5.0, size=5, drop=1.0)
    assert merge(recorded, Budget(drop="0%")) == Limits(latency_share=0.25, size=5, drop=0.0)


def test_every_field_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text()
    for name, field in Manifest.model_fields.items():
        assert f"`{field.alias or name}`" in text, name

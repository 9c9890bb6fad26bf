"""The studies on a language model, on a text of a few words; the bars of the students."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quantization import bias, corpus, language, qat
from compactor.training import Micro, losses

WORDS = ("a", "film", "that", "is", "rarely", "dull", "and", "never", "long", "its", "plot", "turns", "often", "moves")
TINY = [
    "--teacher-vocabulary", "280", "--teacher-length", "8", "--teacher-width", "32", "--teacher-layers", "1",
    "--teacher-epochs", "1", "--steps", "4", "--batch", "4", "--dev", "4", "--seeds", "0", "1", "--draws", "8",
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shared data with sentences of random words."""
    root = tmp_path_factory.mktemp("shared")
    (root / "teachers").mkdir()
    (root / "data" / "sst2").mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    for name, count in (("train", 300), ("dev", 20), ("test", 20)):
        drawn = torch.randint(0, len(WORDS), (count, 6), generator=random).tolist()
        lines = ["sentence\tlabel", *(" ".join(WORDS[i] for i in row) + " \t1" for row in drawn)]
        (root / "data" / "sst2" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def options(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line of a tiny study."""
    monkeypatch.setenv("COMPACTOR_SHARED", str(shared))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    return [*TINY, "--work", str(tmp_path / "work"), "--results", str(tmp_path)]


def test_blocks_hold_the_text_and_its_next_tokens(shared: Path, tmp_path: Path) -> None:
    made = corpus.blocks(corpus.Language(vocabulary=280, length=8), shared / "data" / "sst2", tmp_path)
    found = made.dev.take(torch.arange(len(made.dev)))
    tokens, labels = found.inputs[0].flatten(), found.labels.flatten()
    assert torch.equal(tokens[1:], labels[:-1]) and int(labels.max()) < 280
    again = corpus.blocks(corpus.Language(vocabulary=280, length=8), shared / "data" / "sst2", tmp_path)
    assert again.fingerprint == made.fingerprint


def test_more_tokens_than_the_text_makes_are_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="at most so many"):
        corpus.blocks(corpus.Language(vocabulary=5000), shared / "data" / "sst2", tmp_path)


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    sure, right = torch.full((100,), 0.8), torch.arange(100) < 60
    assert corpus.calibration_error(sure, right) == pytest.approx(20, abs=1e-3)
    both = torch.cat([sure, torch.full((100,), 0.1)]), torch.cat([right, torch.arange(100) < 10])
    assert corpus.calibration_error(*both) == pytest.approx(10, abs=1e-3)
    assert corpus.calibration_error(torch.ones(4), torch.ones(4).bool()) == 0


def test_perplexity_of_a_model_that_knows_nothing_is_the_vocabulary(shared: Path, tmp_path: Path) -> None:
    made = corpus.blocks(corpus.Language(vocabulary=280, length=8), shared / "data" / "sst2", tmp_path)
    found = corpus.scores(lambda inputs: torch.zeros(*inputs[0].shape, 280), made.dev)
    assert found["perplexity"] == pytest.approx(280, rel=1e-4)


@pytest.mark.slow
def test_quantizing_a_language_model(options: list[str], tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    command = [*options, "--bits", "4", "--samples", "4", "--k", "5"]
    assert language.main(command) == 0
    found = json.loads((tmp_path / "quantization_language.json").read_text())
    assert list(found["rows"]) == [f"{row} W4A8" for row in language.ROWS]
    for name, row in found["rows"].items():
        assert [s.get("steps", 0) for s in row["seeds"]] == [0 if name.startswith("ptq") else 4] * 2
        assert row["perplexity"] > 1 and row["perplexity_spread"] >= 0
    assert found["best"]["W4A8"] in language.ROWS
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert language.main(command) == 0
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*") if path.is_file()}
    again = json.loads((tmp_path / "quantization_language.json").read_text())
    assert again["rows"] == found["rows"] and again["teacher"] == found["teacher"]


def test_the_bias_of_best_classes(options: list[str], tmp_path: Path) -> None:
    assert bias.main([*options, "--k", "3"]) == 0
    found = json.loads((tmp_path / "quantization_bias.json").read_text())
    assert list(found["rows"]) == list(bias.ROWS)
    assert all(row["ece"] > 0 and [s["steps"] for s in row["seeds"]] == [4, 4] for row in found["rows"].values())


def test_renormalised_targets_are_biased_and_of_all_classes_plain() -> None:
    random = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 6, generator=random) for _ in range(2))
    micro = Micro(torch.arange(2), 0, 0, 1, 0)
    plain = bias.Renormalised(6).loss(student, teacher, None, 2.0, micro)
    torch.testing.assert_close(plain, losses.soft(student, teacher, 2.0))
    itself = teacher.clone().requires_grad_()
    naive = bias.Renormalised(2).loss(itself, teacher, None, 1.0, micro)
    bucket = losses.top_k(itself, teacher, 1.0, k=2, tail=0.0)
    (biased,), (right,) = (torch.autograd.grad(loss, itself) for loss in (naive, bucket))
    assert biased.abs().max() > 0.01 > 1e-6 > right.abs().max(), "the teacher itself would be changed"


def rows(**accuracy: float) -> dict[str, Any]:
    return {name.replace("_", " "): {"test_accuracy": value} for name, value in accuracy.items()}


def test_bars_of_the_students() -> None:
    made = {
        "good": rows(float32=90.0, qat_W8A8=89.7, ptq_W4A8=80.0, qat_W4A8=87.0),
        "bad": rows(float32=90.0, qat_W8A8=89.69, ptq_W4A8=80.0, qat_W4A8=86.9),
        "ranked": rows(float32=90.0, ptq_W4A8=80.0, qat_W4A8=86.9, **{"qat-top3_W4A8": 87.0}),
        "unhurt": rows(float32=90.0, ptq_W4A8=90.5, qat_W4A8=90.1),
    }
    figures, passed = qat.bars(made)
    assert passed == {
        "good W8A8": True, "good W4A8": True, "bad W8A8": False, "bad W4A8": False, "ranked W4A8": True,
        "unhurt W4A8": True,
    }  # fmt: skip
    assert figures["good recovered W4A8"] == 0.7 and figures["good lost W8A8"] == 0.3
    assert figures["unhurt recovered W4A8"] is None

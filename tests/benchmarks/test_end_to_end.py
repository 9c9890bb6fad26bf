"""The parts of the end-to-end benchmark on a tiny teacher and tiny data, in the real runtime."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models import example

pytest.importorskip("openvino")
pytest.importorskip("nncf")

from benchmarks import data, end_to_end, facts, runtime


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher archive, its data, and an artifact that holds the same model lowered."""
    root = tmp_path_factory.mktemp("tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _fill(root)
    return root


def _fill(root: Path) -> None:
    import openvino

    module, inputs = example("resnet_b")
    torch.export.save(
        torch.export.export(module, inputs, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), root / "teacher.pt2"
    )
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        x = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        with torch.no_grad():
            y = module(torch.from_numpy(x.transpose(0, 3, 1, 2)).float() / 255).argmax(-1).numpy()
        np.savez(root / f"{split}.npz", x=x, y=y)
    (root / "artifact" / "openvino").mkdir(parents=True)
    model = openvino.convert_model(torch.export.load(root / "teacher.pt2"))
    model.inputs[0].set_names({"x"})
    openvino.save_model(model, root / "artifact" / "openvino" / "model.xml", compress_to_fp16=False)
    (root / "artifact" / "manifest.json").write_text(json.dumps(_manifest()))


def _manifest() -> dict[str, Any]:
    network = {"parameters": 1, "macs": 1, "precision": "float32"}
    lowered = {
        "backend": "openvino",
        "folder": "openvino",
        "files": ["model.xml"],
        "precision": "float32",
        "options": {"device": "CPU", "precision_hint": "f32", "shapes": "x=?x3x32x32"},
    }
    empty = {"pipeline": "", "metrics": {}, "gate": {"passed": True}}
    return {"lowered": [lowered], "teacher": network, "student": network, **empty}


def _case(folder: Path) -> end_to_end.Case:
    def samples(split: str, length: int | None, limit: int | None) -> data.Samples:
        return data.images(folder / f"{split}.npz", limit=limit)

    return end_to_end.Case("tiny", folder / "teacher.pt2", folder, False, samples, runtime.convert_archive)


def test_comparison(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = end_to_end.compare(_case(folder), {"student": folder / "artifact"}, rounds=2)
    rows = result["contenders"]
    assert list(rows) == ["teacher float32", "teacher bfloat16", "teacher NNCF int8", "student"]
    assert rows["teacher float32"]["accuracy"] == rows["student"]["accuracy"] == 100
    assert rows["teacher NNCF int8"]["accuracy"] > 50
    assert all(0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"] for row in rows.values())
    result |= {"benchmark": "tiny", "builds": {"student": {"seconds": 60.0}}}
    asked = end_to_end.Bars({"tiny": 4.0}, 1.5, 40.0, over_peer=1e3)
    bars = end_to_end.verdict(result, asked)
    assert bars["drop"] == {"bar": 1.5, "value": 0.0, "passed": True}
    assert not bars["speedup"]["passed"] and bars["build_minutes"]["value"] == 1.0
    assert not bars["over_peer"]["passed"]
    assert "student" in end_to_end.table({**result, "bars": bars})


def test_the_fastest_student_within_the_drop_counts() -> None:
    def row(speedup: float, accuracy: float) -> dict[str, float]:
        return {"speedup": speedup, "accuracy": accuracy}

    students = {"a": row(6, 90), "b": row(9, 89), "c": row(12, 87.5)}
    teachers = {"float32": row(1, 90), "bfloat16": row(2, 90), "int8": row(3, 90)}
    rows = {**teachers, **students, "beside": row(20, 90)}
    builds = {name: {"seconds": 60.0 * i} for i, name in enumerate(students)}
    manifests = dict.fromkeys([*students, "beside"])
    result = {"benchmark": "x", "contenders": rows, "manifests": manifests, "builds": builds}
    found = end_to_end.verdict(result, end_to_end.Bars({"x": 8.0}, 1.0, 5.0, over_peer=3.0))
    assert {key: bar["value"] for key, bar in found.items()} == {
        "speedup": 9, "drop": 1, "build_minutes": 2, "over_peer": 3,
    }  # fmt: skip
    assert end_to_end.curve(rows, students) == {"0.5": 6, "1": 9, "2": 9, "3": 12}
    assert end_to_end.curve(rows, ["c"])["2"] is None
    assert end_to_end.curve(rows, [*students, "beside"])["0.5"] == 20


def test_a_build_that_was_stopped_counts_all_its_runs(tmp_path: Path) -> None:
    notes = tmp_path / "seconds.json"
    notes.write_text("60.0")
    status, seconds = end_to_end._timed(subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]), notes)
    assert status == 3 and seconds > 60 and json.loads(notes.read_text()) == seconds


def test_cifar10_splits_do_not_overlap(shared: Path, tmp_path: Path) -> None:
    folder = data.prepare_cifar10(tmp_path / "data")
    sizes = {}
    for split in ("train", "dev", "test"):
        with np.load(folder / f"{split}.npz") as arrays:
            sizes[split] = arrays["x"].shape
            assert arrays["x"].dtype == np.uint8 and set(arrays["y"]) == set(range(10))
    assert sizes == {"train": (45000, 32, 32, 3), "dev": (5000, 32, 32, 3), "test": (10000, 32, 32, 3)}


def test_sentences_go_through_the_tokenizer(shared: Path) -> None:
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = data.sentences(shared / "data/sst2/dev.tsv", shared / "teachers/sst2-minilm", 32, limit=10)
    assert len(samples) == 10 and samples.inputs["input_ids"].shape == (10, 32)
    assert set(samples.labels) <= {0, 1}


def test_result_names_the_machine(tmp_path: Path) -> None:
    path = facts.write("x", facts.facts(seed=3), tmp_path)
    result = json.loads(path.read_text())
    assert result["seed"] == 3 and result["machine"]["cores"] >= 1 and result["versions"]["torch"]

"""The store: what comes back, what is damaged, what is locked, what is pruned."""

import os
import time
from pathlib import Path

import pytest
import torch

from compactor.pipeline.store import Store, default_root, key_of
from tests.pipeline.support import program


def test_result_comes_back_equal(tmp_path: Path) -> None:
    store, original = Store(tmp_path), program()
    stored = store.save("ab" * 32, original, {"pass": "x", "seconds": 1.5})
    again = Store(tmp_path).load("ab" * 32)
    assert again is not None
    assert again.record == {"pass": "x", "seconds": 1.5}
    assert again.program.fingerprint == stored.program.fingerprint == original.fingerprint
    inputs = original.example_inputs(3)
    assert torch.equal(again.program(*inputs), original(*inputs))  # type: ignore[arg-type]


def test_absent_is_none(tmp_path: Path) -> None:
    assert Store(tmp_path).load("cd" * 32) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "record", "missing"])
def test_damaged_results_are_dropped(tmp_path: Path, damage: str) -> None:
    store, key = Store(tmp_path), "ef" * 32
    store.save(key, program(), {})
    folder = tmp_path / "results" / key[:2] / key
    archive = folder / "program.pt2"
    content = archive.read_bytes()
    if damage == "flip":
        archive.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    elif damage == "truncate":
        archive.write_bytes(content[: len(content) // 2])
    elif damage == "record":
        (folder / "result.json").write_text("{")
    else:
        archive.unlink()
    assert store.load(key) is None
    assert not folder.exists()
    store.save(key, program(), {})
    assert store.load(key) is not None


def test_workspace_survives_until_the_result_is_stored(tmp_path: Path) -> None:
    key = "01" * 32
    (Store(tmp_path).workspace(key) / "step").write_text("7")
    store = Store(tmp_path)
    assert (store.workspace(key) / "step").read_text() == "7"
    store.save(key, program(), {})
    assert not (tmp_path / "work" / key).exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_key_depends_on_every_part() -> None:
    parts = {"input": "a", "seed": 0, "pass": ["p", 1, {"x": 1.0}]}
    keys = {key_of(parts), key_of({**parts, "seed": 1}), key_of({**parts, "pass": ["p", 2, {"x": 1.0}]})}
    assert len(keys) == 3
    assert key_of(dict(reversed(parts.items()))) in keys


def test_prune_keeps_the_most_recently_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [f"{i:02}" * 32 for i in range(3)]
    for age, key in enumerate(keys):
        store.save(key, program(), {})
        then = time.time() - 100 * (3 - age)
        os.utime(tmp_path / "results" / key[:2] / key, (then, then))
    size = sum(f.stat().st_size for f in (tmp_path / "results" / keys[0][:2] / keys[0]).iterdir())
    assert store.load(keys[0]) is not None  # used just now
    store.prune(limit_bytes=int(2.5 * size))
    assert [store.load(k) is not None for k in keys] == [True, False, True]
    store.prune(limit_days=0)
    assert all(store.load(k) is None for k in keys)


def test_outputs_of_teachers_are_shared_and_pruned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    files = [store.outputs() / f"{name}.outputs" for name in "ab"]
    for age, file in enumerate(files):
        if age:  # hidden states are folders
            file.mkdir()
        (file / "states0" if age else file).write_bytes(bytes(100))
        os.utime(file, (time.time() - 100 * age,) * 2)
    assert store.prune(limit_bytes=150) == [files[1]] and files[0].exists()
    assert store.prune(limit_days=0) == [files[0]] and not files[0].exists()


def test_default_root_is_the_environment_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPACTOR_STORE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("COMPACTOR_STORE")
    assert default_root().name == "compactor"

"""Arrays by input name: conversions, dev set aside, every misfit named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from compactor.calibration import files
from compactor.errors import ExitCode, InputError
from compactor.ir.program import Program

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
Y = np.arange(40) % 3


def _save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def _fails(path: Path, program: Program, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        files.open(str(path), program, 0)
    assert raised.value.exit_code is ExitCode.BAD_INPUT
    assert raised.value.remedy


def test_pixels_become_float_and_floats_pass(images: Program, tmp_path: Path) -> None:
    floats = RNG.normal(size=(10, 3, 8, 8))
    _save(tmp_path / "train.npz", x=PIXELS, y=Y)
    save_file({"input": torch.from_numpy(floats).float()}, tmp_path / "test.safetensors")
    source = files.open(str(tmp_path), images, 0)
    batch = source.train.take(torch.tensor([3, 1]))
    assert batch.inputs[0].shape == (2, 3, 8, 8)
    row = int(source.train.indices[3])  # type: ignore[attr-defined]
    torch.testing.assert_close(batch.inputs[0][0], torch.from_numpy(PIXELS[row] / 255).permute(2, 0, 1).float())
    assert source.test is not None
    assert not source.test.labelled
    torch.testing.assert_close(
        source.test.take(torch.arange(10)).inputs[0].double(), torch.from_numpy(floats).float().double()
    )
    images(*batch.inputs)


def test_dev_is_set_aside_by_seed_and_class(features: Program, tmp_path: Path) -> None:
    y = np.repeat([0, 1, 2], [100, 50, 20])
    path = str(_save(tmp_path / "d.npz", x=RNG.normal(size=(170, 5)), y=y))
    source, again, other = (files.open(path, features, seed) for seed in (1, 1, 2))
    assert source.fingerprint == again.fingerprint != other.fingerprint
    assert (len(source.train), len(source.dev), source.test) == (153, 17, None)
    labels = source.dev.take(torch.arange(17)).labels
    assert labels is not None
    assert torch.bincount(labels).tolist() == [10, 5, 2]
    both = torch.cat([source.train.indices, source.dev.indices])  # type: ignore[attr-defined]
    assert sorted(both.tolist()) == list(range(170))


def test_dev_and_test_are_used_where_they_are(features: Program, tmp_path: Path) -> None:
    for name, count in (("train", 30), ("dev", 6), ("test", 9)):
        _save(tmp_path / f"{name}.npz", input=RNG.normal(size=(count, 5)).astype("f4"), y=np.zeros(count, "i8"))
    source = files.open(str(tmp_path), features, 0)
    assert source.test is not None
    assert (len(source.train), len(source.dev), len(source.test)) == (30, 6, 9)
    assert source.calibration(8, 0).inputs[0].shape == (8, 5)


def test_fingerprint_follows_content(features: Program, tmp_path: Path) -> None:
    x = RNG.normal(size=(30, 5))
    first = files.open(str(_save(tmp_path / "a.npz", x=x)), features, 0).fingerprint
    assert files.open(str(_save(tmp_path / "b.npz", x=x)), features, 0).fingerprint == first
    x[7, 2] += 1
    assert files.open(str(_save(tmp_path / "c.npz", x=x)), features, 0).fingerprint != first


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": PIXELS, "y": Y + 1}, r"row 2: label 3, but the teacher has 3 logits \(0 to 2\); 13 such"),
        ({"x": PIXELS, "y": Y - 1}, "row 0: label -1"),
        ({"x": PIXELS, "y": Y.astype("f4")}, "labels have shape .* and dtype torch.float32"),
        ({"x": PIXELS, "y": Y[:7]}, r"arrays of \[7, 40\] samples"),
        ({"x": PIXELS[:, :4]}, r"'x' has shape \(40, 4, 8, 3\)"),
        ({"x": PIXELS.transpose(0, 3, 1, 2).astype("i8")}, "dtype int64"),
        ({"x": PIXELS[:0]}, "is empty"),
        ({"z": PIXELS}, "no array 'input', only z"),
        ({"x": np.full((4, 3, 8, 8), np.nan)}, "row 0: NaN"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "cannot be read as npz"),
        ({"x": np.array(["a", "b"])}, "not a numeric array"),
    ],
)
def test_misfits(arrays: dict[str, Any], words: str, images: Program, tmp_path: Path) -> None:
    _fails(_save(tmp_path / "train.npz", **arrays), images, words)


def test_the_expected_form_is_told(images: Program, tmp_path: Path) -> None:
    path = _save(tmp_path / "train.npz", x=np.zeros((4, 3, 9, 9), "f4"))
    _fails(path, images, re.escape("takes float32 (N, 3, 8, 8), or images as uint8 (N, 8, 8, 3)"))


def test_missing_damaged_unknown(features: Program, tmp_path: Path) -> None:
    _fails(tmp_path / "none", features, "does not exist")
    _fails(tmp_path, features, "has no train, only nothing")
    (tmp_path / "train.npz").write_bytes(b"PK\x03\x04 broken")
    _fails(tmp_path, features, "cannot be read as npz")
    (tmp_path / "train.npz").write_bytes(b"")
    _fails(tmp_path, features, "is empty")
    (tmp_path / "train.safetensors").write_bytes(b"broken")
    _fails(tmp_path, features, "train.npz and train.safetensors")
    _fails(tmp_path / "train.safetensors", features, "cannot be read as safetensors")
    (tmp_path / "x.parquet").write_bytes(b"x")
    _fails(tmp_path / "x.parquet", features, "unknown kind")


def test_token_arrays_are_checked_against_the_vocabulary(texts: Program, tmp_path: Path) -> None:
    ids = np.full((4, 6), 3)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    source = files.open(str(_save(tmp_path / "a.npz", **arrays)), texts, 0)
    assert source.train.take(torch.arange(2)).inputs[0].shape == (2, 6)
    ids[2, 1] = 12
    _fails(_save(tmp_path / "b.npz", **arrays), texts, "values from 3 to 12, the model's table has 12 rows")

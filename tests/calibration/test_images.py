"""Image folders: class order, sizes, files too many for memory, unreadable ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compactor.calibration import files
from compactor.calibration import images as reader
from compactor.calibration.splits import FileSplit
from compactor.errors import InputError
from compactor.ir.program import Program

RNG = np.random.default_rng(0)


def _folder(root: Path, names: tuple[str, ...], size: tuple[int, int] = (8, 8), count: int = 4) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_classes_follow_the_teachers_labels(images: Program, tmp_path: Path) -> None:
    _folder(tmp_path / "train", ("cat", "dog"))
    _folder(tmp_path / "test", ("dog",), count=2)
    source = files.open(str(tmp_path), images, 0)
    assert source.classes == ("dog", "cat", "owl")
    assert source.test is not None
    batch = source.test.take(torch.arange(2))
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0]
    pixels = np.asarray(Image.open(tmp_path / "test" / "dog" / "1.png"))
    torch.testing.assert_close(batch.inputs[0][1], torch.from_numpy(pixels / 255).permute(2, 0, 1).float())


def test_other_names_are_sorted(images: Program, tmp_path: Path) -> None:
    source = files.open(str(_folder(tmp_path, ("zebra", "ant", "mole"))), images, 0)
    assert source.classes == ("ant", "mole", "zebra")


def test_other_sizes_are_fitted(images: Program, tmp_path: Path) -> None:
    source = files.open(str(_folder(tmp_path / "train", ("cat", "dog"), (24, 17))), images, 0)
    assert source.train.take(torch.arange(3)).inputs[0].shape == (3, 3, 8, 8)


def test_files_too_many_for_memory(images: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path / "train", ("cat", "dog"))
    _folder(tmp_path / "dev", ("cat", "dog"))
    eager = files.open(str(tmp_path), images, 0)
    monkeypatch.setattr(reader, "IN_MEMORY", 10)
    lazy = files.open(str(tmp_path), images, 0)
    assert isinstance(lazy.train, FileSplit)
    index = torch.tensor([5, 0, 2])
    have, want = lazy.train.take(index), eager.train.take(index)
    assert torch.equal(have.inputs[0], want.inputs[0])
    assert have.labels is not None
    assert want.labels is not None
    assert torch.equal(have.labels, want.labels)
    assert lazy.fingerprint == files.open(str(tmp_path), images, 0).fingerprint


def test_misfits(images: Program, features: Program, tmp_path: Path) -> None:
    _folder(tmp_path / "a" / "train", ("a", "b", "c", "d"))
    with pytest.raises(InputError, match="label 3, but the teacher has 3 logits"):
        files.open(str(tmp_path / "a"), images, 0)
    _folder(tmp_path / "b" / "train", ("cat", "dog"))
    _folder(tmp_path / "b" / "test", ("eel",))
    with pytest.raises(InputError, match="'eel', which train lacks"):
        files.open(str(tmp_path / "b"), images, 0)
    with pytest.raises(InputError, match=r"image folder, but the model takes input \(2, 5\)"):
        files.open(str(tmp_path / "b"), features, 0)
    (tmp_path / "b" / "train" / "cat" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"0\.png is not a readable image"):
        files.open(str(tmp_path / "b"), images, 0)
    (tmp_path / "c" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no images"):
        files.open(str(tmp_path / "c"), images, 0)

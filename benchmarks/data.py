"""The data of the benchmarks: prepared once for the build, and the test split in the form runtimes take."""

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.facts import ROOT
from compactor.calibration.splits import Part
from compactor.data import DataSource, Split

Sample = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each (N, ...), and labels (N,)."""

    inputs: Sample
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """One sample with a batch dimension of one."""
        return {name: np.ascontiguousarray(values[index : index + 1]) for name, values in self.inputs.items()}


def drawn(split: Split, count: int, seed: int = 0) -> Split:
    """``count`` samples of a split by seed, all of them where there are no more."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split if count >= len(split) else Part(split, order[:count])


def shortened(source: DataSource, count: int | None) -> DataSource:
    """``count`` samples of every split; all without a count."""
    if count is None:
        return source
    test = None if source.test is None else drawn(source.test, count)
    return replace(source, train=drawn(source.train, count), dev=drawn(source.dev, count), test=test)


def shared() -> Path:
    """The folder with shared data and teachers: ``COMPACTOR_SHARED`` or ``../shared``. Raises `SystemExit`."""
    folder = Path(os.environ.get("COMPACTOR_SHARED", ROOT.parent / "shared"))
    if not (folder / "teachers").is_dir():
        raise SystemExit(f"no teachers in {folder}; set COMPACTOR_SHARED to the folder with data/ and teachers/")
    return folder


def prepare_cifar10(destination: Path, *, dev: int = 5000, seed: int = 0) -> Path:
    """``train.npz`` (45 000), ``dev.npz`` (5 000, set aside from train by seed) and ``test.npz`` (10 000), once."""
    if all((destination / f"{split}.npz").exists() for split in ("train", "dev", "test")):
        return destination
    unpacked = destination / "unpacked"
    _unpack_script().main(unpacked, folder=False)
    with np.load(unpacked / "train.npz") as train:
        x, y = train["x"], train["y"]
    order = np.random.default_rng(seed).permutation(len(y))
    for split, chosen in (("dev", np.sort(order[:dev])), ("train", np.sort(order[dev:]))):
        np.savez(destination / f"{split}.npz", x=x[chosen], y=y[chosen])
    (unpacked / "train.npz").unlink()
    (unpacked / "test.npz").replace(destination / "test.npz")
    unpacked.rmdir()
    return destination


def images(path: Path, *, limit: int | None = None, name: str = "x") -> Samples:
    """An npz of ``uint8`` images (N, H, W, C) as floats (N, C, H, W) in 0..1; ``limit`` draws that many at random."""
    with np.load(path) as data:
        x, y = data["x"], data["y"]
    chosen = _drawn(len(y), limit)
    x, y = x[chosen], y[chosen]
    return Samples({name: np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32) / 255}, y.astype(np.int64))


def sentences(path: Path, tokenizer_folder: Path, length: int, *, limit: int | None = None) -> Samples:
    """A ``sentence<TAB>label`` file through the teacher's tokenizer, padded and cut to ``length`` tokens.

    ``limit`` draws that many at random.
    """
    from transformers import AutoTokenizer

    rows = [line.rstrip("\n").rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    rows = [rows[i] for i in _drawn(len(rows), limit)]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoded = tokenizer(
        [text for text, _ in rows], padding="max_length", truncation=True, max_length=length, return_tensors="np"
    )
    inputs = {name: np.asarray(values, dtype=np.int64) for name, values in encoded.items()}
    return Samples(inputs, np.array([int(label) for _, label in rows], dtype=np.int64))


def _drawn(count: int, limit: int | None) -> NDArray[np.int64]:
    return np.arange(count) if limit is None else np.random.default_rng(0).permutation(count)[:limit]


def _unpack_script() -> Any:
    spec = importlib.util.spec_from_file_location("unpack_cifar10", shared() / "data" / "unpack_cifar10.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no unpack_cifar10.py in {shared() / 'data'}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

"""Made-up inputs: right shapes and ranges, the same by seed, never called labelled."""

import torch

from compactor import registry
from compactor.calibration import synthetic
from compactor.ir.program import Program


def test_images_are_smooth_and_in_range(images: Program) -> None:
    source = synthetic.open(None, images, 0)
    assert source.synthetic
    assert (len(source.train), len(source.dev), source.test) == (512, 128, None)
    assert not source.train.labelled
    pixels = source.train.take(torch.arange(64)).inputs[0]
    assert pixels.shape == (64, 3, 8, 8)
    assert float(pixels.min()) >= 0
    assert float(pixels.max()) <= 1
    assert float(pixels.std()) > 0.15
    images(pixels)


def test_tokens_use_the_whole_vocabulary(texts: Program) -> None:
    ids, mask = synthetic.open(None, texts, 0).train.take(torch.arange(128)).inputs
    assert ids.shape == (128, 12)
    assert sorted(set(ids.flatten().tolist())) == list(range(12))
    assert bool((mask == 1).all())
    texts(ids, mask)


def test_same_by_seed_and_one_by_one(images: Program) -> None:
    first, again, other = (synthetic.open(None, images, seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.train.fingerprint != first.dev.fingerprint
    batch = first.train.take(torch.tensor([7, 2])).inputs[0]
    assert torch.equal(batch[1], again.train.take(torch.tensor([2])).inputs[0][0])
    assert not torch.equal(batch[1], first.dev.take(torch.tensor([2])).inputs[0][0])


def test_all_architectures_run_on_it(architecture_program: Program) -> None:
    batch = synthetic.open(None, architecture_program, 0).dev.take(torch.arange(2))
    architecture_program(*batch.inputs)


def test_the_entry_points_are_registered() -> None:
    assert registry.names("compactor.calibration") == ["callable", "files", "synthetic"]
    assert registry.load("compactor.calibration", "synthetic") is synthetic.open

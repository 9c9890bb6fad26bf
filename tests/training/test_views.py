"""Shifted and mirrored views."""

import torch

from compactor.training.views import Views, moved

IMAGES = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
NONE = torch.zeros(2, dtype=torch.int64)


def test_a_shift_repeats_edges() -> None:
    found = moved(IMAGES, torch.tensor([1, 0]), torch.tensor([0, -2]), NONE > 0)
    assert torch.equal(found[0, :, 1:], IMAGES[0, :, :-1]) and torch.equal(found[0, :, 0], IMAGES[0, :, 0])
    assert torch.equal(found[1, :, :, :3], IMAGES[1, :, :, 2:])
    assert torch.equal(found[1, :, :, 3], IMAGES[1, :, :, -1])


def test_mirroring() -> None:
    found = moved(IMAGES, NONE, NONE, torch.tensor([True, False]))
    assert torch.equal(found[0], IMAGES[0].flip(-1)) and torch.equal(found[1], IMAGES[1])


def test_a_view_is_a_function_of_the_sample() -> None:
    views = Views(100, 2, True, seed=0)
    images = torch.rand(100, 1, 8, 8)
    (whole,) = views((images,), torch.arange(100), 1)
    picked = torch.tensor([7, 3, 99])
    (part,) = Views(100, 2, True, seed=0)((images[picked],), picked, 1)
    assert torch.equal(whole[picked], part)
    assert not torch.equal(whole, views((images,), torch.arange(100), 2)[0])
    assert torch.equal(views((images,), torch.arange(100), 0)[0], images)

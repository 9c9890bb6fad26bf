"""Label-free augmentation of images: a few fixed views of every sample, so that a teacher's outputs can be kept."""

import torch
from torch import Tensor

from compactor.data import Batch, Split
from compactor.training.schedule import generator


class Views:
    """Views 0, 1, 2, ... of images (N, C, H, W): shifted by up to ``shift`` pixels, edges repeated, perhaps mirrored.

    View 0 is the image itself. What a view does to a sample is a function of ``(seed, view, index)``, so teacher and
    student see the same one ("A good teacher is patient and consistent", section 3).
    """

    def __init__(self, samples: int, shift: int, flip: bool, seed: int) -> None:
        self.samples, self.shift, self.flip, self.seed = samples, shift, flip, seed
        self._moves: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def key(self) -> str:
        """All that decides what the views show."""
        return f"shift={self.shift} flip={self.flip} seed={self.seed}"

    def __call__(self, inputs: tuple[Tensor, ...], indices: Tensor, view: int) -> tuple[Tensor, ...]:
        """The inputs as this view shows them; the first is the image."""
        if view == 0:
            return inputs
        if view not in self._moves:
            self._moves[view] = self._draw(view)
        down, right, mirrored = (move[indices] for move in self._moves[view])
        return (moved(inputs[0], down, right, mirrored), *inputs[1:])

    def _draw(self, view: int) -> tuple[Tensor, Tensor, Tensor]:
        random = generator(self.seed, view, 0x71E35)
        down, right = torch.randint(-self.shift, self.shift + 1, (2, self.samples), generator=random)
        mirrored = torch.rand(self.samples, generator=random) < (0.5 if self.flip else 0.0)
        return down, right, mirrored


def seen(split: Split, views: Views | None, indices: Tensor, view: int) -> Batch:
    """The samples at ``indices`` (N,) as a view shows them."""
    batch = split.take(indices)
    return batch if views is None else Batch(views(batch.inputs, indices, view), batch.labels)


def moved(images: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
    """Images (N, C, H, W), each shifted ``down`` and ``right`` (N,) with edges repeated, mirrored where asked."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width) - right[:, None]).clamp(0, width - 1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    picked = images.permute(0, 2, 3, 1)[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)

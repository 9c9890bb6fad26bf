"""Train the example teacher: a residual CNN on scikit-learn's handwritten digits (8x8, ten classes).

    python examples/digits/train.py

writes ``data/{train,dev,test}.npz`` (``image``: uint8, (N, 8, 8, 1); ``y``: int64) and ``teacher.pt2`` beside this
file. The same machine and versions give the same files.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import compactor

HERE = Path(__file__).parent
EPOCHS, BATCH, SEED = 30, 64, 0


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class Teacher(nn.Module):
    """A small ResNet: ``image`` (N, 1, 8, 8) in 0..1 to logits (N, 10)."""

    def __init__(self, widths: tuple[int, ...] = (24, 32, 48), depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        blocks = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for block in range(depth):
                blocks.append(Residual(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """1197 digits to train, 200 to select, 400 to test, by a fixed shuffle."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = {"train": order[:1197], "dev": order[1197:1397], "test": order[1397:]}
    return {name: (images[index], digits.target[index].astype(np.int64)) for name, index in parts.items()}


def as_input(images: np.ndarray) -> Tensor:
    """uint8 (N, 8, 8, 1) to float (N, 1, 8, 8) in 0..1, as compactor reads them."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255


def shifted(images: Tensor) -> Tensor:
    """Each image moved by up to one pixel."""
    padded = functional.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images))).tolist()
    return torch.stack([p[:, r : r + 8, c : c + 8] for p, r, c in zip(padded, rows, columns, strict=True)])


def train(images: Tensor, labels: Tensor) -> nn.Module:
    """Cross entropy, AdamW, one-cycle schedule."""
    torch.manual_seed(SEED)
    model = Teacher()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = functional.cross_entropy(model(shifted(images[index])), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Write the data, train, export, and say how good the teacher is."""
    data = splits()
    (HERE / "data").mkdir(exist_ok=True)
    for name, (images, labels) in data.items():
        np.savez_compressed(HERE / "data" / f"{name}.npz", image=images, y=labels)
    model = train(as_input(data["train"][0]), torch.from_numpy(data["train"][1]))
    meta = {"task": "image-classification", "labels": [str(i) for i in range(10)]}
    compactor.export(model, as_input(data["train"][0][:2]), meta=meta).save(HERE / "teacher.pt2")
    for name, (images, labels) in data.items():
        with torch.no_grad():
            correct = model(as_input(images)).argmax(1) == torch.from_numpy(labels)
        print(f"{name}: {100 * correct.float().mean():.2f} % of {len(labels)}")
    print(f"parameters: {sum(p.numel() for p in model.parameters()):,}")


if __name__ == "__main__":
    main()

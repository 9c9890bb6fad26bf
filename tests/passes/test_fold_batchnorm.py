"""`fold_batchnorm`: exact wherever a norm may stand, and it says what it could not fold."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.ir.verify import verify
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import FoldBatchNorm, folded_program
from tests.models import program
from tests.models.weights import randomize
from tests.passes.support import context, error, export, reloaded, targets


def _export(module: nn.Module, *shape: int) -> Program:
    return export(randomize(module, seed=0), shape)


@pytest.mark.parametrize(
    "name", ["resnet_a", "resnet_b", "resnext", "mobilenet_v2", "mobilenet_v3", "densenet", "inception", "bert"]
)
def test_exact_on_real_architectures(name: str, tmp_path: Path) -> None:
    before = canonical(program(name))[0]
    result = FoldBatchNorm().run(before, context(before, tmp_path))
    verify(result.program)
    assert "batch_norm.default" not in targets(result.program)
    assert error(before, result.program) <= 1e-5
    assert result.modified == (name != "bert")


_LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 9)),
    "conv2d": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 9, 9)),
    "without bias": (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 3, 9, 9)),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)), (2, 3, 5, 5, 5)),
    "grouped": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)), (2, 4, 9, 9)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 9, 9)),
    "linear": (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (2, 3)),
    "no affine": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (2, 3, 9, 9)),
}


@pytest.mark.parametrize("name", list(_LAYERS))
def test_every_layer_before_it(name: str) -> None:
    module, shape = _LAYERS[name]
    before = _export(module, *shape)
    after, folded, reasons = folded_program(before)
    assert (folded, reasons) == (1, [])
    assert len(targets(after)) == 1
    assert error(before, after) <= 1e-5
    assert all(after.state[name].requires_grad is False for name in after.state)


class _Shared(nn.Module):
    """One convolution with two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.one(self.conv(x)) + self.two(self.conv(x * 2))
        return result


def test_a_convolution_used_twice_gets_two_weights() -> None:
    before = _export(_Shared(), 2, 3, 9, 9)
    after, folded, _ = folded_program(before)
    assert folded == 2 and error(before, after) <= 1e-5
    assert sum(t.dim() == 4 for t in after.state.values()) == 2


_LEFT: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "before activation": (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), (2, 3, 9, 9), "follows"),
    "after activation": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), (2, 4 - 1, 9, 9), "relu"),
    "channels last": (nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(3)), (2, 3, 5), "channels last"),
    "grouped transposed": (
        nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)), (2, 4, 9, 9), "grouped transposed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(_LEFT))
def test_what_cannot_be_folded_becomes_product_and_sum(name: str, tmp_path: Path) -> None:
    module, shape, reason = _LEFT[name]
    before = _export(module, *shape)
    result = FoldBatchNorm().run(before, context(before, tmp_path))
    assert result.metrics["folded"] == 0 and result.metrics["affine"] == 1
    assert reason in result.metrics["reasons"][0]
    assert {"mul.Tensor", "add.Tensor"} <= set(targets(result.program))
    assert error(before, result.program) <= 1e-5


def test_a_convolution_read_by_others_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            result: Tensor = self.norm(y) + y
            return result

    before = _export(Both(), 2, 3, 9, 9)
    after, folded, reasons = folded_program(before)
    assert folded == 0 and "also read by others" in reasons[0]
    assert error(before, after) <= 1e-5


def test_extreme_statistics_stay_exact() -> None:
    norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.tensor([1e4, -1e4, 0.0, 1e-6])
    norm.running_var = torch.tensor([1e6, 1e-8, 1.0, 0.0])
    before = export(nn.Sequential(nn.Conv2d(3, 4, 3), norm), (2, 3, 9, 9))
    assert error(before, folded_program(before)[0]) <= 1e-5


def test_batch_statistics_are_refused() -> None:
    before = export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), (2, 3, 9, 9))
    with pytest.raises(InputError, match=r"batch statistics|no running statistics"):
        folded_program(before)


def test_folding_twice_and_reloading_change_nothing(tmp_path: Path) -> None:
    once, _, _ = folded_program(program("resnet_b"))
    assert folded_program(once)[0] is once
    assert reloaded(once, tmp_path).fingerprint == once.fingerprint

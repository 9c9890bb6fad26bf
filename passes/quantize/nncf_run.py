"""Running NNCF's post-training quantization on a static graph, quietly."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from compactor.errors import UnsupportedError

Sample = tuple[Tensor, ...]


@dataclass(frozen=True)
class Settings:
    """How to quantize.

    Attributes:
        transformer: use NNCF's placement for transformers.
        device: NNCF's target device, ``CPU``, ``NPU`` or ``ANY``.
        preset: ``performance`` (symmetric), ``mixed`` (asymmetric activations) or None for NNCF's choice.
        smooth_quant: move outliers from activations into weights (Xiao et al. 2023), where NNCF does it.
        alpha: how far they are moved, from 0 to 1; None for NNCF's choice.
        bias_correction: ``fast``, ``accurate`` or ``none``.
        ignored: names of nodes that stay in float.
    """

    transformer: bool
    device: str
    preset: str | None
    smooth_quant: bool
    alpha: float | None
    bias_correction: str
    ignored: tuple[str, ...]


def quantize(
    module: fx.GraphModule, samples: Sequence[Sample], settings: Settings, seen: Callable[[int], None]
) -> fx.GraphModule:
    """NNCF's quantized module. ``seen`` is told how many samples have run, over all its passes.

    Raises `UnsupportedError` when NNCF cannot quantize the module.
    """
    with _quiet():
        import nncf

        count = 0

        def feed(sample: Sample) -> Sample:
            nonlocal count
            count += 1
            seen(count)
            return sample

        try:
            result: fx.GraphModule = nncf.quantize(
                module, nncf.Dataset(list(samples), feed), subset_size=len(samples), **_options(settings)
            )
        except Exception as error:
            raise UnsupportedError(
                f"NNCF cannot quantize this model: {type(error).__name__}: {error}",
                "use quantize.cast, or report the model",
            ) from error
        return result


def _options(settings: Settings) -> dict[str, Any]:
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )

    advanced = AdvancedQuantizationParameters(
        backend_params={"compress_weights": False},
        disable_bias_correction=settings.bias_correction == "none",
        overflow_fix=None if settings.device == "CPU" else OverflowFix.DISABLE,
        # NNCF would quantize the inputs of depthwise convolutions per channel, which only OpenVINO runs.
        activations_quantization_params=QuantizationParameters(per_channel=False),
    )
    if not settings.smooth_quant:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    elif settings.alpha is not None:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(matmul=settings.alpha)
    return {
        "model_type": nncf.ModelType.TRANSFORMER if settings.transformer else None,
        "preset": nncf.QuantizationPreset(settings.preset) if settings.preset else None,
        "target_device": nncf.TargetDevice(settings.device),
        "fast_bias_correction": settings.bias_correction != "accurate",
        "ignored_scope": nncf.IgnoredScope(names=list(settings.ignored), validate=False),
        "advanced_parameters": advanced,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's progress bars and advice, torchao's notes about absent kernels, and NNCF's usage reports."""
    os.environ.setdefault("NNCF_CI", "1")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

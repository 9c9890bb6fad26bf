"""What this machine trains fastest in: bfloat16 autocast, memory format and attention kernels."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@cache
def bfloat16_is_fast(device: str = "cpu") -> bool:
    """Whether the device has bfloat16 matrix instructions (AVX512-BF16 or AMX; tensor cores of Ampere and later)."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def reduced(device: str, enabled: bool) -> Iterator[None]:
    """Autocast to bfloat16.

    On a CPU attention is spelled out, in bfloat16: the backward of the flash kernel is four times slower in it at the
    sequence lengths that are trained here (13 against 3 ms at 32 x 12 x 32 x 32, two threads).
    """
    with ExitStack() as stack:
        if enabled:
            stack.enter_context(torch.autocast(device, torch.bfloat16))
            if device == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                allow = torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp
                stack.callback(allow, torch._C._get_math_sdp_allow_fp16_bf16_reduction())
                allow(True)
        yield


def channels_last(module: nn.Module) -> nn.Module:
    """The module with its 4-D tensors in channels-last layout, in place."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:  # `Module.to` would refuse a module with 5-D tensors, such as masks of windows
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def as_trained(inputs: tuple[Tensor, ...], device: str) -> tuple[Tensor, ...]:
    """Inputs on the device, images in channels-last layout."""
    moved = (x.to(device) for x in inputs)
    return tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in moved)

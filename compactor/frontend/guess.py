"""Example inputs for a module whose author gave none: only for image models, and always said aloud."""

import torch
from torch import Tensor, nn

from compactor.errors import InputError

_REMEDY = (
    "let the factory return (module, example_inputs), put `example_inputs` beside it, or use cp.export(module, inputs)"
)


def image_inputs(module: nn.Module) -> tuple[tuple[Tensor, ...], str]:
    """One image of the first size that the module accepts, and a sentence that says what was assumed.

    The first convolution tells the channels, and its stride the order of sizes that are tried: models that start
    with stride 1 are made for small images. Raises `InputError` for a module that does not start with a convolution.
    """
    first = next((m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))), None)
    declared = _declared(module)
    if declared is not None:
        return (torch.zeros(1, *declared),), f"input 1x{'x'.join(map(str, declared))}, from the model's default_cfg"
    if not isinstance(first, nn.Conv2d):
        raise InputError("the shape of the model's inputs is not known", _REMEDY)
    small = first.stride == (1, 1) and first.kernel_size[0] <= 5
    for size in (32, 28, 64, 224) if small else (224, 256, 299, 384, 96, 64, 32):
        inputs = (torch.zeros(1, first.in_channels, size, size),)
        if _runs(module, inputs):
            why = f"its first convolution has {first.in_channels} input channels and stride {first.stride[0]}"
            return inputs, f"input 1x{first.in_channels}x{size}x{size} assumed: {why}"
    raise InputError("no common image size fits the model", _REMEDY)


def _declared(module: nn.Module) -> tuple[int, ...] | None:
    """The input size that timm models carry."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        if isinstance(config, dict) and config.get("input_size"):
            return tuple(int(n) for n in config["input_size"])
    return None


def _runs(module: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(*inputs)
    except (RuntimeError, ValueError):
        return False
    finally:
        module.train(training)
    return True

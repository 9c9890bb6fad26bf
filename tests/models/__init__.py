"""Small real architectures, deterministic by seed: what graph analysis, passes and backends are proven on."""

import warnings
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.export import Dim

from compactor.ir.exported import from_exported
from compactor.ir.program import Program
from tests.models import branches, huggingface, mobile, resnets, sequences
from tests.models.weights import randomize

Build = Callable[[], nn.Module]
Inputs = Callable[[], tuple[Tensor, ...]]
Example = tuple[nn.Module, tuple[Tensor, ...]]


def _floats(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.rand(shape, generator=generator) for shape in shapes)


def _seeded(build: Build, inputs: Inputs) -> Example:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomize(build(), seed=0), inputs()


_image = partial(_floats, (2, 3, 32, 32))
_features = partial(_floats, (2, 12, 10))
_text = partial(huggingface.text_inputs, 60)
_PARTS: dict[str, tuple[Build, Inputs]] = {
    "resnet_a": (resnets.option_a, _image),
    "resnet_b": (resnets.option_b, _image),
    "resnet_bottleneck": (resnets.bottleneck, _image),
    "resnext": (resnets.resnext, _image),
    "mobilenet_v2": (mobile.MobileNetV2, _image),
    "mobilenet_v3": (mobile.MobileNetV3, _image),
    "shufflenet": (mobile.ShuffleNet, _image),
    "densenet": (branches.DenseNet, _image),
    "inception": (branches.Inception, _image),
    "groupnorm": (branches.GroupNormNet, _image),
    "two_towers": (branches.TwoTowers, partial(_floats, (2, 3, 32, 32), (2, 6))),
    "packed_chunk": (sequences.packed_chunk, _features),
    "packed_view": (sequences.packed_view, _features),
    "gated": (sequences.gated, _features),
    "tied_lm": (sequences.TiedLanguageModel, partial(huggingface.text_inputs, 50, mask=False)),
    "convnext": (huggingface.convnext, _image),
    "vit": (huggingface.vit, _image),
    "vit_eager": (partial(huggingface.vit, "eager"), _image),
    "bert": (huggingface.bert, partial(_text, types=True)),
    "bert_eager": (partial(huggingface.bert, "eager"), partial(_text, types=True)),
    "distilbert": (huggingface.distilbert, _text),
    "gpt2": (huggingface.gpt2, partial(_text, mask=False)),
    "llama": (huggingface.llama, _text),
}
ARCHITECTURES: dict[str, Callable[[], Example]] = {
    name: partial(_seeded, build, inputs) for name, (build, inputs) in _PARTS.items()
}
DYNAMIC_LENGTH = frozenset({"tied_lm", "bert", "bert_eager", "distilbert", "gpt2", "llama"})


@cache
def example(name: str) -> Example:
    """The eager module in eval mode and a batch of two inputs."""
    return ARCHITECTURES[name]()


@cache
def program(name: str) -> Program:
    """The exported architecture: dynamic batch, and a dynamic length for text."""
    module, inputs = example(name)
    batch, length = Dim("batch", min=1, max=4096), Dim("length", min=2, max=64)
    dims = {0: batch, 1: length} if name in DYNAMIC_LENGTH else {0: batch}
    shapes = tuple(dict(dims) for _ in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, inputs, dynamic_shapes=(shapes,) if _packs(module) else shapes)
    return from_exported(exported)


def _packs(module: nn.Module) -> bool:
    """Whether forward takes ``*inputs``, for which export wants the shapes as one tuple."""
    return isinstance(module, huggingface.Positional)

"""Architectures written by hand, with the group kinds that a person would expect, written down before anything ran."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.coverage import combined, convolutional, dense_prediction, sequential
from benchmarks.coverage.pretrained import CNN, TRANSFORMER

CHANNELS = frozenset({"channels"})
# A recurrent layer's gates and states are not analysed: its weights stay whole, only the head is free.
HEAD = frozenset({"ffn"})


@dataclass(frozen=True)
class ByHand:
    """One architecture: how it is made, the shapes of its inputs per sample (none: a number each; ``ids``: tokens)."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...] | str, ...]
    expected: frozenset[str]

    def batch(self) -> tuple[Tensor, ...]:
        """Inputs for two samples."""
        generator = torch.Generator().manual_seed(1)
        return tuple(
            torch.randint(0, 50, (2, 12), generator=generator)
            if isinstance(shape, str)
            else torch.rand((2, *shape), generator=generator)
            for shape in self.inputs
        )


_IMAGE = ((3, 32, 32),)
_SMALL = ((3, 16, 16),)
_FEATURES = ((12, 10),)
_IDS = ("ids",)

ENTRIES = (
    ByHand("vgg", convolutional.VGG, _IMAGE, CHANNELS | {"ffn"}),
    ByHand("squeezenet", convolutional.SqueezeNet, _IMAGE, CHANNELS),
    ByHand("inception", convolutional.Inception, _IMAGE, CHANNELS),
    ByHand("densenet", convolutional.DenseNet, _IMAGE, CHANNELS),
    ByHand("shufflenet", convolutional.ShuffleNet, _IMAGE, CNN),
    ByHand("resnext", convolutional.ResNeXt, _IMAGE, CNN),
    ByHand("mobilenet_v3", convolutional.MobileNetV3, _IMAGE, CNN),
    ByHand("ghostnet", convolutional.GhostNet, _IMAGE, CNN),
    ByHand("selective_kernel", convolutional.SelectiveKernelNet, _IMAGE, CNN),
    ByHand("unet", dense_prediction.UNet, _IMAGE, CHANNELS),
    ByHand("pixel_shuffle", dense_prediction.SuperResolution, _SMALL, CNN),
    ByHand("residual_in_residual", dense_prediction.ResidualInResidual, _SMALL, CNN),
    ByHand("detector", dense_prediction.Detector, _IMAGE, CNN),
    ByHand("feature_pyramid", dense_prediction.FeaturePyramid, _IMAGE, CNN),
    ByHand("pre_norm", sequential.PreNorm, _IMAGE, TRANSFORMER),
    ByHand("post_norm", sequential.PostNorm, _FEATURES, TRANSFORMER),
    ByHand("swiglu", sequential.SwiGluTransformer, _IDS, TRANSFORMER),
    ByHand("tied_embedding", sequential.TiedEmbedding, _IDS, TRANSFORMER),
    ByHand("parallel_block", sequential.ParallelTransformer, _IDS, TRANSFORMER),
    ByHand("einsum", sequential.EinsumTransformer, _FEATURES, TRANSFORMER),
    ByHand("mlp_mixer", sequential.MlpMixer, _IMAGE, frozenset({"ffn", "hidden", "blocks"})),
    ByHand("lstm", partial(sequential.Recurrent, "LSTM"), _IDS, HEAD),
    ByHand("gru", partial(sequential.Recurrent, "GRU"), _IDS, HEAD),
    ByHand("two_inputs", combined.TwoInputs, ((3, 32, 32), (6,)), CHANNELS | {"ffn"}),
    ByHand("encoder_decoder", combined.EncoderDecoder, ("ids", "ids"), TRANSFORMER),
    ByHand("conformer", combined.SpeechEncoder, _FEATURES, TRANSFORMER | {"channels"}),
    ByHand("diffusion_transformer", combined.DiffusionTransformer, ((3, 32, 32), ()), TRANSFORMER),
)

"""Twenty architectures of `transformers` at sizes that people deploy, for predictions that no fit has seen."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.building import Flat, quiet

_TEXT = dict(vocab_size=4000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
_VIT = dict(image_size=96, patch_size=16, hidden_size=192, num_hidden_layers=6, num_attention_heads=3,
            intermediate_size=768)  # fmt: skip

ARCHITECTURES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "resnet18": (
        "ResNet",
        96,
        dict(embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2], layer_type="basic"),
    ),
    "resnet50": ("ResNet", 96, dict(embedding_size=32, hidden_sizes=[64, 128, 256, 512], depths=[3, 4, 6, 3])),
    "regnet": (
        "RegNet",
        96,
        dict(embedding_size=32, hidden_sizes=[32, 64, 160, 384], depths=[1, 3, 5, 2], groups_width=16),
    ),
    "mobilenet_v1": ("MobileNetV1", 128, dict(depth_multiplier=0.5)),
    "mobilenet_v2": ("MobileNetV2", 128, dict(depth_multiplier=0.75)),
    "mobilenet_v2_wide": ("MobileNetV2", 96, dict(depth_multiplier=1.4)),
    "efficientnet": ("EfficientNet", 96, dict(width_coefficient=0.75, depth_coefficient=0.75, hidden_dim=960)),
    "convnext": ("ConvNext", 64, dict(hidden_sizes=[48, 96, 192], depths=[2, 2, 4], num_stages=3)),
    "convnext_v2": ("ConvNextV2", 64, dict(hidden_sizes=[40, 80, 160], depths=[2, 2, 4], num_stages=3)),
    "poolformer": ("PoolFormer", 96, dict(depths=[2, 2, 4, 2], hidden_sizes=[32, 64, 160, 256])),
    "vit": ("ViT", 0, _VIT),
    "deit": ("DeiT", 0, dict(_VIT, hidden_size=256, num_attention_heads=4, intermediate_size=1024)),
    "segformer": ("Segformer", 96, dict(depths=[2, 2, 2, 2], hidden_sizes=[32, 64, 128, 192])),
    "bert": ("Bert", -64, _TEXT),
    "bert_wide": ("Bert", -32, dict(_TEXT, hidden_size=384, num_attention_heads=12, intermediate_size=1536)),
    "roberta": ("Roberta", -48, dict(_TEXT, num_hidden_layers=3, pad_token_id=0)),
    "distilbert": ("DistilBert", -64, dict(vocab_size=4000, dim=320, n_layers=4, n_heads=5, hidden_dim=1280)),
    "electra": ("Electra", -64, dict(_TEXT, embedding_size=128)),
    "albert": ("Albert", -64, dict(_TEXT, embedding_size=64, hidden_size=312, num_attention_heads=12)),
    "squeezebert": ("SqueezeBert", -64, dict(_TEXT, embedding_size=256)),
}
"""Prefix of the classes, side of the image (0: the config's) or minus the number of tokens, arguments of the config."""


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module in evaluation mode, with the weights that its initialisation gives, and inputs for a batch of 2."""
    prefix, size, arguments = ARCHITECTURES[name]
    with quiet():
        import transformers

        config = getattr(transformers, f"{prefix}Config")(num_labels=10, **arguments)
        kind = "SequenceClassification" if size < 0 else "ImageClassification"
        model = getattr(transformers, f"{prefix}For{kind}")(config).eval()
    if size < 0:
        ids = torch.randint(1, 4000, (2, -size))
        return Flat(model, ("input_ids", "attention_mask"), {}).eval(), (ids, torch.ones_like(ids))
    side = size or arguments["image_size"]
    return Flat(model, ("pixel_values",), {}).eval(), (torch.randn(2, 3, side, side),)

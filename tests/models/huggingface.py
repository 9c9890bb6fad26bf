"""Small `transformers` models built from their configs, with flat tensor inputs and a single tensor out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Positional(nn.Module):
    """Takes inputs by position under ``names`` and returns the output called ``output``."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], output: str = "logits", **fixed: Any) -> None:
        super().__init__()
        self.model = model
        self.names, self.output, self.fixed = names, output, fixed

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)[self.output]
        return result


@contextmanager
def quiet() -> Iterator[None]:
    """Importing `transformers` warns and logs about optional libraries that do not matter here."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def convnext() -> nn.Module:
    """Liu et al., 2022: depthwise 7x7, layer norm over channels last, layer scale."""
    with quiet():
        from transformers import ConvNextConfig, ConvNextForImageClassification

        config = ConvNextConfig(
            num_channels=3, patch_size=4, num_stages=3, hidden_sizes=[16, 24, 32], depths=[1, 2, 1], num_labels=10
        )
        return Positional(ConvNextForImageClassification(config), ("pixel_values",))


def vit(attention: str = "sdpa") -> nn.Module:
    """Dosovitskiy et al., 2021; ``attention`` is sdpa or eager (written out)."""
    with quiet():
        from transformers import ViTConfig, ViTForImageClassification

        config = ViTConfig(
            image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, num_labels=10, attn_implementation=attention,
        )  # fmt: skip
        return Positional(ViTForImageClassification(config), ("pixel_values",))


def bert(attention: str = "sdpa") -> nn.Module:
    """Devlin et al., 2019: sequence classification with an attention mask and token types."""
    with quiet():
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64, num_labels=3, attn_implementation=attention,
        )  # fmt: skip
        names = ("input_ids", "attention_mask", "token_type_ids")
        return Positional(BertForSequenceClassification(config), names)


def distilbert() -> nn.Module:
    """Sanh et al., 2019."""
    with quiet():
        from transformers import DistilBertConfig, DistilBertForSequenceClassification

        config = DistilBertConfig(
            vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64, num_labels=2,
            attn_implementation="sdpa",
        )  # fmt: skip
        return Positional(DistilBertForSequenceClassification(config), ("input_ids", "attention_mask"))


def gpt2() -> nn.Module:
    """Radford et al., 2019: packed QKV as transposed matrices (Conv1D), tied output head."""
    with quiet():
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64, attn_implementation="sdpa", bos_token_id=1,
            eos_token_id=2,
        )  # fmt: skip
        return Positional(GPT2LMHeadModel(config), ("input_ids",), use_cache=False)


def llama() -> nn.Module:
    """Touvron et al., 2023: rotary embedding, grouped-query attention (4 heads over 2), gated feed-forward."""
    with quiet():
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=48, max_position_embeddings=64, attn_implementation="sdpa", pad_token_id=0,
            bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return Positional(LlamaForCausalLM(config), ("input_ids", "attention_mask"), use_cache=False)


def text_inputs(vocabulary: int, *, mask: bool = True, types: bool = False) -> tuple[Tensor, ...]:
    """Token ids (2, 16), a mask whose second row ends in padding, token types."""
    generator = torch.Generator().manual_seed(1)
    values = [torch.randint(3, vocabulary, (2, 16), generator=generator)]
    if mask:
        values.append(torch.tensor([[1] * 16, [1] * 11 + [0] * 5]))
    if types:
        values.append(torch.tensor([[0] * 8 + [1] * 8] * 2))
    return tuple(values)

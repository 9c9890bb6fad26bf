"""Builds the modules and inputs behind the entries."""

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage import byhand, pretrained
from benchmarks.coverage.byhand import ByHand
from benchmarks.coverage.pretrained import Entry
from tests.models.weights import randomize

Architecture = Entry | ByHand

MODULES = {
    "BartEncoder": "transformers.models.bart.modeling_bart",
    "WhisperEncoder": "transformers.models.whisper.modeling_whisper",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Importing `transformers` warns and logs about optional libraries that do not matter here."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


class Flat(nn.Module):
    """Takes tensors by position and returns the tensors of the output's first field."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], fixed: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.names, self.fixed = model, names, fixed

    def forward(self, *inputs: Tensor) -> Tensor:
        result = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        first: Tensor = result[0]
        return first


def inputs_of(kind: str) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Argument names and a batch of two for one kind of input."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 90, (2, 16), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    floats = {
        "image": ("pixel_values", (2, 3, 32, 32)),
        "image64": ("pixel_values", (2, 3, 64, 64)),
        "waveform": ("input_values", (2, 800)),
        "mel": ("input_features", (2, 16, 64)),
        "spectrogram": ("input_values", (2, 32, 16)),
    }
    if kind == "ids":
        return ("input_ids",), (ids,)
    if kind == "text":
        return ("input_ids", "attention_mask"), (ids, mask)
    name, shape = floats[kind]
    return (name,), (torch.rand(shape, generator=generator),)


def architectures() -> dict[str, Architecture]:
    """All entries by name, in the order of the table."""
    return {entry.name: entry for entry in (*pretrained.ENTRIES, *byhand.ENTRIES)}


def build(entry: Architecture, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module in eval mode, with weights that hide nothing, and a batch of two."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, inputs = (entry.make(), entry.batch()) if isinstance(entry, ByHand) else _pretrained(entry)
        return randomize(module, seed), inputs


def _pretrained(entry: Entry) -> tuple[nn.Module, tuple[Tensor, ...]]:
    with quiet():
        transformers = importlib.import_module("transformers")
        config = getattr(transformers, entry.config)(**entry.arguments)
        owner = importlib.import_module(MODULES.get(entry.model, "transformers"))
        model = getattr(owner, entry.model)(config)
    names, inputs = inputs_of(entry.inputs)
    fixed: dict[str, Any] = {"use_cache": False} if "Causal" in entry.model or "LMHead" in entry.model else {}
    return Flat(model, names, fixed), inputs

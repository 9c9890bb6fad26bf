"""Small teachers with the inputs that data comes for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compactor.frontend import export
from compactor.ir.program import DynamicDim, Program

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "film", "and", "so", "is", "it"]


class _TextClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS), 8)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        weight = attention_mask.unsqueeze(-1).float()
        return self.head((self.table(input_ids) * weight).sum(1) / weight.sum(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def images() -> Program:
    """A classifier of 3x8x8 images into cat, dog and owl."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    return export(module, torch.zeros(1, 3, 8, 8), meta={"labels": ["dog", "cat", "owl"]})


@pytest.fixture(scope="session")
def features() -> Program:
    """A classifier of 5 features into 3 classes."""
    torch.manual_seed(0)
    return export(nn.Linear(5, 3), torch.zeros(1, 5))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of a few words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    base = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    base.pre_tokenizer = WhitespaceSplit()
    base.post_processor = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)])
    names: dict[str, Any] = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.PreTrainedTokenizerFast(tokenizer_object=base, **names).save_pretrained(folder)
    return folder


def text_program(tokenizer: Path, *, dynamic: bool = True) -> Program:
    """A classifier of at most 20 tokens (nominally 12) into negative and positive."""
    torch.manual_seed(0)
    dims = {0: DynamicDim("batch")} | ({1: DynamicDim("sequence", 2, 20)} if dynamic else {})
    ids = torch.ones(2, 12, dtype=torch.long)
    meta = {"labels": ["negative", "positive"], "tokenizer": str(tokenizer)}
    inputs = {"input_ids": ids, "attention_mask": ids.clone()}
    return export(_TextClassifier(), inputs, [dims, dims], meta=meta)


@pytest.fixture(scope="session")
def texts(tokenizer: Path) -> Program:
    """The text classifier with a free sequence length."""
    return text_program(tokenizer)

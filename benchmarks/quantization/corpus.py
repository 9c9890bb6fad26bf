"""A small causal language model on the text of SST-2: its tokenizer, its blocks of tokens, its training, its scores."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import data
from benchmarks.around import Lines
from compactor import frontend, scoring
from compactor.calibration.splits import ArraySplit
from compactor.data import Batch, DataSource, Split
from compactor.frontend.exporting import export
from compactor.frontend.quiet import quiet
from compactor.ir.program import Program
from compactor.pipeline.canonical import canonical
from compactor.training import Micro, Selection, TrainConfig, fit, losses

END = "<end>"
BINS = 15
SPLITS = ("train", "dev", "test")
_BATCH = 32
_WIDTH_OF_HEADS = 32


@dataclass(frozen=True)
class Language:
    """A GPT-2 (Radford et al., 2019) with tied embeddings, and how it is trained: all that decides the teacher."""

    vocabulary: int = 8192
    length: int = 32
    width: int = 128
    layers: int = 4
    epochs: int = 2
    lr: float = 2e-3
    seed: int = 0

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Options of the command line for its fields, as ``--teacher-NAME``."""
        for name, value in asdict(Language()).items():
            parser.add_argument(f"--teacher-{name}", type=type(value), default=value, help="of the language model")

    @staticmethod
    def of(options: argparse.Namespace) -> "Language":
        """As the command line has it."""
        return Language(**{name: getattr(options, f"teacher_{name}") for name in asdict(Language())})

    def folder(self, work: Path) -> Path:
        """Where it is kept, made."""
        path = work / "-".join(f"{name}{value:g}" for name, value in asdict(self).items())
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class NextToken:
    """The objective of a language model: cross-entropy with the next token."""

    split: Split
    key: str = "next token"

    def batch(self, micro: Micro) -> Batch:
        """The blocks of a micro-batch."""
        return self.split.take(micro.indices)

    def loss(self, module: nn.Module, batch: Batch, micro: Micro) -> Tensor:
        """Mean over all tokens."""
        assert batch.labels is not None
        return losses.hard(module(*batch.inputs)[0], batch.labels)


def prepared(language: Language, work: Path) -> tuple[Program, DataSource]:
    """The trained teacher and its data, labelled with the next token; made once per folder."""
    folder = language.folder(work)
    source = blocks(language, data.shared() / "data" / "sst2", folder)
    path = folder / "teacher.pt2"
    if not path.exists():
        trained(language, source, folder).save(path)
    return canonical(frontend.load(path)), source


# -- text --------------------------------------------------------------------------------------------------------------


def blocks(language: Language, texts: Path, folder: Path) -> DataSource:
    """The texts end to end, cut into blocks (N, length); labels (N, length) are the next tokens."""
    read = {name: _texts(texts / f"{name}.tsv") for name in SPLITS}
    tokenizer = _tokenizer(read["train"], language.vocabulary, folder / "tokenizer.json")
    return DataSource(*(_blocks(read[name], tokenizer, language.length) for name in SPLITS))


def _texts(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [line.rsplit("\t", 1)[0].strip() for line in lines]


def _tokenizer(texts: Sequence[str], vocabulary: int, path: Path) -> Any:
    """Byte-level BPE (Sennrich et al., 2016) of the training text. Raises `SystemExit` for too little text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if not path.exists():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator(texts, trainer)
        if made.get_vocab_size() != vocabulary:
            raise SystemExit(f"the text makes {made.get_vocab_size()} tokens; give at most so many")
        made.save(str(path))
    return Tokenizer.from_file(str(path))


def _blocks(texts: Sequence[str], tokenizer: Any, length: int) -> ArraySplit:
    end = tokenizer.token_to_id(END)
    tokens = torch.tensor([token for text in tokenizer.encode_batch(list(texts)) for token in (*text.ids, end)])
    count = (len(tokens) - 1) // length
    inputs, labels = (tokens[start : start + count * length].view(count, length) for start in (0, 1))
    return ArraySplit((inputs,), (torch.int64,), labels)


# -- model -------------------------------------------------------------------------------------------------------------


class _Logits(nn.Module):
    """The logits alone of a model of `transformers`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def untrained(language: Language) -> Program:
    """The model with random weights, for blocks of one length: every token has its logits (N, length, vocabulary)."""
    with quiet(), torch.random.fork_rng(devices=[]):
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(language.seed)
        config = GPT2Config(
            vocab_size=language.vocabulary, n_positions=language.length, n_embd=language.width,
            n_layer=language.layers, n_head=max(1, language.width // _WIDTH_OF_HEADS), resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, attn_implementation="sdpa",
        )  # fmt: skip
        model = _Logits(GPT2LMHeadModel(config))
    ids = torch.arange(2 * language.length).view(2, -1) % language.vocabulary
    return canonical(export(model, {"input_ids": ids}))


def trained(language: Language, source: DataSource, folder: Path) -> Program:
    """The model at its epoch with the least loss on ``dev``."""
    program = untrained(language)
    config = TrainConfig(
        epochs=language.epochs, batch=_BATCH, lr=language.lr, weight_decay=0.01, clip=1.0, seed=language.seed
    )
    result = fit(
        program.module(train=True), NextToken(source.train), source.train, config, folder, name="teacher",
        selection=Selection(lambda state: -scores(program.with_state(state), source.dev)["perplexity"]),
        progress=Lines(),
    )  # fmt: skip
    return program.with_state(result.state)


# -- scores ------------------------------------------------------------------------------------------------------------


def scores(run: scoring.Run, split: Split, batch: int = 64) -> dict[str, float]:
    """Perplexity; accuracy and expected calibration error in percent, of the next token."""
    loss, confidences, hits = 0.0, [], []
    for samples in scoring.batches(split, batch):
        assert samples.labels is not None
        known = scoring.logits(run, samples.inputs).float().log_softmax(-1)
        loss += float(losses.hard(known, samples.labels)) * samples.labels.numel()
        best = known.max(-1)
        confidences.append(best.values.exp().flatten())
        hits.append((best.indices == samples.labels).flatten())
    sure, right = torch.cat(confidences), torch.cat(hits)
    return {
        "perplexity": float(torch.tensor(loss / len(right)).exp()),
        "accuracy": 100 * float(right.float().mean()),
        "ece": calibration_error(sure, right),
    }


def calibration_error(confidences: Tensor, hits: Tensor, bins: int = BINS) -> float:
    """Percent: mean distance of confidence (M,) and accuracy over bins of like confidence, by their samples.

    Guo et al., 2017 (arXiv 1706.04599), section 2.
    """
    which = (confidences * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, hits.double() - confidences.double())
    return 100 * float(gaps.abs().sum() / len(confidences))

"""Tables of text: tokenized once, padded per batch, labels by name or number."""

import time
from pathlib import Path

import pytest
import torch

from compactor.calibration import files
from compactor.calibration.splits import Part, TextSplit
from compactor.errors import InputError
from compactor.ir.program import Program
from tests.calibration.conftest import text_program

HEADER = "sentence\tlabel\n"
ROWS = ["a good film\tpositive", 'so "bad\tnegative', "it is so good and so bad and so good and so bad\t1", "film\t0"]


def _table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def _source(tmp_path: Path, program: Program) -> files.DataSource:
    for name in ("train", "dev"):
        _table(tmp_path / f"{name}.tsv", HEADER + "\n".join(ROWS) + "\n")
    return files.open(str(tmp_path), program, 0)


def test_batches_are_as_long_as_they_need(texts: Program, tmp_path: Path) -> None:
    source = _source(tmp_path, texts)
    short, long = source.train.take(torch.tensor([3, 0])), source.train.take(torch.tensor([2, 1]))
    assert short.inputs[0].tolist()[0] == [2, 7, 3, 0, 0, 0, 0, 0]
    assert short.inputs[1].sum(1).tolist() == [3, 5]
    assert long.inputs[0].shape == (2, 12)  # cut at the nominal length, and not beyond it by rounding
    assert int(long.inputs[0][0, -1]) == 3
    assert short.labels is not None
    assert torch.cat([short.labels, source.train.take(torch.tensor([2, 1])).labels]).tolist() == [0, 1, 1, 0]  # type: ignore[list-item]
    assert texts(*long.inputs).shape == (2, 2)
    assert source.calibration(4, 0).inputs[0].shape == (4, 12)


def test_padding_does_not_change_the_answer(texts: Program, tmp_path: Path) -> None:
    source = _source(tmp_path, texts)
    alone = texts(*source.train.take(torch.tensor([3])).inputs)
    among = texts(*source.train.take(torch.tensor([2, 3])).inputs)
    torch.testing.assert_close(alone[0], among[1])


def test_static_sequences_are_always_full(tokenizer: Path, tmp_path: Path) -> None:
    source = _source(tmp_path, text_program(tokenizer, dynamic=False))
    assert source.train.take(torch.tensor([3])).inputs[0].shape == (1, 12)


def test_lengths_are_told_where_padding_follows_them(texts: Program, tokenizer: Path, tmp_path: Path) -> None:
    train = _source(tmp_path, texts).train
    assert isinstance(train, TextSplit) and train.lengths is not None
    assert [int(train.take(torch.tensor([i])).inputs[1].sum()) for i in range(4)] == train.lengths.tolist()
    part = Part(train, torch.tensor([2, 0]))
    assert part.lengths is not None and part.lengths.tolist() == train.lengths[[2, 0]].tolist()
    static = _source(tmp_path, text_program(tokenizer, dynamic=False)).train
    assert isinstance(static, TextSplit) and static.lengths is None


def test_pairs_commas_and_no_labels(texts: Program, tmp_path: Path) -> None:
    path = _table(tmp_path / "p.csv", 'sentence1,sentence2\n"good, bad",film\nso,is\nit,a\n')
    source = files.open(path, texts, 0)
    assert not source.train.labelled
    assert len(source.train) + len(source.dev) == 3
    whole = source.train.whole  # type: ignore[attr-defined]
    assert whole.take(torch.tensor([1])).inputs[0].tolist()[0][:6] == [2, 9, 3, 10, 3, 0]


def test_fingerprint_follows_content_and_length(texts: Program, tokenizer: Path, tmp_path: Path) -> None:
    first = _source(tmp_path, texts).fingerprint
    assert _source(tmp_path, texts).fingerprint == first
    assert _source(tmp_path, text_program(tokenizer, dynamic=False)).fingerprint != first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sentence\tlabel\nfilm\t1\nfilm\tneutral\n", "line 3: label 'neutral' is not a number"),
        ("sentence\tlabel\nfilm\t1\nfilm\t2\n", "line 3: label 2, but the teacher has 2 logits"),
        ("phrase\tlabel\nfilm\t1\n", "has columns phrase, label"),
        ("sentence\tlabel\nfilm\t1\nfilm\n", "line 3: 1 fields, the header has 2"),
        ("sentence\tlabel\n", "is empty: 1 lines"),
    ],
)
def test_misfits(text: str, words: str, texts: Program, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        files.open(_table(tmp_path / "train.tsv", text), texts, 0)


def test_other_programs(features: Program, texts: Program, tmp_path: Path) -> None:
    path = _table(tmp_path / "train.tsv", HEADER + "film\t1\nfilm\t0\n")
    with pytest.raises(InputError, match="no tokenizer"):
        files.open(path, features, 0)
    with pytest.raises(InputError, match="takes input, not tokens"):
        files.open(path, features.evolve(meta=texts.meta), 0)
    (tmp_path / "train.tsv").write_bytes(b"sentence\n\xff\xfe\n")
    with pytest.raises(InputError, match="not a UTF-8 table"):
        files.open(path, texts, 0)


@pytest.mark.slow
def test_sst2_loads_fast_and_scores_as_known(shared: Path) -> None:
    from compactor.frontend import load

    teacher = load(shared / "teachers" / "sst2-minilm")
    start = time.perf_counter()
    source = files.open(str(shared / "data" / "sst2"), teacher, 0)
    assert time.perf_counter() - start < 60
    assert source.test is not None
    assert (len(source.train), len(source.dev), len(source.test)) == (67349, 872, 1821)
    right = 0
    for start_row in range(0, 872, 109):
        batch = source.dev.take(torch.arange(start_row, start_row + 109))
        assert batch.labels is not None
        right += int((teacher(*batch.inputs).argmax(1) == batch.labels).sum())  # type: ignore[union-attr]
    assert round(100 * right / 872, 2) == 89.56

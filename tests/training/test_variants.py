"""Variants of samples: functions of seed and index, whatever the batch, made of what is there."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.calibration.splits import TextSplit
from compactor.training.neighbours import NEAREST, neighbours
from compactor.training.schedule import noise
from compactor.training.variants import Mixed, Reworded, boxes
from tests.training.samples import Tensors, blobs

START, END, PAD = 1, 2, 0


def sentences(samples: int = 40, seed: int = 0) -> TextSplit:
    """Sequences of 4 to 12 tokens 3 to 29 between two marks, of one type each, with a mask."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.randint(4, 13, (samples,), generator=random)
    texts = [torch.randint(3, 30, (n,), generator=random).tolist() for n in sizes.tolist()]
    flat = torch.tensor([t for text in texts for t in (START, *text, END)], dtype=torch.int32)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (sizes + 2).cumsum(0)])
    return TextSplit(
        names=("input_ids", "attention_mask"), tokens={"input_ids": flat}, offsets=offsets, pads={"input_ids": PAD},
        length=16, dynamic=True, labels=torch.zeros(samples, dtype=torch.int64),
    )  # fmt: skip


def embedding() -> Tensor:
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(3))


def reworded(folder: Path, split: TextSplit, copies: int = 2, seed: int = 0) -> Reworded:
    near = neighbours(embedding(), split, 0, folder)
    return Reworded(split, copies, seed, near, tokens=0, mask=1, sequences=(0, 1))


def test_samples_come_first_and_as_they_are() -> None:
    split = blobs(20, 0)
    mixed = Mixed(split, 2, seed=0)
    assert len(mixed) == 60 and not mixed.labelled
    assert torch.equal(mixed.take(torch.arange(20)).inputs[0], split.images)
    assert mixed.take(torch.arange(60)).labels is None


def test_a_variant_is_a_function_of_seed_and_index() -> None:
    split = blobs(20, 0)
    whole = Mixed(split, 2, seed=0).take(torch.arange(60)).inputs[0]
    picked = torch.tensor([41, 3, 59, 22])
    assert torch.equal(Mixed(split, 2, seed=0).take(picked).inputs[0], whole[picked])
    assert not torch.equal(Mixed(split, 2, seed=1).take(picked).inputs[0], whole[picked])
    assert not torch.equal(whole[20:40], whole[40:])


def test_fingerprints_tell_variants_apart() -> None:
    found = {Mixed(blobs(20, d), copies, s).fingerprint for d in (0, 1) for copies in (1, 2) for s in (0, 1)}
    assert len(found) == 8


def test_images_are_means_of_two_or_pasted_from_two() -> None:
    split = blobs(30, 0)
    made = Mixed(split, 3, seed=0).take(torch.arange(30, 120)).inputs[0]
    assert made.min() >= 0 and made.max() <= 1
    own = split.images.repeat(3, 1, 1, 1)
    untouched = (made == own).flatten(1).double().mean(1)
    assert 0.2 < float((untouched == 0).double().mean()) < 0.8  # all of it changed: mixed
    pasted = made[(untouched > 0) & (untouched < 1)]
    known = {round(v, 6) for v in split.images.flatten().tolist()}
    assert len(pasted) > 10 and all(round(v, 6) in known for v in pasted.flatten().tolist())


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(4, 40), st.integers(4, 40))
def test_boxes_cover_their_share_where_they_fit(area: float, height: int, width: int) -> None:
    box = boxes(torch.tensor([area]), torch.tensor([0.5]), torch.tensor([0.5]), height, width)
    assert abs(float(box.double().mean()) - area) <= 1 / height + 1 / width + 1 / (height * width)


def test_tokens_are_replaced_by_neighbours(tmp_path: Path) -> None:
    split = sentences()
    made = reworded(tmp_path, split, copies=20)
    indices = torch.arange(40, 840)
    ids, mask = made.take(indices).inputs
    plain, plain_mask = split.take(indices % 40).inputs
    same = (mask == plain_mask).all(1) & (ids[:, 0] == START)
    inner = (plain != START) & (plain != END) & (plain_mask > 0)
    changed = (ids != plain) & inner & same[:, None]
    untouched = torch.zeros_like(changed)
    near = made.neighbours
    for row, column in changed.nonzero().tolist():
        untouched[row, column] = int(ids[row, column]) not in near[plain[row, column]].tolist()
    assert float(changed.sum() / (inner & same[:, None]).sum()) == pytest.approx(0.3, abs=0.2)
    assert float(untouched.sum() / changed.sum()) < 0.4  # what was joined
    assert ((ids == START).sum(1) == 1).all() and ((ids == END).sum(1) == 1).all()
    assert (ids[mask == 0] == PAD).all() and (ids[mask > 0] != PAD).all()


def test_spans_of_two_sequences_are_joined(tmp_path: Path) -> None:
    split = sentences()
    made = reworded(tmp_path, split, copies=3)
    made.JOINED = 1.0
    ids, mask = made.take(torch.arange(40, 160)).inputs
    texts = [row[: int(m.sum())].tolist() for row, m in zip(*split.take(torch.arange(40)).inputs, strict=True)]
    for index, (row, present) in enumerate(zip(ids, mask, strict=True)):
        found, own = row[: int(present.sum())].tolist(), texts[index % 40]
        ends = range(len(own) // 2, len(found))
        assert any(
            found[:end] == own[:end] and any(t[end - len(found) :] == found[end:] for t in texts) for end in ends
        )
    assert float(mask.sum(1).double().mean()) > 1.1 * float(split.lengths.double().mean())
    assert int(mask.sum(1).max()) <= int(split.lengths.max())


def test_lengths_are_known_and_batches_no_longer(tmp_path: Path) -> None:
    made = reworded(tmp_path, sentences(), copies=5)
    for indices in torch.split(torch.argsort(made.lengths), 16):
        mask = made.take(indices).inputs[1]
        assert torch.equal(mask.sum(1), made.lengths[indices])
        assert mask.shape[1] < int(made.lengths[indices].max()) + 8


def test_sequences_of_one_length_keep_it(tmp_path: Path) -> None:
    split = Tensors(torch.randint(3, 30, (20, 6), generator=torch.Generator().manual_seed(0)), None)
    near = neighbours(embedding(), split, 0, tmp_path)
    made = Reworded(split, 3, 0, near, tokens=0, mask=None, sequences=(0,))
    made.JOINED = 1.0
    (ids,) = made.take(torch.arange(20, 80)).inputs
    plain = split.take(torch.arange(20)).inputs[0].tolist()
    assert ids.shape == (60, 6) and made.lengths is None
    for index, row in enumerate(ids.tolist()):
        own = plain[index % 20]
        assert any(row[:c] == own[:c] and any(row[c:] == t[c:] for t in plain) for c in range(1, 7))


def test_without_a_mask_no_sequence_gets_longer(tmp_path: Path) -> None:
    whole = sentences()
    split = replace(whole, names=("input_ids",))
    made = Reworded(split, 3, 0, neighbours(embedding(), split, 0, tmp_path), tokens=0, mask=None, sequences=(0,))
    assert made.lengths is None
    short = whole.lengths.argsort()[:1]
    assert made.take(short).inputs[0].shape == split.take(short).inputs[0].shape


def test_a_wider_batch_changes_no_variant(tmp_path: Path) -> None:
    made = reworded(tmp_path, sentences())
    ids, mask = made.take(torch.arange(120)).inputs
    for index in (45, 77, 119):
        (alone, present) = made.take(torch.tensor([index])).inputs
        size = int(present.sum())
        assert size == int(mask[index].sum()) and torch.equal(alone[0, :size], ids[index, :size])


def test_neighbours_are_the_nearest_of_the_data(tmp_path: Path) -> None:
    table = embedding()
    table[29] = 2 * table[28]
    found = neighbours(table, sentences(), 0, tmp_path)
    assert found.shape == (30, NEAREST) and int(found[28, 0]) == 29 and int(found[29, 0]) == 28
    assert (found[[PAD, START, END]] == -1).all()
    assert not any(token in row for token, row in enumerate(found.tolist()))
    assert not set(found.flatten().tolist()) & {PAD, START, END}


def test_neighbours_are_kept(tmp_path: Path) -> None:
    split = Tensors(torch.randint(3, 30, (20, 6), generator=torch.Generator().manual_seed(0)), None)
    first = neighbours(embedding(), split, 0, tmp_path)
    asked = split.asked
    assert torch.equal(neighbours(embedding(), split, 0, tmp_path), first) and split.asked == asked
    assert not torch.equal(neighbours(embedding().flip(0), split, 0, tmp_path), first) and split.asked > asked


def test_too_few_tokens_have_no_neighbours(tmp_path: Path) -> None:
    split = Tensors(torch.full((8, 4), 5), None)
    assert (neighbours(embedding(), split, 0, tmp_path) == -1).all()


def test_noise_is_uniform_and_depends_on_every_counter() -> None:
    values = noise(0, torch.arange(200)[:, None], torch.arange(100))
    assert values.min() >= 0 and values.max() < 1
    assert float(values.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(values.var()) == pytest.approx(1 / 12, abs=0.01)
    assert len(values.unique()) == 20000
    assert abs(float(torch.corrcoef(torch.stack([values[:-1].flatten(), values[1:].flatten()]))[0, 1])) < 0.03
    assert torch.equal(noise(0, torch.tensor([7]), torch.tensor([3])), values[7, 3:4])
    assert not torch.equal(noise(1, torch.arange(9)), noise(0, torch.arange(9)))

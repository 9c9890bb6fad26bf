"""Hidden states kept on disk: those of the teacher, without padding, computed once, mapped from files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.calibration.splits import TextSplit
from compactor.data import Split
from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.training import Micro, taps
from compactor.training.kept import Kept, Rows
from compactor.training.layerwise import Layerwise, Weights, reference, student
from compactor.training.pairing import Pair
from compactor.training.projection import HIDDEN, Guided
from compactor.training.views import Views
from tests.models import program
from tests.passes.distill.support import sliced
from tests.passes.support import Tensors
from tests.training.samples import blobs, network
from tests.training.samples import program as exported


def texts(samples: int = 24) -> TextSplit:
    """Random token sequences of 3 to 16 tokens, padded when taken."""
    random = torch.Generator().manual_seed(0)
    sizes = torch.randint(3, 17, (samples,), generator=random)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    ids = torch.randint(1, 50, (int(offsets[-1]),), generator=random, dtype=torch.int32)
    tokens = {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
    pads = dict.fromkeys(tokens, 0)
    names = ("input_ids", "attention_mask", "token_type_ids")
    return TextSplit(names, tokens, offsets, pads, 64, dynamic=True)


def made(model: Program, split: Split, folder: Path, **options: object) -> tuple[Pair, Guided, Kept]:
    pair = Pair(sliced(model), model, 2)
    teacher = reference(pair, Weights())
    return pair, teacher, Kept(pair, teacher, split, folder, **options)  # type: ignore[arg-type]


def text_case() -> tuple[Program, Split]:
    return program("bert"), texts()


def static_case() -> tuple[Program, Split]:
    model = program("packed_chunk")
    return model, Tensors(model.example_inputs(24, seed=1))


def image_case() -> tuple[Program, Split]:
    return exported(network(4)), blobs(24, 0)


@pytest.mark.parametrize("case", [text_case, static_case, image_case])
def test_kept_states_are_the_teachers(case: Callable[[], tuple[Program, Split]], tmp_path: Path) -> None:
    model, split = case()
    pair, teacher, kept = made(model, split, tmp_path)
    for indices in (torch.tensor([3, 20, 1, 7]), torch.tensor([5]), torch.arange(24)):
        inputs = split.take(indices).inputs
        found, wanted = kept(indices, 5, inputs), teacher(*inputs)
        torch.testing.assert_close(found["logits"], next(iter(wanted.values())), rtol=0.05, atol=0.05)
        for layer in pair.layers:
            ours, theirs = found[HIDDEN + layer.name].float(), wanted[HIDDEN + layer.name]
            assert ours.shape == theirs.shape
            seen = torch.ones_like(theirs[..., 0], dtype=torch.bool)
            if taps.MASK in wanted:
                seen = taps.visible(wanted[taps.MASK]).expand(len(indices), -1)
                assert torch.equal(taps.visible(found[taps.MASK]), seen)
            torch.testing.assert_close(ours[seen], theirs[seen], rtol=0.05, atol=0.05 * float(theirs.abs().max()))


def test_the_loss_is_that_of_a_teacher_in_every_step(tmp_path: Path) -> None:
    model, split = text_case()
    pair, teacher, kept = made(model, split, tmp_path)
    module = student(pair, split, Weights())
    micro = Micro(torch.tensor([3, 20, 1, 7, 9]), 0, 0, 1, 0)
    objectives = [Layerwise(pair, teacher, split, Weights(), projector="auto", kept=k) for k in (kept, None)]
    found = [o.loss(module, o.batch(micro), micro).item() for o in objectives]
    assert found[0] == pytest.approx(found[1], rel=0.02) and objectives[0].key != objectives[1].key


def test_the_teacher_runs_once_for_each_view(tmp_path: Path) -> None:
    model, split = image_case()
    views = Views(24, 1, True, seed=0)
    _, teacher, kept = made(model, split, tmp_path, views=views, count=2)
    runs = []
    teacher.register_forward_hook(lambda *_: runs.append(1))
    indices = torch.arange(4)
    shown = [kept(indices, epoch, split.take(indices).inputs)["logits"] for epoch in range(4)]
    assert len(runs) == 2
    assert torch.equal(shown[0], shown[2]) and torch.equal(shown[1], shown[3]) and not torch.equal(shown[0], shown[1])
    _, again, kept = made(model, split, tmp_path, views=views, count=2)
    again.register_forward_hook(lambda *_: pytest.fail("it is on the disk"))
    assert torch.equal(kept(indices, 1, split.take(indices).inputs)["logits"], shown[1])


def test_another_teacher_or_half_a_file_is_computed_anew(tmp_path: Path) -> None:
    model, split = image_case()
    indices, inputs = torch.arange(4), split.take(torch.arange(4)).inputs
    first = made(model, split, tmp_path)[2](indices, 0, inputs)
    other = made(exported(network(4, seed=1)), split, tmp_path)[2](indices, 0, inputs)
    assert not torch.equal(first["logits"], other["logits"])
    assert len(list(tmp_path.glob("*.outputs"))) == 2
    for states in tmp_path.glob("*/states0"):
        assert not list(states.parent.glob(".*")), "temporary files"
        states.write_bytes(b"half")
    again = made(model, split, tmp_path)[2](indices, 0, inputs)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_stopped_pass_over_the_split_leaves_nothing_that_counts(tmp_path: Path) -> None:
    class Stop:
        def update(self, done: int, total: int, text: str = "") -> None:
            raise KeyboardInterrupt

        def note(self, text: str) -> None: ...

    model, split = image_case()
    indices, inputs = torch.arange(4), split.take(torch.arange(4)).inputs
    with pytest.raises(KeyboardInterrupt):
        made(model, split, tmp_path, progress=Stop())[2](indices, 0, inputs)
    assert not list(tmp_path.glob("*/*"))
    again = made(model, split, tmp_path)[2](indices, 0, inputs)["logits"]
    torch.testing.assert_close(again, model(*inputs), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("case", [text_case, static_case, image_case])
def test_the_size_is_known_before(case: Callable[[], tuple[Program, Split]], tmp_path: Path) -> None:
    model, split = case()
    _, _, kept = made(model, split, tmp_path)
    predicted = kept.bytes()
    kept(torch.arange(2), 0, split.take(torch.arange(2)).inputs)
    states = sum(p.stat().st_size for p in tmp_path.glob("*/states*"))
    logits = 4 * len(split) * kept._known[0].logits.shape[1]
    assert predicted == pytest.approx(states + logits, rel=1e-6)


def test_samples_of_like_length_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else most of what the teacher computes is padding."""
    monkeypatch.setattr("compactor.training.kept._BATCH", 2)
    model, split = text_case()
    _, teacher, kept = made(model, split, tmp_path)
    widths: list[int] = []
    teacher.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    indices = torch.arange(24)
    found = kept(indices, 0, split.take(indices).inputs)["logits"]
    assert widths == sorted(widths) and widths.count(8) > 1 and widths[-1] == 16
    torch.testing.assert_close(found, next(iter(teacher(*split.take(indices).inputs).values())), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_cannot_be_kept(name: str, tmp_path: Path) -> None:
    """Logits for every token."""
    model = program(name)
    assert made(model, Tensors(model.example_inputs(4)), tmp_path)[2].bytes() is None


def test_padding_in_front_is_not_kept(tmp_path: Path) -> None:
    """It would move the positions from batch to batch."""
    model = program("bert")
    inputs = list(model.example_inputs(4))
    inputs[1] = torch.ones_like(inputs[1])
    assert made(model, Tensors(tuple(inputs)), tmp_path)[2].bytes() is not None
    inputs[1][2, :3] = 0
    assert made(model, Tensors(tuple(inputs)), tmp_path)[2].bytes() is None


def test_states_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model, split = image_case()
    broken = model.with_state({k: v * float("inf") for k, v in model.state.items() if k.endswith("weight")})
    pair = Pair(sliced(model), broken, 2)
    kept = Kept(pair, reference(pair, Weights()), split, tmp_path)
    with pytest.raises(InputError, match="hidden states hold NaN"):
        kept(torch.arange(2), 0, split.take(torch.arange(2)).inputs)
    assert not list(tmp_path.glob("*/*"))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=8), positions=st.integers(1, 8), data=st.data())
def test_rows_of_any_length(counts: list[int], positions: int, data: st.DataObject) -> None:
    offsets = torch.tensor([0, *counts]).cumsum(0)
    values = torch.arange(int(offsets[-1])).float()[:, None].expand(-1, 3).contiguous()
    indices = torch.tensor(data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1, max_size=5)))
    taken, inside = Rows(values, offsets[:-1], offsets.diff()).take(indices, positions)
    for row, mask, i in zip(taken[..., 0].tolist(), inside.tolist(), indices.tolist(), strict=True):
        own: list[float] = Tensor.tolist(values[offsets[i] : offsets[i + 1], 0])
        assert row == [*own, *[own[-1]] * positions][:positions]
        assert mask == [p < len(own) for p in range(positions)]

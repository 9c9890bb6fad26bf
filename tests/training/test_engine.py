"""The training loop: it learns, resumes to the same bytes, accumulates, averages, and stops with clear errors."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compactor.errors import InputError
from compactor.training import DivergedError, Selection, TrainConfig, checkpoint, fit, optimizers
from compactor.training.engine import Result
from tests.training.samples import Labels, blobs, network, program

CONFIG = TrainConfig(epochs=4, batch=16, lr=0.05, optimizer="sgd", ema=0.9, checkpoint_seconds=0)


def run(folder: Path, config: TrainConfig = CONFIG, fail_at: int = -1, dropout: float = 0.2, **options) -> Result:
    split = blobs(96, 0)
    module = program(network(4, dropout=dropout)).module(train=True)
    return fit(module, Labels(split, fail_at=fail_at), split, config, folder, **options)


def same(first: Result, second: Result) -> bool:
    return all(torch.equal(first.state[k], second.state[k]) for k in first.state)


def test_it_learns(tmp_path: Path) -> None:
    made = program(network(4))
    split = blobs(48, 1)

    def score(state):
        found = made.with_state(state)(split.images).argmax(-1)
        return float((found == split.labels).float().mean())

    result = run(tmp_path, CONFIG.model_copy(update={"epochs": 8}), dropout=0.0, selection=Selection(score))
    assert result.score is not None and result.score > 0.9
    assert result.steps == 48 and result.epochs == 8
    assert score(result.state) == result.score == max(s for _, s in result.scores)


@given(
    scores=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    noise=st.integers(0, 10),
    least=st.integers(-1, 20),
)
@settings(max_examples=20, deadline=None)
def test_of_states_that_score_alike_the_last_counts(scores: list[int], noise: int, least: int) -> None:
    seen: list[dict[str, Tensor]] = []

    def score(state: dict[str, Tensor]) -> float:
        seen.append({k: v.clone() for k, v in state.items()})
        return scores[len(seen) - 1]

    selection = Selection(score, lambda top: noise, least)
    with TemporaryDirectory() as folder:
        config = CONFIG.model_copy(update={"epochs": 6, "ema": 0.0})
        result = run(Path(folder), config, dropout=0.0, selection=selection)
    top = max(scores)
    good = [s >= top - noise and (s >= least or s == top) for s in scores]
    last = max(i for i, wanted in enumerate(good) if wanted)
    assert result.score == scores[last]
    assert all(torch.equal(result.state[k], seen[last][k]) for k in seen[last])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    first = run(tmp_path / "a")
    assert same(first, run(tmp_path / "b"))
    assert not same(first, run(tmp_path / "c", CONFIG.model_copy(update={"seed": 1})))


class Halves(Labels):
    """The same loss in two equal summands; notes how many gradients were there when each ran."""

    def summands(self, module, batch, micro):
        self.found = []

        def half():
            self.found.append(sum(p.grad is not None for p in module.parameters()))
            return Labels.loss(self, module, batch, micro) / 2

        return [half, half]


def test_gradients_of_a_summand_are_taken_before_the_next_one_runs(tmp_path: Path) -> None:
    states, split = [], blobs(96, 0)
    made = program(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    for kind in (Labels, Halves):
        (tmp_path / kind.__name__).mkdir()
        module, objective = made.module(train=True), kind(split)
        config = CONFIG.model_copy(update={"reduced": False})
        states.append(fit(module, objective, split, config, tmp_path / kind.__name__).state)
    assert objective.found == [0, 2]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("step", [1, 6, 13, 23])
def test_resumed_equals_undisturbed(tmp_path: Path, step: int, optimizer: str) -> None:
    config = CONFIG.model_copy(update={"optimizer": optimizer, "lr": 0.01})
    for name in "ab":
        (tmp_path / name).mkdir()
    whole = run(tmp_path / "a", config)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", config, fail_at=step)
    resumed = run(tmp_path / "b", config)
    assert same(whole, resumed)
    assert whole.loss == resumed.loss


def test_a_finished_run_does_not_train_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert same(first, run(tmp_path, fail_at=0))


def test_another_configuration_starts_anew(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, CONFIG.model_copy(update={"epochs": 2})).steps == 12


KILLED = """
    import sys, torch
    from pathlib import Path
    torch.set_num_threads(1)
    sys.path.insert(0, sys.argv[2])
    from tests.training.test_engine import CONFIG, run
    result = run(Path(sys.argv[1]), CONFIG.model_copy(update={"epochs": 40}))
    torch.save(result.state, Path(sys.argv[1]) / "result.pt")
"""


@pytest.mark.slow
def test_kill_nine_and_resume_end_in_the_same_bytes(tmp_path: Path) -> None:
    def start(name: str) -> "subprocess.Popen[bytes]":
        (tmp_path / name).mkdir(exist_ok=True)
        root = str(Path(__file__).parents[2])
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / name), root])

    assert start("whole").wait() == 0
    killed = start("killed")
    while not (tmp_path / "killed" / "training.checkpoint").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert start("killed").wait() == 0
    whole, resumed = (torch.load(tmp_path / n / "result.pt") for n in ("whole", "killed"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    """Without batch norm, which sees micro-batches, four of 4 are one of 16."""
    split = blobs(96, 0)
    made = program(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    states = []
    for accumulate in (1, 4):
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        config = TrainConfig(epochs=2, batch=16, lr=0.1, optimizer="sgd", accumulate=accumulate, reduced=False)
        states.append(fit(made.module(train=True), Labels(split), split, config, folder).state)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    split = blobs(96, 0)
    made = program(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    config = TrainConfig(epochs=1, batch=96, lr=1.0, momentum=0.0, optimizer="sgd", clip=0.01, warmup=0, reduced=False)
    state = fit(made.module(train=True), Labels(split), split, config, tmp_path).state
    moved = torch.cat([(state[k] - made.state[k]).flatten() for k in state]).norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_divergence_names_step_rate_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step \d+ of 24.*learning rate(.|\n)*lr="):
        run(tmp_path, CONFIG.model_copy(update={"lr": 1e20, "warmup": 0.0}))


def test_nan_in_the_data_is_blamed_on_the_data(tmp_path: Path) -> None:
    split = blobs(96, 0)
    split.images[5, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="data of step"):
        fit(program(network(4)).module(train=True), Labels(split), split, CONFIG, tmp_path)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    split = blobs(0, 0)
    with pytest.raises(InputError, match="empty"):
        fit(program(network(4)).module(train=True), Labels(split), split, CONFIG, tmp_path)


def test_a_split_smaller_than_the_batch(tmp_path: Path) -> None:
    split = blobs(10, 0)
    assert fit(program(network(4)).module(train=True), Labels(split), split, CONFIG, tmp_path).steps == 4


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "training.checkpoint").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"training\.checkpoint(.|\n)*delete it"):
        run(tmp_path)


def test_a_checkpoint_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.checkpoint"
    checkpoint.save(path, {"key": "k", "step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, {"key": "k", "step": 2})
    assert checkpoint.load(path, "k") == {"key": "k", "step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.checkpoint"]


def test_the_time_limit_ends_the_run_with_a_note(tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes:
        def update(self, done: int, total: int, text: str = "") -> None: ...

        def note(self, text: str) -> None:
            notes.append(text)

    result = run(tmp_path, CONFIG.model_copy(update={"seconds": 1e-6}), progress=Notes())
    assert result.steps == 1 and "limit" in result.stopped and notes == [result.stopped]


def test_progress_counts_every_step(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []

    class Recorder:
        def update(self, done: int, total: int, text: str = "") -> None:
            seen.append((done, total, text))

        def note(self, text: str) -> None: ...

    run(tmp_path, progress=Recorder())
    assert [done for done, _, _ in seen] == list(range(1, 25))
    assert all(total == 24 for _, total, _ in seen) and "epoch 1/4, loss" in seen[0][2]


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    want = torch.rand(1)
    torch.manual_seed(7)
    split, module = blobs(96, 0), program(network(4)).module(train=True)
    torch.manual_seed(7)
    fit(module, Labels(split), split, CONFIG, tmp_path)
    assert torch.equal(torch.rand(1), want)


def test_parameters_with_a_rate_of_their_own(tmp_path: Path) -> None:
    """The rate stays what it is while that of the others follows the schedule."""
    module = program(network(4)).module(train=True)
    named = dict(module.named_parameters())
    name = next(iter(named))
    optimizer = optimizers.build(named.items(), CONFIG, {name: 0.5})
    optimizers.set_rate(optimizer, 0.125)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {n: rates[id(p)] for n, p in named.items()} == {n: 0.5 if n == name else 0.125 for n in named}
    assert not same(run(tmp_path, rates={name: 0.5}), run(tmp_path)), "another run, with another checkpoint"

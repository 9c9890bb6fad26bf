"""Learning rate and order of samples."""

import itertools

import torch

from compactor.training.schedule import cosine, mix, order


def test_cosine_rises_then_falls_to_zero() -> None:
    rates = [cosine(s, 100, 0.1) for s in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and rates[-1] < 1e-3


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    batches = order(100, 10, 0, 0)
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    again, other = order(100, 10, 0, 0), order(100, 10, 0, 1)
    assert torch.equal(torch.cat(batches), torch.cat(again)) and not torch.equal(torch.cat(batches), torch.cat(other))


def test_a_last_short_batch_is_left_out_and_a_small_split_is_one_batch() -> None:
    assert [len(b) for b in order(25, 10, 0, 0)] == [10, 10]
    assert [len(b) for b in order(7, 10, 0, 0)] == [7]


def test_like_lengths_share_a_batch() -> None:
    lengths = torch.randint(1, 60, (4000,), generator=torch.Generator().manual_seed(0))
    batches = order(4000, 20, 0, 0, lengths)
    assert sorted(torch.cat(batches).tolist()) == list(range(4000))
    padded = sum(int(lengths[b].max()) * len(b) for b in batches)
    assert padded < 1.1 * int(lengths.sum())
    assert [float(lengths[b].float().mean()) for b in batches[:9]] != sorted(
        float(lengths[b].float().mean()) for b in batches[:9]
    )


def test_mixed_seeds_differ() -> None:
    assert len({mix(a, b, c) for a in range(9) for b in range(9) for c in range(9)}) == 729

"""Batches and learning rates by default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor.passes.distill.recipe import NORMED_BY_BATCH, OTHERS, Recipe, batch_size, rate

RECIPES = st.sampled_from([NORMED_BY_BATCH, OTHERS])


@pytest.mark.parametrize(
    ("recipe", "samples", "batch"),
    [(OTHERS, 100, 8), (OTHERS, 67_349, 64), (OTHERS, 269_396, 128), (NORMED_BY_BATCH, 10**9, 128)],
)
def test_batches_follow_the_size_of_the_data(recipe: Recipe, samples: int, batch: int) -> None:
    assert batch_size(recipe, samples) == batch


@given(RECIPES, st.integers(1, 10**7))
def test_more_data_never_means_smaller_batches(recipe: Recipe, samples: int) -> None:
    assert batch_size(recipe, samples) <= batch_size(recipe, samples + 1)


@given(RECIPES, st.integers(1, 512))
def test_the_rate_is_at_least_that_of_the_recipe(recipe: Recipe, batch: int) -> None:
    assert rate(recipe, batch) >= recipe.lr
    assert rate(recipe, recipe.batch) == recipe.lr


def test_four_times_the_batch_is_twice_the_rate_for_adam() -> None:
    assert rate(OTHERS, 4 * OTHERS.batch) == pytest.approx(2 * OTHERS.lr)
    assert rate(NORMED_BY_BATCH, 4 * NORMED_BY_BATCH.batch) == NORMED_BY_BATCH.lr

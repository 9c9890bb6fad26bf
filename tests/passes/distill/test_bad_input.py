"""What every distilling pass says of data and settings that it cannot use."""

from pathlib import Path
from typing import Any

import pytest

from compactor.errors import InputError
from compactor.passes.distill.assistant import AssistantDistillation
from compactor.passes.distill.layerwise import LayerwiseDistillation
from compactor.passes.distill.logits import LogitsDistillation
from compactor.passes.distill.student import StudentPass
from compactor.passes.distill.ted import TaskAwareDistillation
from compactor.training import DivergedError
from tests.passes.distill.support import context, encoder, sequences, sliced

PASSES = [LogitsDistillation, LayerwiseDistillation, TaskAwareDistillation, AssistantDistillation]


def distil(which: type[StudentPass], folder: Path, samples: int, **options: Any) -> None:
    ctx = context(encoder(), sequences(encoder(), labelled=False, samples=samples), folder)
    which(which.Config(**options)).run(sliced(encoder()), ctx)


@pytest.mark.parametrize("which", PASSES)
def test_less_data_than_a_batch(which: type[StudentPass], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"24 training samples are fewer than one batch of 32(.|\n)*smaller batch="):
        distil(which, tmp_path, 24, batch=32)
    with pytest.raises(InputError, match="5 training samples are fewer than one batch of 8"):
        distil(which, tmp_path, 5)


@pytest.mark.parametrize("which", PASSES)
def test_a_diverging_loss_names_step_rate_and_remedy(which: type[StudentPass], tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"step \d+ of \d+(.|\n)*learning rate \S+e\+\d+(.|\n)*lower the learning rate"
    ):
        distil(which, tmp_path, 32, batch=8, lr=1e30, epochs=2)

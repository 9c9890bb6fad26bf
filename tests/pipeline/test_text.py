"""`Pipeline`: validated configs from text, and text from configs."""

import pytest

from compactor.errors import UsageError
from compactor.pipeline import text
from compactor.pipeline.passes import PassConfig
from compactor.pipeline.text import Pipeline
from tests.pipeline.support import Scale


@pytest.fixture(autouse=True)
def _toy_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.registry, "names", lambda group: ["toy.scale", "toy.shift"])
    monkeypatch.setattr(text.registry, "load", lambda group, name: Scale)


def test_round_trip() -> None:
    written = "toy.scale,toy.scale{factor=0.5}"
    pipeline = Pipeline.parse(f" {written.replace(',', ' , ')} ")
    assert str(pipeline) == written
    assert [p.config.factor for p in pipeline] == [2.0, 0.5]
    assert pipeline.names == ["toy.scale", "toy.scale"] and len(pipeline) == 2


def test_configs_are_frozen() -> None:
    config: PassConfig = Pipeline.parse("toy.scale").passes[0].config
    with pytest.raises(ValueError, match="frozen"):
        config.factor = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("toy.scale,toy.scael", r"unknown pass 'toy.scael' at position 10 .*\n.*did you mean toy.scale"),
        ("nothing_like_it", r"unknown pass 'nothing_like_it' at position 0 .*\n.*known: toy.scale, toy.shift"),
        ("toy.scale{size=2}", r"unknown option 'size'\n.*factor=2.0"),
        ("toy.scale{factor=big}", r"option factor='big'"),
    ],
)
def test_refusals(written: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pipeline.parse(written)

"""`search.diswot` and `search.stored` on real small models: limits, seeds, workers, resuming, other targets."""

from dataclasses import replace
from pathlib import Path

import pytest

from compactor.budget import Budget
from compactor.errors import InputError, UsageError
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import space_of
from compactor.ir.subnet import Subnet
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.search.diswot import DiswotSearch
from compactor.passes.search.genes import Genes, Genome
from compactor.passes.search.importance import rank
from compactor.passes.search.record import FILE, Record
from compactor.passes.search.stored import StoredConfig, StoredSearch
from compactor.passes.search.study import DiswotConfig
from compactor.passes.search.uniform import UniformSearch
from compactor.pipeline.context import PassContext
from compactor.pipeline.passes import PassResult
from compactor.pipeline.request import resolve_target
from tests.models import program
from tests.passes.support import context, error

SHORT = {"candidates": 24, "population": 12, "samples": 6, "inits": 1, "workers": 1}


def teacher(name: str = "resnet_a") -> Program:
    """A canonical teacher."""
    return canonical(program(name))[0]


def around(model: Program, folder: Path, target: str = "raspberry-pi-5", latency: str | None = None) -> PassContext:
    """A context on a device that is predicted."""
    folder.mkdir(exist_ok=True)
    return replace(context(model, folder, budget=Budget(latency=latency)), target=resolve_target(target))


def search(model: Program, ctx: PassContext, **options: object) -> PassResult:
    """A short search."""
    return DiswotSearch(DiswotConfig.model_validate({**SHORT, **options})).run(model, ctx)


@pytest.mark.parametrize("name", ["resnet_a", "mobilenet_v2", "bert", "vit"])
def test_the_student_meets_the_goal_and_keeps_weights(name: str, tmp_path: Path) -> None:
    model = teacher(name)
    ctx = around(model, tmp_path)
    result = search(model, ctx)
    found = result.metrics
    assert found["latency_ms"] <= found["goal_ms"] and result.modified
    space, record = space_of(model), Record.read(tmp_path)
    latencies = [
        min(ctx.target.predict(space.kernels(record.genome.subnet(m.genes)), p).p50 for p in ctx.target.precisions)
        for m in record.members
    ]
    assert max(latencies) <= found["goal_ms"] + 1e-4, "every candidate, not only the winner"
    student = slice_program(model, Subnet.from_dict(found["subnet"]))
    assert error(student, result.program) == 0
    assert result.program.cost().macs == found["macs"] and result.program.cost().parameters == found["parameters"]


def test_wider_students_are_searched_and_compute_what_narrower_ones_do(tmp_path: Path) -> None:
    model = teacher()
    result = search(model, around(model, tmp_path), wider=3.0, score="params", candidates=60)
    space, members = space_of(model), Record.read(tmp_path).members
    sizes = [g.size for g in space.groups]
    wide = [m.genes for m in members if any(n > size for n, size in zip(m.genes.kept, sizes, strict=True))]
    assert wide and all(n <= 3 * size for g in wide for n, size in zip(g.kept, sizes, strict=True))
    assert result.metrics["latency_ms"] <= result.metrics["goal_ms"]
    genome = Record.read(tmp_path).genome
    widened = genome.subnet(Genes(tuple(2 * size for size in sizes), (0,) * len(genome.classes)))
    assert error(model, slice_program(model, widened)) < 1e-4
    narrow = search(model, around(model, tmp_path / "never"), wider=1.0)
    kept = [m.genes.kept for m in Record.read(tmp_path / "never").members]
    assert narrow.modified and all(n <= size for genes in kept for n, size in zip(genes, sizes, strict=True))


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_an_axis_that_a_norm_averages_over_is_not_widened(name: str, tmp_path: Path) -> None:
    model = teacher(name)
    space = space_of(model)
    importance = rank(model, space, around(model, tmp_path), samples=4, hidden=True, depth=False)
    genome = Genome.of(space, importance, smallest=0.5, multiple=8, wider=2.0)
    levels = dict(zip(importance.orders, genome.levels, strict=True))
    for group in space.groups:
        assert (levels[group.name][-1] > group.size) == (group.kind != "hidden"), group


@pytest.mark.slow
def test_workers_and_repetition_do_not_change_the_result(tmp_path: Path) -> None:
    model = teacher()
    first = search(model, around(model, tmp_path / "a"))
    again = search(model, around(model, tmp_path / "b"), workers=2)
    assert first.metrics == again.metrics
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()
    other = search(model, replace(around(model, tmp_path / "c"), seed=1))
    assert Record.read(tmp_path / "c").members != Record.read(tmp_path / "a").members
    assert other.metrics["goal_ms"] == first.metrics["goal_ms"]


def test_a_stopped_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = teacher()
    whole = search(model, around(model, tmp_path / "a"))
    folder = tmp_path / "b"
    folder.mkdir()
    record = Record.read(tmp_path / "a")
    replace(record, members=record.members[:20], summary=None).write(folder)
    scored: list[int] = []
    from compactor.passes.search import workers

    real = workers.Scorer.__call__

    def counted(self: workers.Scorer, task: workers.Task) -> tuple[float, ...]:
        scored.append(1)
        return real(self, task)

    monkeypatch.setattr(workers.Scorer, "__call__", counted)
    assert search(model, around(model, folder)).metrics == whole.metrics
    assert len(scored) == SHORT["candidates"] - 20
    assert search(model, around(model, folder), score="macs").metrics["score"] == "macs", "another search starts anew"


def test_by_macs_alone_it_is_at_least_as_good_as_uniform(tmp_path: Path) -> None:
    model = teacher()
    uniform = UniformSearch().run(model, around(model, tmp_path / "a")).metrics
    found = search(model, around(model, tmp_path / "b"), score="macs", candidates=200).metrics
    assert found["macs"] >= uniform["macs"] and found["goal_ms"] == uniform["goal_ms"]


def test_the_archive_is_a_front(tmp_path: Path) -> None:
    model = teacher()
    search(model, around(model, tmp_path), candidates=60)
    summary = Record.read(tmp_path).summary
    assert summary is not None
    rows = summary["archive"]
    assert [r["score"] for r in rows] == sorted((r["score"] for r in rows), reverse=True)
    points = [(r["score"], -r["latency_ms"], -r["bytes"], -r["macs"]) for r in rows]
    assert not any(a != b and all(x >= y for x, y in zip(a, b, strict=True)) for a in points for b in points)
    assert sum(r["chosen"] for r in rows) == 1


def test_impossible_and_unknown_requests(tmp_path: Path) -> None:
    model = teacher()
    with pytest.raises(UsageError, match="the closest"):
        search(model, around(model, tmp_path, latency="1us"))
    with pytest.raises(UsageError, match="unknown score"):
        DiswotConfig(score="accuracy")


def test_a_stored_search_serves_another_target(tmp_path: Path) -> None:
    model = teacher()
    found = search(model, around(model, tmp_path / "a", latency="60%"), candidates=60).metrics
    stored = StoredSearch(StoredConfig.model_validate({"folder": str(tmp_path / "a")}))
    same = stored.run(model, around(model, tmp_path / "b", latency="60%"))
    assert same.metrics["subnet"] == found["subnet"]
    ctx = around(model, tmp_path / "c", target="jetson-orin")
    goal = StoredSearch(StoredConfig.model_validate({"folder": str(tmp_path / "a"), "speedup": 1.5})).run(model, ctx)
    assert goal.metrics["latency_ms"] <= goal.metrics["goal_ms"]
    predicted = min(ctx.target.predict(goal.program.kernels(), p).p50 for p in ctx.target.precisions)
    assert predicted == pytest.approx(goal.metrics["latency_ms"], abs=1e-3)


def test_a_stored_search_is_of_one_teacher_and_one_content(tmp_path: Path) -> None:
    model = teacher()
    search(model, around(model, tmp_path / "a"), score="macs")
    config = StoredConfig.model_validate({"folder": str(tmp_path / "a")})
    other = teacher("resnet_b")
    with pytest.raises(InputError, match="another teacher"):
        StoredSearch(config).run(other, around(other, tmp_path / "b"))
    search(model, around(model, tmp_path / "a"), score="params")
    with pytest.raises(ValueError, match="has changed"):
        StoredConfig.model_validate(config.model_dump())
    with pytest.raises(ValueError, match="does not exist"):
        StoredConfig.model_validate({"folder": str(tmp_path / "nowhere")})

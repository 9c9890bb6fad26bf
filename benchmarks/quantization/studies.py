"""Studies on the language model of `corpus`: rows of one pass over several seeds, each kept in a file of its own."""

import argparse
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data, facts
from benchmarks.around import context, predicted
from benchmarks.quantization.corpus import Language, prepared, scores
from compactor.data import DataSource
from compactor.ir.program import Program
from compactor.pipeline.passes import Pass

EPOCHS = 2
WORK = facts.ROOT / ".compactor" / "benchmarks" / "language"


class Study:
    """The trained language model, what a build would see of its data, and the rows made so far.

    ``settings`` are the options that decide a row: rows made with others lie elsewhere.
    """

    def __init__(self, name: str, settings: Sequence[str], options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.settings = {key: getattr(options, key) for key in (*settings, "steps", "batch", "lr", "dev")}
        self.language = Language.of(options)
        self.teacher, self.source = prepared(self.language, options.work)
        told = "-".join(f"{key}{value:g}" for key, value in self.settings.items())
        self.folder = self.language.folder(options.work) / f"{name}-{told}"
        self.context = context(self.teacher, self.source, predicted(), self.folder)

    @staticmethod
    def add_options(parser: argparse.ArgumentParser, *, steps: int, lr: float) -> None:
        """What every study may be told."""
        Language.add_options(parser)
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        parser.add_argument("--steps", type=int, default=steps, help="of training, for each row and seed")
        parser.add_argument("--batch", type=int, default=16, help="blocks per step")
        parser.add_argument("--lr", type=float, default=lr)
        parser.add_argument("--dev", type=int, default=200, help="blocks that choose between states")
        parser.add_argument("--work", type=Path, default=WORK, help="an interrupted run goes on from here")
        parser.add_argument("--results", type=Path, default=facts.RESULTS)

    @property
    def training(self) -> dict[str, Any]:
        """The options of every pass that trains."""
        given = self.options
        return {"epochs": EPOCHS, "batch": given.batch, "lr": given.lr, "temperature": 1.0, "variants": 0}

    def row(self, name: str, step: Pass, program: Program) -> dict[str, Any]:
        """What the pass makes of the Program, on ``test``: means and spreads (standard deviations), and every seed."""
        found = []
        for seed in self.options.seeds:
            path = self.folder / f"{name.replace(' ', '-')}-{seed}.json"
            found.append(facts.kept(path, partial(self._measured, step, program, seed)))
            print(f"{name}: {found[-1]}", flush=True)
        values = {key: [f[key] for f in found] for key in ("perplexity", "ece")}
        means = {key: round(statistics.fmean(v), 3) for key, v in values.items()}
        spreads = {f"{key}_spread": round(statistics.stdev(v), 3) for key, v in values.items() if len(v) > 1}
        return {**means, **spreads, "seeds": found}

    def write(self, **found: Any) -> Path:
        """Write the result."""
        result = {
            **facts.facts(self.language.seed), "language": asdict(self.language), **self.settings,
            "teacher": _rounded(scores(self.teacher, self.source.test or self.source.dev)), **found,
        }  # fmt: skip
        return facts.write(self.name, result, self.options.results)

    def _measured(self, step: Pass, program: Program, seed: int) -> dict[str, Any]:
        started = time.monotonic()
        ctx = replace(self.context, data=self._seen(seed), seed=seed, workspace=self.folder / "running")
        ctx.workspace.mkdir(parents=True, exist_ok=True)
        result = step.run(program, ctx)
        shutil.rmtree(ctx.workspace)
        found = _rounded(scores(result.program, self.source.test or self.source.dev))
        chosen = {key: result.metrics[key] for key in ("before", "after", "steps") if key in result.metrics}
        return {"seed": seed, **found, **_rounded(chosen), "minutes": round((time.monotonic() - started) / 60, 2)}

    def _seen(self, seed: int) -> DataSource:
        """Blocks without labels; those to train on by seed, as many as the steps take."""
        train, dev = (replace(split, labels=None) for split in (self.source.train, self.source.dev))
        count = self.options.steps * self.options.batch // EPOCHS
        return DataSource(data.drawn(train, count, seed), data.drawn(dev, self.options.dev), None)


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in found.items()}

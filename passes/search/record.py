"""What a search leaves behind: every candidate with its scores, small enough to keep and to choose from again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compactor.errors import InputError
from compactor.ir.subnet import Subnet
from compactor.passes.search.evolution import Member
from compactor.passes.search.genes import Genes, Genome
from compactor.passes.search.proxies import combined
from compactor.pipeline.disk import write_json

FILE = "search.json"
SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """A search.

    Attributes:
        header: what it depended on: teacher (fingerprint), score, seed, target, goal and settings.
        genome: what genes mean.
        members: all candidates, in the order in which they were made.
        summary: the archive and the choice, once it is over; for people and other tools.
    """

    header: dict[str, Any]
    genome: Genome
    members: tuple[Member, ...]
    summary: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write ``search.json`` whole or not at all."""
        candidates = [[list(m.genes.kept), list(m.genes.removed), list(m.values)] for m in self.members]
        data = {"schema": SCHEMA, **self.header, "genome": self.genome.to_dict(), "candidates": candidates}
        write_json(folder / FILE, data | ({} if self.summary is None else {"summary": self.summary}))

    @staticmethod
    def read(folder: Path) -> "Record":
        """The search of a folder. Raises `InputError` when there is none, or one of another version."""
        path = folder / FILE
        remedy = "give the folder that `compactor search -o` wrote, or search again"
        if not path.is_file():
            raise InputError(f"{folder} holds no search: it has no {FILE}", remedy)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema", None) != SCHEMA:
                raise InputError(f"{path} is not of schema {SCHEMA}", "use the version that wrote it, or search again")
            members = tuple(_member(row) for row in data.pop("candidates"))
            genome, summary = Genome.from_dict(data.pop("genome")), data.pop("summary", None)
            return Record(data, genome, members, summary)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no search: {error!r}", remedy) from error

    def preferred(self) -> list[tuple[float, Subnet]]:
        """Score and subnet of every candidate, the best first."""
        ranks = scores(self.members)
        order = sorted(range(len(ranks)), key=lambda i: (-ranks[i], i))
        return [(ranks[i], self.genome.subnet(self.members[i].genes)) for i in order]


def scores(members: Sequence[Member]) -> list[float]:
    """The score of each among all, from 0 to 1."""
    return [float(v) for v in combined(np.array([m.values for m in members]))] if members else []


def _member(row: Any) -> Member:
    kept, removed, values = row
    return Member(Genes(tuple(map(int, kept)), tuple(map(int, removed))), tuple(map(float, values)))

"""`search.stored`: the best candidate of an earlier search, for this target and budget; nothing is scored again."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from compactor.errors import InputError
from compactor.ir.probe import verify_rules
from compactor.ir.program import Program
from compactor.ir.space import space_of
from compactor.passes.search.goal import Goal, GoalConfig, Option
from compactor.passes.search.record import FILE, Record
from compactor.pipeline.context import PassContext
from compactor.pipeline.disk import file_hash
from compactor.pipeline.passes import Pass, PassConfig, PassResult


class StoredConfig(GoalConfig):
    """Options of `search.stored`."""

    folder: str = Field(description="what `compactor search -o` wrote")
    content: str = Field("", description="sha256 of its search.json; found when absent, held to when given")

    @model_validator(mode="before")
    @classmethod
    def _hashed(cls, data: Any) -> Any:
        """The options with the hash of the file, so that a changed search is not taken for the one before."""
        if not isinstance(data, dict) or "folder" not in data:
            return data
        path = Path(str(data["folder"])) / FILE
        if not path.is_file():
            raise ValueError(f"{path} does not exist: give the folder that `compactor search -o` wrote")
        found = file_hash(path)
        if data.get("content") not in (None, "", found):
            raise ValueError(f"{path} has changed: its sha256 is {found}")
        return {**data, "content": found}


class StoredSearch(Pass):
    """Keep the candidate of an earlier search with the best score among those that meet the goal here.

    Scores do not depend on the target, so that one search serves several: latencies are predicted anew. Raises
    `InputError` when the search was of another teacher, `UsageError` when none of its candidates meets the goal.
    """

    name: ClassVar[str] = "search.stored"
    version: ClassVar[int] = 2
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    after: ClassVar[tuple[str, ...]] = ("canonicalize",)
    before: ClassVar[tuple[str, ...]] = ("distill", "fold_batchnorm", "quantize")
    Config: ClassVar[type[PassConfig]] = StoredConfig

    def run(self, program: Program, ctx: PassContext) -> PassResult:
        """Choose, then slice."""
        record = Record.read(Path(self.config.folder))
        if record.header.get("teacher") != program.fingerprint:
            raise InputError(
                f"the search in {self.config.folder} was of another teacher",
                "search again with `compactor search`, or give the teacher that was searched",
            )
        space = space_of(program)
        verify_rules(space)
        ranked = record.preferred()
        options = [Option(space, space.check(record.genome.subnet(m.genes))) for _, m in ranked]
        choice = Goal(program, self.config, ctx).settle(options)
        metrics = choice.metrics() | {"candidates": len(options), "score": record.header["score"]}
        return PassResult(choice.student, choice.student is not program, metrics)

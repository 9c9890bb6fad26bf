"""`Pipeline`: an ordered list of passes with validated configs, from text and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from compactor import registry
from compactor.errors import UsageError
from compactor.pipeline import syntax
from compactor.pipeline.passes import Pass

GROUP = "compactor.passes"


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run. ``str(pipeline)`` is the text that `parse` reads back."""

    passes: tuple[Pass, ...]

    @staticmethod
    def parse(text: str) -> "Pipeline":
        """The pipeline of a text such as ``canonicalize,search.uniform{keep=0.5},quantize.ptq``.

        Raises `UsageError` for text that does not fit (with its position), an unknown pass (with close names) and an
        option that the pass does not take or allow.
        """
        return Pipeline(tuple(_make(step) for step in syntax.parse(text)))

    def __str__(self) -> str:
        return ",".join(str(syntax.Step(p.name, given_options(p))) for p in self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    @property
    def names(self) -> list[str]:
        """Names of the passes, in order."""
        return [p.name for p in self.passes]


def given_options(step: Pass) -> dict[str, Any]:
    """The options that were set, in the order of declaration; defaults are left out."""
    dump: dict[str, Any] = step.config.model_dump(mode="json", exclude_unset=True)
    return dump


def all_options(step: Pass) -> dict[str, Any]:
    """Every option with its value, defaults included."""
    dump: dict[str, Any] = step.config.model_dump(mode="json")
    return dump


def find(name: str, where: str = "") -> type[Pass]:
    """The pass registered under a name. Raises `UsageError` with close names."""
    known = registry.names(GROUP)
    if name not in known:
        close = get_close_matches(name, known, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
        raise UsageError(f"unknown pass {name!r}{where}", remedy)
    found: type[Pass] = registry.load(GROUP, name)
    return found


def _make(step: syntax.Step) -> Pass:
    kind = find(step.name, f" at position {step.position} of the pipeline text")
    try:
        return kind(kind.Config.model_validate(step.options))
    except ValidationError as error:
        raise UsageError(*_explain(step, kind, error)) from None


def _explain(step: syntax.Step, kind: type[Pass], error: ValidationError) -> tuple[str, str]:
    first = error.errors()[0]
    option = ".".join(map(str, first["loc"]))
    known = ", ".join(f"{k}={f.get_default(call_default_factory=True)!r}" for k, f in kind.Config.model_fields.items())
    where = f"pass {step.name!r} at position {step.position}"
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown option {option!r}", f"its options: {known or 'none'}"
    if not option:
        return f"{where}: {first['msg']}", f"its options: {known or 'none'}"
    return f"{where}: option {option}={first['input']!r}: {first['msg']}", f"its options: {known}"

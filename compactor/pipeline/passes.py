"""The pass contract: Program -> Program, with everything the manager needs declared as data."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from compactor.budget import Budget
    from compactor.ir.program import Program
    from compactor.pipeline.context import PassContext
    from compactor.target import Target


class PassConfig(BaseModel):
    """Base of pass configs: frozen, validated, unknown options refused.

    Declare an option once, with default, limits and (in ``json_schema_extra={"search": [...]}``) its search range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


@dataclass(frozen=True)
class PassResult:
    """What a pass returns: the Program (the same object when not ``modified``) and JSON-able metrics."""

    program: "Program"
    modified: bool = True
    metrics: dict[str, Any] = field(default_factory=dict)


class Pass(ABC):
    """A transformation of Programs. Passes never mutate the Program they are given.

    Class attributes are the declaration:
        name: textual name, ``group.method`` or a bare word.
        version: raise it when results change, so that stored results are not reused.
        exact: outputs must be reproduced; the manager checks it on probe inputs.
        requires / ensures: properties of Programs (``canonical``, ``batchnorm_folded``, ``quantized``, ``trained`` ...)
            needed before and true after; ``breaks``: properties no longer true after.
        after / before: names of passes that, when both are in a pipeline, must come earlier / later.
        needs: importable modules without which the pass cannot run (checked when planning), with the extra.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    exact: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset()
    after: ClassVar[tuple[str, ...]] = ()
    before: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[dict[str, str]] = {}
    Config: ClassVar[type[PassConfig]] = PassConfig

    def __init__(self, config: PassConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    def refuses(self, program: "Program", target: "Target", budget: "Budget") -> list[str]:
        """Reasons why this pass cannot serve this request, found in well under a second; ``program`` is the teacher.

        The planner asks before any work: a precision the target lacks, a budget no setting of this pass could meet.
        """
        return []

    @abstractmethod
    def run(self, program: "Program", ctx: "PassContext") -> PassResult:
        """Transform. Raises `CompactorError` only; ``program`` stays as it was."""

"""The contract of a backend: it lowers a Program to a runtime's format and opens sessions on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from compactor.errors import UnsupportedError

if TYPE_CHECKING:
    from compactor.ir.program import Program
    from compactor.ir.quantplan import QuantRules
    from compactor.target import Target


@dataclass(frozen=True)
class Lowered:
    """A model in a runtime's format.

    ``folder`` holds ``files`` (relative; the first is the model itself); ``options`` are the runtime settings the
    model was lowered for (JSON scalars: precision hint, threads, ...), stored in the manifest. ``origins`` say of which
    node of the Program each node in the file was made, as far as that is known; they are not stored.
    """

    backend: str
    folder: Path
    files: tuple[str, ...]
    precision: str
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


@dataclass(frozen=True)
class Loader:
    """How lowered models are opened where there is the runtime, and neither compactor nor torch.

    ``modules`` are copied there, with what `compactor.errors` and ``compactor.targets.measure`` need; they import
    nothing else of compactor. The first has ``load(files, precision, options, *, batch=None)``, which returns a
    function from NumPy arrays in the Program's input order to a list of arrays. ``runtime`` is what must be importable
    there, at least in version ``least``.
    """

    modules: tuple[str, ...]
    runtime: str
    least: str


class Session(Protocol):
    """A model loaded in its runtime."""

    @property
    def runtime(self) -> str:
        """Runtime and version, ``openvino 2026.4.1``."""
        ...

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs for inputs given in the Program's input order."""
        ...

    def query(self, inputs: Sequence[Tensor]) -> Callable[[], object]:
        """What measurements time: the runtime's own work on these inputs, which lie ready (MLPerf's single stream)."""
        return lambda: self(inputs)


class Backend(Protocol):
    """One runtime. Implementations are stateless; their module imports the runtime only where it is used.

    ``rules``: what it asks of quantizers, checked before any training.
    """

    name: str
    rules: "QuantRules"

    def installed(self) -> bool:
        """Whether the runtime can open sessions on this machine."""
        ...

    def supports(self, program: "Program", target: "Target") -> list[str]:
        """Reasons why this Program cannot be lowered for the target; empty when it can."""
        ...

    def lower(self, program: "Program", target: "Target", folder: Path) -> Lowered:
        """Write the model into ``folder`` (exists, empty). The same Program gives the same bytes.

        Raises `MissingRuntimeError` (naming the extra to install) or `UnsupportedError`.
        """
        ...

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """Load a lowered model.

        With ``batch`` every shape is fixed: this batch size and nominal sizes elsewhere, which is how latency is
        measured. Without, the dimensions that the Program leaves free stay free. Raises `MissingRuntimeError`.
        """
        ...

    def reference(self, lowered: Lowered) -> Session | None:
        """A session that runs the same file on another runtime of this machine, for parity where `installed` is false.

        None when there is no such runtime.
        """
        ...

    def loader(self) -> Loader | None:
        """How devices without compactor open these models; None where they cannot."""
        ...


@dataclass(frozen=True)
class Executed:
    """What ``count`` nodes that a runtime executed took: microseconds. They stand for nodes of the file, ``names``."""

    names: tuple[str, ...]
    us: float
    count: int = 1


@runtime_checkable
class Profiler(Protocol):
    """A backend whose runtime tells where the time goes."""

    def profile(self, lowered: Lowered, inputs: Sequence[Tensor], *, seconds: float) -> Sequence[Executed]:
        """All nodes that run at batch 1, in the order of execution; what a runtime added is with a node of the file.

        The model runs for about ``seconds``. Timing nodes slows them down a little: only their shares count.
        """
        ...


def require(backend: Backend, program: "Program", target: "Target") -> None:
    """Raise `UnsupportedError` with the first reason why the backend cannot lower the Program, if there is one."""
    if reasons := backend.supports(program, target):
        raise UnsupportedError(reasons[0], "choose another precision or target")

"""The contract of a device that is elsewhere: it runs lowered models, and needs only their runtime for that."""

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from compactor.backend import Loader, Lowered
from compactor.errors import MissingRuntimeError, UnsupportedError
from compactor.latency import Latency

PYTHON = "3.10"
"""The oldest Python that a device may have."""


@dataclass(frozen=True)
class Facts:
    """A device as it describes itself.

    ``machine`` is the architecture (``aarch64``), ``runtime`` the version of what was asked for: None where it is
    missing, "" where it does not say. ``free``: bytes in ``temporary``, its folder for temporary files. ``identity``
    is the same for all addresses of one machine until that boots again. ``power``: its power mode or frequency
    governor, "" where it does not say.
    """

    machine: str
    system: str
    python: str
    executable: str
    runtime: str | None
    temporary: str
    free: int
    identity: str
    cpu: str
    power: str = ""

    def to_dict(self) -> dict[str, str]:
        """What an artifact's manifest says of the device."""
        kept = {"machine", "system", "python", "runtime", "cpu", "power"}
        return {k: str(v) for k, v in asdict(self).items() if k in kept and v}


@dataclass(frozen=True)
class Needs:
    """What a device must have: a runtime, and one of these architectures (any, when there is none).

    ``who`` needs it: the name of a target.
    """

    who: str
    loader: Loader
    machines: tuple[str, ...] = ()

    def require(self, facts: Facts, device: str) -> None:
        """Raise `UnsupportedError` for another architecture, `MissingRuntimeError` for what must be installed there."""
        if self.machines and facts.machine not in self.machines:
            raise UnsupportedError(
                f"{device} is a machine of architecture {facts.machine}, {self.who} is {' or '.join(self.machines)}",
                "build for a target of that device: see `compactor targets list`",
            )
        if _older(facts.python, PYTHON):
            raise MissingRuntimeError(
                f"{device} has Python {facts.python} ({facts.executable}), at least {PYTHON} is needed",
                "name a newer one in the address: ssh://user@host/usr/bin/python3.11",
            )
        runtime, least = self.loader.runtime, self.loader.least
        remedy = (
            f"on the device: {facts.executable} -m pip install '{runtime}>={least}'; "
            "a Python that has it goes into the address: ssh://user@host/path/to/python"
        )
        if facts.runtime is None:
            raise MissingRuntimeError(f"{device} has no {runtime} for {facts.executable}", remedy)
        if facts.runtime and _older(facts.runtime, least):
            raise MissingRuntimeError(f"{device} has {runtime} {facts.runtime}, at least {least} is needed", remedy)


def _older(version: str, least: str) -> bool:
    """Whether the numbers at the start of a version come before those of another."""
    found, wanted = (tuple(map(int, re.findall(r"\d+", v.split("+")[0])[:3])) for v in (version, least))
    return found < wanted


@dataclass(frozen=True)
class Work:
    """What a device shall do: run every model on ``samples`` (unless there are none), then time them in turns.

    ``inputs`` are those of a single query. Models are named; the files of all are copied there.
    """

    needs: Needs
    models: Mapping[str, Lowered]
    inputs: tuple[Tensor, ...]
    samples: tuple[Tensor, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Every file of every model, by where it lies on the device."""
        return {f"models/{n}/{file}": m.folder / file for n, m in self.models.items() for file in m.files}


@dataclass(frozen=True)
class Outcome:
    """What came back: by model the outputs on the samples, and the latency as measured there."""

    facts: Facts
    outputs: dict[str, tuple[Tensor, ...]]
    latencies: dict[str, Latency]


class Device(Protocol):
    """A machine at an address. Nothing of ours stays there, whatever happens.

    Both methods raise `DeviceError` when the device cannot be reached or trusted, when the connection breaks or its
    time is over, and what `Needs.require` raises; `run` also `UsageError` when the device's disk is full.
    """

    @property
    def name(self) -> str:
        """Its address."""
        ...

    def check(self, needs: Needs) -> Facts:
        """What it is; nothing runs there."""
        ...

    def run(self, work: Work) -> Outcome:
        """Copy models there, run and time them. Raises `UnsupportedError` for a model that its runtime refuses."""
        ...

    def cancel(self) -> None:
        """End from another thread what is under way; that raises `DeviceError` there."""
        ...


def identity() -> str:
    """This machine's `Facts.identity`."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()

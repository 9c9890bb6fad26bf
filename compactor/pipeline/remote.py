"""Models on a device that is elsewhere: do they compute there what they should, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from compactor import parity, registry
from compactor.backend import Backend, Lowered
from compactor.device import Device, Facts, Needs, Work
from compactor.errors import UnsupportedError, UsageError
from compactor.ir.program import Program
from compactor.latency import Latency
from compactor.parity import Parity
from compactor.target import Target

MINUTES = 10.0
"""How long work on a device may take by default."""


@dataclass(frozen=True)
class Found:
    """What a device found: by model its latency, and how closely it follows its Program."""

    facts: Facts
    latencies: dict[str, Latency]
    parity: dict[str, Parity]


def open_device(device: str | Device, minutes: float = MINUTES) -> Device:
    """The device at an address such as ``ssh://user@host``; nothing is contacted. Raises `UsageError`."""
    if not isinstance(device, str):
        return device
    scheme, mark, _ = device.partition("://")
    if not mark:
        raise UsageError(f"{device!r} is no address of a device", "write ssh://user@host[:port]")
    opened: Device = registry.load("compactor.devices", scheme)(device, minutes)
    return opened


def check(device: Device, target: Target, backend: Backend) -> Facts:
    """What a device is, when it can be this target. Raises what `Device.check` raises."""
    return device.check(_needs(target, backend))


def measure(device: Device, target: Target, backend: Backend, lowered: Lowered, inputs: Sequence[Tensor]) -> Latency:
    """Latency of one model on the device, milliseconds. Raises what `Device.run` raises."""
    return device.run(Work(_needs(target, backend), {"model": lowered}, tuple(inputs))).latencies["model"]


def examine(
    device: Device,
    target: Target,
    backend: Backend,
    models: Mapping[str, tuple[Program, Lowered]],
    samples: Sequence[Tensor],
) -> Found:
    """Run models on ``samples`` there and time them in turns. Raises what `Device.run` raises.

    Parity is of what ran there: the caller decides what a miss means.
    """
    programs = {name: program for name, (program, _) in models.items()}
    first = next(iter(programs.values()))
    lowered = {name: model for name, (_, model) in models.items()}
    work = Work(_needs(target, backend), lowered, first.example_inputs(batch=1), tuple(samples))
    outcome = device.run(work)
    return Found(
        outcome.facts,
        outcome.latencies,
        {name: _parity(program, samples, outcome.outputs[name]) for name, program in programs.items()},
    )


def _parity(program: Program, samples: Sequence[Tensor], found: Sequence[Tensor]) -> Parity:
    wanted = program(*samples)
    return parity.compare((wanted,) if isinstance(wanted, Tensor) else wanted, found, program.precision)


def _needs(target: Target, backend: Backend) -> Needs:
    loader = backend.loader()
    if loader is None:
        raise UnsupportedError(
            f"models for {backend.name} cannot be run on a device over a connection yet",
            "copy the artifact there, and run `compactor finish` or what lies beside the model",
        )
    return Needs(f"target {target.name}", loader, target.machines)

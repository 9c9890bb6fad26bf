"""`ProfileTarget`: the target that a profile describes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from compactor import registry
from compactor.backend import Session
from compactor.errors import UnsupportedError
from compactor.ir.kernels import Kernel
from compactor.latency import KernelTime, Latency
from compactor.targets import host, measure, model
from compactor.targets.breakdown import breakdown, widened
from compactor.targets.profile import Profile, family_model


@dataclass(frozen=True)
class ProfileTarget:
    """One device in one power mode. Only a detected profile (this machine) can be present and measured.

    ``given`` is the profile as written; `profile` has the detected facts filled in.
    """

    given: Profile

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.given.name

    @property
    def backend(self) -> str:
        """Name of the backend that lowers for this device."""
        return self.given.backend

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions the device runs natively."""
        return tuple(self.profile.precisions)

    @property
    def present(self) -> bool:
        """Whether latencies can be measured here: this machine, with the backend's runtime installed."""
        if not self.given.detect or self.backend not in registry.names("compactor.backends"):
            return False
        return bool(registry.load("compactor.backends", self.backend)().installed())

    @cached_property
    def profile(self) -> Profile:
        """The profile with what was detected on this machine, where it asks for that."""
        return detected(self.given, host.detect()) if self.given.detect else self.given

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the profile, the latency model's version and the detected hardware."""
        facts: dict[str, Any] = {"model": model.VERSION, "profile": self.profile.model_dump(by_alias=True)}
        if self.given.detect:
            facts["host"] = host.detect().to_dict()
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def predict(self, kernels: Sequence[Kernel], precision: str) -> Latency:
        """Predicted latency with its 90 % interval, milliseconds, of kernels run one after the other.

        Raises `UnsupportedError` for a precision that the device does not run natively.
        """
        p50 = model.latency_ms(self.profile, kernels, precision)
        wide, floor = self.profile.model.interval, self.floor(kernels)
        found = Latency(p50, "predicted", low=max(p50 / wide, min(p50, floor)), high=p50 * wide)
        return widened(found, floor, self.profile, kernels, precision)

    def breakdown(self, kernels: Sequence[Kernel], precision: str) -> Sequence[KernelTime]:
        """Where the predicted time goes, kernel by kernel, without the time of the call itself."""
        return breakdown(self.profile, kernels, precision)

    def floor(self, kernels: Sequence[Kernel]) -> float:
        """Milliseconds below which these kernels cannot get in any precision."""
        return model.floor_ms(self.profile, kernels)

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """Measured latency, milliseconds. Raises `UnsupportedError` when the device is not present."""
        self._require_present()
        return measure.measure(session, inputs)

    def compare(self, sessions: Mapping[str, Session], inputs: Sequence[Tensor]) -> dict[str, Latency]:
        """Measured latencies of several sessions, interleaved. Raises `UnsupportedError` when not present."""
        self._require_present()
        return measure.compare(sessions, inputs)

    def _require_present(self) -> None:
        if self.present:
            return
        if self.given.detect:
            remedy = f"install the runtime: pip install 'compactor[{self.backend}]'"
        else:
            remedy = "run on the device itself, or use the predicted latency"
        raise UnsupportedError(f"target {self.name} is not present on this machine, so nothing can be measured", remedy)


def detected(profile: Profile, machine: host.Host) -> Profile:
    """The profile with peaks and precisions of this machine: operations per cycle x cores x clock."""
    rate = host.OPERATIONS[machine.isa]
    peaks = {p: rate[p] * machine.cores * machine.ghz / 1e3 for p in ("float32", "bfloat16", "int8")}
    precisions = ["float32", *(["bfloat16"] if machine.bfloat16 else []), "int8"]
    update: dict[str, Any] = {"peak_tops": peaks, "precisions": precisions}
    if machine.isa == "amx":
        update["model"] = family_model("x86-amx")
    return profile.model_copy(update=update)

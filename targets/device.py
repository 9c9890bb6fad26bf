"""`ProfileTarget`: the target that a profile describes."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compactor import gpu, registry
from compactor.backend import Session
from compactor.errors import UnsupportedError
from compactor.ir.expected import ExpectedKernels
from compactor.ir.kernels import EPILOGUES, Kernel
from compactor.latency import KernelTime, Latency
from compactor.pipeline.store import default_root
from compactor.pipeline.versions import tool_versions
from compactor.target import Observation, Precisions
from compactor.targets import correction, cuda, host, model
from compactor.targets import measure as measuring
from compactor.targets.breakdown import breakdown, widened
from compactor.targets.expected import expected_ms
from compactor.targets.fits import Fit
from compactor.targets.profile import Profile, other_device_model

Floats = NDArray[np.float64]
_MACHINES = {
    **dict.fromkeys(("x86", "x86-amx", "intel-npu", "intel-gpu"), ("x86_64",)),
    **dict.fromkeys(("arm", "arm-openvino", "qualcomm-hexagon"), ("aarch64",)),
}


@dataclass(frozen=True)
class ProfileTarget:
    """One device in one power mode. Only a detected profile (this machine) can be present and measured.

    ``given`` is the profile as written; `profile` has the detected facts filled in. ``fitted`` stands in for the fit
    that is kept for this target, if any.
    """

    given: Profile
    fitted: Fit | None = None

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

    @property
    def machines(self) -> tuple[str, ...]:
        """The architectures that such a device may have: this machine's own for a detected one, else the family's."""
        if self.given.detect and not self._on_gpu:
            return (host.detect().arch,)
        return ("aarch64",) if self.name.startswith("jetson-") else _MACHINES.get(self.given.family, ())

    @cached_property
    def profile(self) -> Profile:
        """The profile with what was detected on this machine, where it asks for that."""
        if not self.given.detect:
            return self.given
        if self._on_gpu:
            return self.given if (found := gpu.detect()) is None else cuda.detected(self.given, found)
        return detected(self.given, host.detect())

    @property
    def _on_gpu(self) -> bool:
        """Whether what is detected is a GPU."""
        return self.given.detect and self.given.family == "nvidia"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the profile, the latency model's version, the detected hardware and the fit, if any."""
        return _digest({**self._facts, "fit": None if self.fit is None else self.fit.facts})

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"model": model.VERSION, "profile": self.profile.model_dump(by_alias=True)}
        if self._on_gpu:
            facts["gpu"] = None if (found := gpu.detect()) is None else found.to_dict()
        elif self.given.detect:
            facts["host"] = host.detect().to_dict()
        return facts

    @property
    def fit_path(self) -> Path:
        """Where the fit of this target lies: another profile, machine, runtime or way of fitting has another."""
        key = _digest({**self._facts, "versions": tool_versions(self.backend), "correction": correction.VERSION})
        return default_root() / "fits" / f"{self.name}-{key[:16]}.safetensors"

    @cached_property
    def fit(self) -> Fit | None:
        """What was measured with ``compactor targets fit``. Raises `InputError` when the file is damaged."""
        if self.fitted is not None:
            return self.fitted
        return Fit.load(self.fit_path) if self.fit_path.is_file() else None

    def predict(self, kernels: Sequence[Kernel], precision: Precisions) -> Latency:
        """Predicted latency with its 90 % interval, milliseconds, of kernels run one after the other.

        ``precision`` is one for all of them, or one for each.

        Raises `UnsupportedError` for a precision that the device does not run natively.
        """
        times, call, wide = self._times(kernels, precision)
        p50, floor = float(times.sum() + call) / 1e3, self.floor(kernels)
        found = Latency(p50, "predicted", low=max(p50 / wide, min(p50, floor)), high=p50 * wide)
        return widened(found, floor, kernels, times)

    def breakdown(self, kernels: Sequence[Kernel], precision: Precisions) -> Sequence[KernelTime]:
        """Where the predicted time goes, kernel by kernel, without the time of the call itself."""
        if not isinstance(precision, str):
            found = {p: self.breakdown(kernels, p) for p in set(precision)}
            return [found[p][i] for i, p in enumerate(precision)]
        return breakdown(self.profile, kernels, precision, self._times(kernels, precision)[0])

    def _times(self, kernels: Sequence[Kernel], precision: Precisions) -> tuple[Floats, float, float]:
        """Microseconds of each kernel and of the call, and the factor around their sum that holds 90 %."""
        if not isinstance(precision, str):
            return self._mixed(kernels, precision)
        times, call = model.kernel_times(self.profile, kernels, precision), self.profile.model.call_us
        learned = self._correction(precision)
        if learned is None:
            return times, call, self.profile.model.interval
        given = self.rows(kernels, times)
        corrected, deviation = learned.times(given)
        whole = given.per_kernel(corrected)
        return whole[:-1], float(whole[-1]), math.exp(deviation)

    def _mixed(self, kernels: Sequence[Kernel], precisions: Sequence[str]) -> tuple[Floats, float, float]:
        """The same where each kernel has its own precision; of call and factor the largest count."""
        found = {p: self._times(kernels, p) for p in set(precisions)}
        times = np.array([found[p][0][i] for i, p in enumerate(precisions)])
        return times, max(call for _, call, _ in found.values()), max(wide for _, _, wide in found.values())

    def rows(self, kernels: Sequence[Kernel], times: Floats) -> correction.Rows:
        """What corrections are made of: the kernels, their microseconds after the roofline, the call, what is fused."""
        fused = np.array([k.fused for k in kernels], dtype=np.float64).reshape(-1, len(EPILOGUES))
        return correction.rows(kernels, times, self.profile.model.call_us, model.fused_times(self.profile, fused))

    def _correction(self, precision: str) -> correction.Correction | None:
        return None if self.fit is None else self.fit.corrections.get(precision)

    def expected(self, kernels: ExpectedKernels, precision: str) -> Tensor:
        """Predicted milliseconds in expectation, differentiable: see `compactor.targets.expected`.

        Raises `UnsupportedError` for a precision that the device does not run natively.
        """
        return expected_ms(self.profile, kernels, precision, self._correction(precision))

    def learn(self, observed: Sequence[Observation], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what was measured on the device, for `predict`; an earlier fit is replaced.

        Returns the facts that are kept with it: those given, the file, and per precision the number of latencies and
        the error of predictions of each of them from the others (median, share within 10 %). Raises `InputError` for
        latencies that are no positive numbers.
        """
        found = self.learned(observed)
        quality = {p: {"latencies": len(c.left_out), **_quality(c)} for p, c in found.items()}
        kept = {**facts, "precisions": quality}
        return {**kept, "file": str(Fit(found, kept).save(self.fit_path))}

    def learned(self, observed: Sequence[Observation]) -> dict[str, correction.Correction]:
        """What these latencies teach, by precision."""
        found = {}
        for precision in self.precisions:
            own = [o for o in observed if o.precision == precision]
            times = [model.kernel_times(self.profile, o.kernels, precision) for o in own]
            rows = [self.rows(o.kernels, t) for o, t in zip(own, times, strict=True)]
            if own:
                found[precision] = correction.learn(rows, [o.ms for o in own], [o.parts for o in own])
        return found

    def floor(self, kernels: Sequence[Kernel]) -> float:
        """Milliseconds below which these kernels cannot get in any precision."""
        return model.floor_ms(self.profile, kernels)

    def measure(self, session: Session, inputs: Sequence[Tensor]) -> Latency:
        """Measured latency, milliseconds. Raises `UnsupportedError` when the device is not present."""
        self._require_present()
        return measuring.measure(session, inputs)

    def compare(
        self, sessions: Mapping[str, Session], inputs: Sequence[Tensor], *, seconds: float = measuring.SECONDS
    ) -> dict[str, Latency]:
        """Measured latencies of several sessions, interleaved. Raises `UnsupportedError` when not present."""
        self._require_present()
        share = min(1.0, seconds / measuring.SECONDS)
        queries = max(16, round(measuring.QUERIES * share))
        return measuring.compare(sessions, inputs, seconds=seconds, queries=queries, warmup=measuring.WARMUP * share)

    def _require_present(self) -> None:
        if self.present:
            return
        if self.given.detect:
            remedy = f"install the runtime: pip install 'compactor[{self.backend}]'"
        else:
            remedy = "run on the device itself, or use the predicted latency"
        raise UnsupportedError(f"target {self.name} is not present on this machine, so nothing can be measured", remedy)


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _quality(found: correction.Correction) -> dict[str, float]:
    errors = np.abs(np.expm1(found.left_out))
    return {"median_error": round(float(np.median(errors)), 4), "within_10": round(float((errors <= 0.1).mean()), 4)}


def detected(profile: Profile, machine: host.Host) -> Profile:
    """The profile with peaks and precisions of this machine: operations per cycle x cores x clock."""
    rate = host.OPERATIONS[machine.isa]
    peaks = {p: rate[p] * machine.cores * machine.ghz / 1e3 for p in ("float32", "bfloat16", "int8")}
    precisions = ["float32", *(["bfloat16"] if machine.bfloat16 else []), "int8"]
    update: dict[str, Any] = {"peak_tops": peaks, "precisions": precisions}
    if machine.isa == "amx":
        update["model"] = other_device_model("x86-amx")
    return profile.model_copy(update=update)

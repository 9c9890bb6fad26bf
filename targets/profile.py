"""Device profiles: the validated form of ``profiles/*.toml`` and of a user's own profile file."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compactor.errors import InputError

FOLDER = Path(__file__).parent / "profiles"
_FAMILIES = "families.toml"

Precision = Literal["float32", "float16", "bfloat16", "int8"]
Kind = Literal[
    "conv", "depthwise", "linear", "attention", "matmul", "norm", "pool", "embedding", "pointwise", "move", "unknown"
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# No device comes near these (a B200 has 4500 dense INT8 TOPS and 8000 GB/s): a larger figure is in another unit.
_MOST_TOPS, _MOST_GBS, _MOST_GB = 20_000, 100_000, 4_000
# From a CPU without 8-bit instructions (1) to matrix units beside plain FP32 (32, AMX), with a margin.
_SLOWEST, _FASTEST = 0.25, 200


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(_Strict):
    """``bandwidth_gbs``: main memory, GB/s. ``cache_mb``: last-level cache; ``cache_gbs``: its bandwidth."""

    bandwidth_gbs: Positive
    capacity_gb: Positive | None = None
    cache_mb: NotNegative = 0
    cache_gbs: Positive | None = None


class Model(_Strict):
    """Parameters of the latency model (see `compactor.targets.model`).

    ``floor_us``: least time of any kernel. ``call_us``: once per inference. ``efficiency``: largest share of the peak
    that a kernel reaches, by precision, times ``kinds`` by kernel kind. ``memory``: share of the bandwidth.
    ``lanes``: output channels are padded to multiples. ``interval``: factor around p50 that holds 90 %, from
    ``points`` published latencies, whose rms log error when their network was left out of the fit was ``error``.
    """

    floor_us: Positive
    call_us: NotNegative = 0
    efficiency: dict[Precision, Share]
    kinds: dict[Kind, Share] = Field(default_factory=dict)
    memory: Share
    lanes: dict[Precision, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    interval: Annotated[float, Field(gt=1, le=20)]
    points: Annotated[int, Field(ge=0)] = 0
    error: NotNegative | None = None


class Source(_Strict):
    """Where the fields in ``covers`` (dotted, a prefix covers all below it) come from."""

    covers: Annotated[list[str], Field(min_length=1)]
    text: Annotated[str, Field(min_length=8)]
    confirmed: bool = True


class Profile(_Strict):
    """One device in one power mode. ``peak_tops``: dense operations per second, 10^12, a MAC counting two."""

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    aliases: list[str] = Field(default_factory=list)
    description: str
    family: str
    backend: str
    runtime: str
    power_mode: str = "default"
    detect: bool = False
    precisions: Annotated[list[Precision], Field(min_length=1)]
    peak_tops: dict[Precision, Positive]
    memory: Memory
    model: Model
    sources: list[Source]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for precision in self.precisions:
            if precision not in self.peak_tops:
                raise ValueError(f"peak_tops.{precision} is missing, but precisions lists {precision}")
            if precision not in self.model.efficiency:
                raise ValueError(f"model.efficiency.{precision} is missing, but precisions lists {precision}")
        for field in ("peak_tops", "memory.bandwidth_gbs", "model"):
            if not any(field == c or field.startswith(c + ".") for s in self.sources for c in s.covers):
                raise ValueError(f"{field} has no source: add a [[sources]] entry that covers it")
        self._possible()
        return self

    def _possible(self) -> None:
        """Refuse figures that no device has: mostly a slip of the unit or of the decimal point."""
        memory = self.memory
        figures = {f"peak_tops.{p}": (v, _MOST_TOPS, "10^12 op/s") for p, v in self.peak_tops.items()}
        figures["memory.bandwidth_gbs"] = (memory.bandwidth_gbs, _MOST_GBS, "GB/s")
        figures["memory.cache_gbs"] = (memory.cache_gbs or 0, _MOST_GBS, "GB/s")
        figures["memory.capacity_gb"] = (memory.capacity_gb or 0, _MOST_GB, "GB")
        for field, (value, most, unit) in figures.items():
            if value > most:
                raise ValueError(f"{field} is {value:g}, which fits no device: it is in {unit}")
        if memory.cache_gbs is not None and memory.cache_gbs < memory.bandwidth_gbs:
            raise ValueError(
                f"memory.cache_gbs is {memory.cache_gbs:g}, less than memory.bandwidth_gbs, {memory.bandwidth_gbs:g}"
            )
        widest = next((p for p in ("float32", "float16", "bfloat16") if p in self.peak_tops), None)
        for precision, value in self.peak_tops.items():
            ratio = value / self.peak_tops[widest] if widest else 1
            if not _SLOWEST <= ratio <= _FASTEST:
                raise ValueError(
                    f"peak_tops.{precision} is {value:g}, {ratio:.3g} times {widest}: no device has such a ratio"
                )


def read(path: Path) -> Profile:
    """The profile in a TOML file, its ``[model]`` filled up from the family's.

    Raises `InputError` naming the file and the field.
    """
    data = _toml(path)
    family = data.get("family")
    families = _toml(FOLDER / _FAMILIES)
    if family not in families and not isinstance(data.get("model"), dict):
        raise InputError(
            f"{path}: family {family!r} is unknown and there is no [model] table",
            f"use one of {', '.join(families)}, or give a [model]",
        )
    base = families.get(family, {}) if isinstance(family, str) else {}
    # A device that the family was not fitted to: what is known of it is less than what the fit tells of its own.
    other = {} if data.get("name") in base.get("fitted", ()) else base.get("other", {})
    given = data.get("model", {})
    if isinstance(given, dict):
        data["model"] = {**base.get("model", {}), **other, **given}
    data["sources"] = [*_listed(data, "sources"), *base.get("sources", [])]
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{path}: {_explain(error)}", "correct the profile; docs/targets.md lists every field"
        ) from None


@cache
def family_model(family: str) -> Model:
    """The latency-model parameters of a family in ``families.toml``, for a device that it was fitted to."""
    return Model.model_validate(_toml(FOLDER / _FAMILIES)[family]["model"])


@cache
def other_device_model(family: str) -> Model:
    """The same for a device that the family was not fitted to: a wider interval."""
    found = _toml(FOLDER / _FAMILIES)[family]
    return Model.model_validate({**found["model"], **found["other"]})


def builtin() -> tuple[Path, ...]:
    """The profile files that come with the package."""
    return tuple(sorted(p for p in FOLDER.glob("*.toml") if p.name != _FAMILIES))


@cache
def builtin_profiles() -> dict[str, Profile]:
    """The profiles that come with the package, by name."""
    return {profile.name: profile for profile in map(read, builtin())}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "give the path of a TOML profile") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML ({error})", "correct the file; docs/targets.md has an example") from None


def _listed(data: dict[str, Any], field: str) -> list[Any]:
    value = data.get(field, [])
    return value if isinstance(value, list) else [value]


def _explain(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(p) for p in item["loc"])
        given = "" if item["type"] in ("missing", "value_error") else f", given {item['input']!r}"
        parts.append(f"{where}: {item['msg']}{given}" if where else item["msg"].removeprefix("Value error, "))
    return "; ".join(parts)

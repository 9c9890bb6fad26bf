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
Share = Annotated[float, Field(gt=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(_Strict):
    """``bandwidth_gbs``: main memory, GB/s. ``cache_mb``: last-level cache; ``cache_gbs``: its bandwidth."""

    bandwidth_gbs: Positive
    capacity_gb: Positive | None = None
    cache_mb: Annotated[float, Field(ge=0)] = 0
    cache_gbs: Positive | None = None


class Model(_Strict):
    """Parameters of the latency model (see `compactor.targets.model`).

    ``floor_us``: least time of any kernel. ``call_us``: once per inference. ``efficiency``: largest share of the peak
    that a kernel reaches, by precision, times ``kinds`` by kernel kind. ``memory``: share of the bandwidth.
    ``lanes``: output channels are padded to multiples. ``interval``: factor around p50 that holds 90 %, from
    ``points`` published latencies, whose rms log error when left out of the fit was ``error``.
    """

    floor_us: Positive
    call_us: Annotated[float, Field(ge=0)] = 0
    efficiency: dict[Precision, Share]
    kinds: dict[Kind, Share] = Field(default_factory=dict)
    memory: Share
    lanes: dict[Precision, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    interval: Annotated[float, Field(gt=1, le=20)]
    points: Annotated[int, Field(ge=0)] = 0
    error: Annotated[float, Field(ge=0)] | None = None


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
        if self.peak_tops.get("int8", 1e-9) > 5000 or self.memory.bandwidth_gbs > 20000:
            raise ValueError("peak_tops is in 10^12 op/s and bandwidth_gbs in GB/s; these values fit no device")
        return self


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
    data["model"] = {**base.get("model", {}), **data.get("model", {})}
    data["sources"] = [*_listed(data, "sources"), *base.get("sources", [])]
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{path}: {_explain(error)}", "correct the profile; docs/targets.md lists every field"
        ) from None


@cache
def family_model(family: str) -> Model:
    """The latency-model parameters of a family in ``families.toml``."""
    return Model.model_validate(_toml(FOLDER / _FAMILIES)[family]["model"])


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

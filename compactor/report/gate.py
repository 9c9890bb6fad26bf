"""The gate: a budget held against the figures of a build."""

from compactor.budget import Budget
from compactor.report.manifest import Check, Gate, Limits, Metrics

_ROUNDING = 1e-9  # scores are sums of 1/n: a drop of exactly the limit passes


def evaluate(metrics: Metrics, limits: Limits) -> Gate:
    """Hold the figures against the limits that are set.

    Latency limits are held against the student's p50, measured or predicted as ``basis`` says; size against the bytes
    of the lowered model; drop against teacher minus student, in percentage points. A drop that synthetic inputs cannot
    verify is a miss.
    """
    checks = []
    latency = metrics.latency_ms
    for limit in _latency_limits(metrics, limits):
        value = latency.student.p50
        checks.append(
            Check(name="latency", limit=limit, value=value, passed=value <= limit, basis=latency.student.basis)
        )
    if limits.size is not None:
        size = metrics.size_bytes.student
        checks.append(Check(name="size", limit=limits.size, value=size, passed=size <= limits.size))
    if limits.drop is not None:
        checks.append(_drop_check(metrics, limits.drop))
    return Gate(passed=all(check.passed for check in checks), checks=checks)


def _latency_limits(metrics: Metrics, limits: Limits) -> list[float]:
    absolute = [] if limits.latency is None else [limits.latency]
    share = [] if limits.latency_share is None else [limits.latency_share * metrics.latency_ms.teacher.p50]
    return absolute + share


def _drop_check(metrics: Metrics, limit: float) -> Check:
    score = metrics.score
    if score.name == "unverified":
        return Check(name="drop", limit=limit, value=None, passed=False, basis="unverified")
    return Check(name="drop", limit=limit, value=score.drop, passed=score.drop <= limit + _ROUNDING, basis=score.name)


def merge(recorded: Limits, override: Budget) -> Limits:
    """The recorded limits with those that ``override`` sets in their place; either form of latency replaces both."""
    values = recorded.model_dump()
    given = override.to_dict()
    if "latency" in given or "latency_share" in given:
        values.update(latency=None, latency_share=None)
    return Limits(**{**values, **given})

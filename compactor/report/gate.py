"""The gate: a budget held against the figures of a build."""

from compactor.budget import Budget
from compactor.report.manifest import Check, Gate, LatencyFigure, Limits, Metrics

_ROUNDING = 1e-9  # scores are sums of 1/n: a drop of exactly the limit passes


def evaluate(metrics: Metrics, limits: Limits) -> Gate:
    """Hold the figures against the limits that are set.

    Latency limits are held against the student's p50, measured or predicted as ``basis`` says, a share of the
    teacher's against the figure of the same kind as the teacher's; size against the bytes of the lowered model; drop
    against teacher minus student, in percentage points. What cannot be verified (a drop on synthetic inputs, a share
    across kinds) is a miss.
    """
    latency = metrics.latency_ms
    checks = []
    if limits.latency is not None:
        checks.append(_latency_check(limits.latency, latency.student))
    if limits.latency_share is not None:
        pair = latency.pair()
        checks.append(_latency_check(limits.latency_share * latency.teacher.p50, pair[1] if pair else None))
    if limits.size is not None:
        size = metrics.size_bytes.student
        checks.append(Check(name="size", limit=limits.size, value=size, passed=size <= limits.size))
    if limits.drop is not None:
        checks.append(_drop_check(metrics, limits.drop))
    return Gate(passed=all(check.passed for check in checks), checks=checks)


def _latency_check(limit: float, figure: LatencyFigure | None) -> Check:
    if figure is None:
        return Check(name="latency", limit=limit, value=None, passed=False, basis="unverified")
    return Check(name="latency", limit=limit, value=figure.p50, passed=figure.p50 <= limit, basis=figure.basis)


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

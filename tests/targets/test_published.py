"""Shipped profiles against published latencies (the fit itself is ``python -m benchmarks.latency_model.fit``)."""

import math

import pytest

from benchmarks.latency_model.calibration import FEWEST
from benchmarks.latency_model.families import FAMILIES
from benchmarks.latency_model.fit import DATA, Point, fitted_targets, points, predict, profile
from benchmarks.latency_model.networks import network
from compactor.targets.profile import family_model
from compactor.targets.registry import profiles

PYTHON_US = 1143
"""What the fit finds that Ultralytics' timing through Python adds; no part of the profiles."""
SHIPPED = {device: facts["target"] for device, facts in DATA["devices"].items() if "target" in facts}


def ratio(point: Point) -> float:
    """Predicted by published milliseconds."""
    family = DATA["devices"][point.device]["family"]
    model = family_model(family).model_dump() | {"python": PYTHON_US}
    return predict(point, model, network(point.network)) / point.ms


@pytest.mark.parametrize(("device", "name"), SHIPPED.items())
def test_shipped_profiles_have_the_published_devices_figures(device: str, name: str) -> None:
    shipped, facts = profiles.resolve(name).profile, DATA["devices"][device]
    assert shipped.family == facts["family"] and shipped.memory.bandwidth_gbs == facts["bandwidth"]
    assert shipped.peak_tops == facts["peak"]
    assert profile(device, family_model(facts["family"]).model_dump()).model == shipped.model


def test_fitted_devices_are_the_published_ones() -> None:
    assert sorted(SHIPPED.values()) == sorted(t for family in FAMILIES for t in fitted_targets(family))


def test_every_published_latency_is_a_point() -> None:
    assert {family: len(points(family)) for family in FAMILIES} == {
        "nvidia": 69, "x86": 22, "x86-amx": 30, "arm": 2, "arm-openvino": 2, "intel-npu": 2, "intel-gpu": 0,
        "qualcomm-hexagon": 4,
    }  # fmt: skip


def test_yolo11_on_orin() -> None:
    found = [p for p in points("nvidia") if p.network == "yolo11s"]
    assert len(found) == 9 and all(0.85 < ratio(p) < 1.15 for p in found)


def test_yolo11s_has_its_published_size() -> None:
    kernels = network("yolo11s")
    assert sum(k.weights for k in kernels) == pytest.approx(9.44e6, rel=0.005)
    assert 2 * sum(k.macs for k in kernels) == pytest.approx(21.5e9, rel=0.01)


# As they are calibrated: families with few points together.
ALONE = [family for family in FAMILIES if len(points(family)) >= FEWEST]
GROUPS = [*([family] for family in ALONE), [family for family in FAMILIES if family not in ALONE]]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids="+".join)
def test_nine_in_ten_points_lie_within_the_interval(group: list[str]) -> None:
    inside = [abs(math.log(ratio(p))) <= math.log(family_model(f).interval) for f in group for p in points(f)]
    assert sum(inside) >= 0.9 * len(inside)

"""Profiles: the built-in ones, users' files, and the errors of wrong ones."""

from itertools import pairwise
from pathlib import Path

import pytest

from compactor import registry
from compactor.errors import ExitCode, InputError, UnsupportedError
from compactor.target import PRECISIONS
from compactor.targets.profile import FOLDER, Profile, builtin, builtin_profiles, family_model, other_device_model, read
from compactor.targets.registry import profiles

MINE = """
schema = 1
name = "my-board"
description = "A board"
family = "arm"
backend = "onnx"
runtime = "ONNX Runtime"
precisions = ["float32"]
[peak_tops]
float32 = 0.1
[memory]
bandwidth_gbs = 10
[[sources]]
covers = ["peak_tops", "memory"]
text = "The board's datasheet"
"""
WANTED = {
    "jetson": {
        "jetson-orin", "jetson-orin-nx", "jetson-orin-nano", "jetson-orin-nano-15w", "jetson-orin-nx-8",
        *(f"jetson-agx-orin-64-{w}w" for w in (50, 30, 15)), "jetson-agx-orin-32", "jetson-orin-nx-16-40w",
    },
    "nvidia": {f"nvidia-{n}" for n in ("t4", "l4", "a10", "a100-40", "a100-80", "h100", "h200")},
    "raspberry": {"raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-5-openvino"},
    "x86": {"x86-avx2", "x86-avx512-vnni", "x86-amx"},
    "intel": {"intel-npu-3720", "intel-npu-4000", "intel-npu-5010", "intel-arc-140v"},
    "qualcomm": {"qualcomm-8-gen-3", "qualcomm-x-elite"},
}  # fmt: skip


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_the_targets_of_the_readme_are_there() -> None:
    wanted = {"host-cpu", "jetson-orin", "raspberry-pi-5", "intel-npu-4000", "nvidia-t4"}
    assert wanted <= set(profiles.names())
    assert registry.load("compactor.targets", "profiles") is profiles


@pytest.mark.parametrize("path", builtin(), ids=lambda p: p.stem)
def test_builtin_profile_is_valid_and_consistent(path: Path) -> None:
    profile = read(path)
    assert profile.name == path.stem
    assert set(profile.precisions) <= set(PRECISIONS)
    assert profile.backend in ("onnx", "openvino", "tensorrt", "cuda", "qnn")
    assert any("model" in source.covers for source in profile.sources)


def test_no_two_profiles_share_a_name_or_an_alias() -> None:
    # From the files: the dictionary by name would hide a name given twice.
    keys = [key for p in map(read, builtin()) for key in (p.name, *p.aliases)]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize("profile", builtin_profiles().values(), ids=lambda p: p.name)
def test_every_alias_resolves_to_its_profile(profile: Profile) -> None:
    for key in (profile.name, *profile.aliases):
        assert profiles.resolve(key).name == profiles.resolve(key.upper()).name == profile.name


@pytest.mark.parametrize("prefix", ["jetson", "nvidia", "raspberry", "x86", "intel", "qualcomm"])
def test_devices_that_were_asked_for(prefix: str) -> None:
    assert WANTED[prefix] <= {n for n in profiles.names() if n.startswith(prefix)}


@pytest.mark.parametrize("family", ["jetson-orin", "jetson-agx-orin-32", "jetson-orin-nx-8"])
def test_less_power_is_never_faster(family: str) -> None:
    modes = {
        "jetson-orin": ["jetson-orin", *(f"jetson-agx-orin-64-{w}w" for w in (50, 30, 15))],
        "jetson-agx-orin-32": ["jetson-agx-orin-32", *(f"jetson-agx-orin-32-{w}w" for w in (40, 30, 15))],
        "jetson-orin-nx-8": [*(f"jetson-orin-nx-8-{w}w" for w in (40,)), "jetson-orin-nx-8", "jetson-orin-nx-8-10w"],
    }[family]
    found = [builtin_profiles()[name] for name in modes]
    for faster, slower in pairwise(found):
        assert faster.peak_tops["int8"] > slower.peak_tops["int8"]
        assert faster.memory.bandwidth_gbs >= slower.memory.bandwidth_gbs
        assert faster.power_mode != slower.power_mode


def test_hexagon_is_lowered_by_its_own_backend() -> None:
    for name in ("qualcomm-8-gen-3", "qualcomm-x-elite"):
        assert builtin_profiles()[name].backend == "qnn"


@pytest.mark.parametrize(
    ("written", "name"),
    [("orin", "jetson-orin"), ("JETSON_ORIN", "jetson-orin"), ("t4", "nvidia-t4"), ("host-cpu/onnx", "host-cpu-onnx")],
)
def test_aliases(written: str, name: str) -> None:
    assert profiles.resolve(written).name == name


def test_unknown_target_names_close_ones() -> None:
    with pytest.raises(UnsupportedError, match=r"jetson-oren.*\n.*did you mean jetson-orin") as caught:
        profiles.resolve("jetson-oren")
    assert caught.value.exit_code == ExitCode.UNSUPPORTED
    assert "raspberry-pi-5" in caught.value.remedy


def test_a_users_profile_inherits_its_familys_model(mine: Path) -> None:
    target = profiles.resolve(str(mine))
    assert target.name == "my-board" and target.precisions == ("float32",) and not target.present
    assert target.profile.model == other_device_model("arm")


def test_a_device_of_the_fit_has_the_narrower_interval() -> None:
    assert builtin_profiles()["jetson-orin"].model == family_model("nvidia")
    assert builtin_profiles()["nvidia-h100"].model == other_device_model("nvidia")
    assert family_model("nvidia").interval < other_device_model("nvidia").interval


def test_a_users_profile_may_override_model_fields(mine: Path) -> None:
    mine.write_text(MINE.replace("[[sources]]", "[model]\nfloor_us = 99\n[[sources]]"))
    assert read(mine).model.floor_us == 99


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float32 = 0.1", "float32 = -1", r"peak_tops\.float32.*greater than 0.*-1"),
        ("float32 = 0.1", "float32 = inf", r"peak_tops\.float32.*finite"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 0", r"memory\.bandwidth_gbs"),
        ("float32 = 0.1", "float32 = 0", r"peak_tops\.float32.*greater than 0.*given 0"),
        ("float32 = 0.1", "float32 = nan", r"peak_tops\.float32.*nan"),
        ("float32 = 0.1", 'float32 = "fast"', r"peak_tops\.float32.*number.*fast"),
        ("float32 = 0.1", "float32 = 100000000000", r"peak_tops\.float32 is 1e\+11.*fits no device.*10\^12"),
        ("float32 = 0.1", "float32 = 0.1\nint8 = 0.0001", r"peak_tops\.int8 is 0\.0001, 0\.001 times float32"),
        ("float32 = 0.1", "float32 = 0.1\nint8 = 400", r"peak_tops\.int8 is 400, 4e\+03 times float32"),
        ("float32 = 0.1", "float32 = 0.1\nfloat8 = 1", r"peak_tops\.float8"),
        ("float32 = 0.1", "", r"peak_tops\.float32 is missing"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = -10", r"memory\.bandwidth_gbs.*greater than 0.*-10"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = nan", r"memory\.bandwidth_gbs.*nan"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = inf", r"memory\.bandwidth_gbs.*finite.*inf"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10000000", r"memory\.bandwidth_gbs is 1e\+07.*fits no device"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10\ncapacity_gb = 8e9", r"memory\.capacity_gb is 8e\+09.*no device"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10\ncache_mb = inf", r"memory\.cache_mb.*finite"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10\ncache_mb = -1", r"memory\.cache_mb.*-1"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10\ncache_gbs = 1", r"memory\.cache_gbs is 1, less than.*bandwidth"),
        ("bandwidth_gbs = 10", "", r"memory\.bandwidth_gbs.*required"),
        ("[memory]\nbandwidth_gbs = 10\n", "", "memory.*required"),
        ("[peak_tops]\nfloat32 = 0.1\n", "", "peak_tops.*required"),
        ("[[sources]]", "[model]\nfloor_us = -1\n[[sources]]", r"model\.floor_us.*greater than 0.*-1"),
        ("[[sources]]", "[model]\nmemory = 1.5\n[[sources]]", r"model\.memory.*1\.5"),
        ("[[sources]]", "[model]\nmemory = nan\n[[sources]]", r"model\.memory.*nan"),
        ("[[sources]]", "[model]\ninterval = 0.5\n[[sources]]", r"model\.interval.*0\.5"),
        ("[[sources]]", "[model]\nefficiency = { float32 = 2 }\n[[sources]]", r"model\.efficiency\.float32.*given 2"),
        ('backend = "onnx"\n', "", "backend.*required"),
        ('family = "arm"\n', "", "family None is unknown"),
        ('name = "my-board"', 'name = "My Board"', "name.*pattern.*My Board"),
        ('["float32"]', '["float32", "int8"]', "peak_tops.int8 is missing"),
        ('["float32"]', '["float8"]', r"precisions\.0.*float8"),
        ('family = "arm"', 'family = "risc"', r"family 'risc' is unknown.*\n.*nvidia"),
        ('"peak_tops", "memory"', '"memory"', "peak_tops has no source"),
        ("schema = 1", "schema = 2", "schema.*given 2"),
        ("schema = 1", "schema = 1\ntypo = 3", "typo.*not permitted"),
        ("schema = 1", "schema =", "is not TOML"),
    ],
)
def test_wrong_profiles_name_file_and_field(mine: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    mine.write_text(MINE.replace(old, new, 1))
    with pytest.raises(InputError, match=f"(?s)mine.toml.*{message}") as caught:
        read(mine)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("field", ["schema", "name", "description", "backend", "runtime", "precisions"])
def test_a_missing_field_is_named(mine: Path, field: str) -> None:
    mine.write_text("\n".join(line for line in MINE.splitlines() if not line.startswith(f"{field} =")))
    with pytest.raises(InputError, match=rf"mine\.toml: {field}: Field required"):
        read(mine)


def test_missing_profile_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml: cannot be read"):
        profiles.resolve(str(tmp_path / "absent.toml"))


def test_profiles_are_package_data() -> None:
    assert (FOLDER / "families.toml").is_file() and len(builtin()) == len(builtin_profiles())

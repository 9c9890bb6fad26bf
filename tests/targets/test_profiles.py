"""Profiles: the built-in ones, users' files, and the errors of wrong ones."""

from pathlib import Path

import pytest

from compactor import registry
from compactor.errors import ExitCode, InputError, UnsupportedError
from compactor.target import PRECISIONS
from compactor.targets.profile import FOLDER, builtin, builtin_profiles, read
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
    assert profile.backend in ("onnx", "openvino", "tensorrt")
    assert any("model" in source.covers for source in profile.sources)


def test_names_and_aliases_are_unique() -> None:
    keys = [key for p in builtin_profiles().values() for key in (p.name, *p.aliases)]
    assert len(keys) == len(set(keys))


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
    assert target.profile.model == builtin_profiles()["raspberry-pi-5"].model


def test_a_users_profile_may_override_model_fields(mine: Path) -> None:
    mine.write_text(MINE.replace("[[sources]]", "[model]\nfloor_us = 99\n[[sources]]"))
    assert read(mine).model.floor_us == 99


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float32 = 0.1", "float32 = -1", r"peak_tops\.float32.*greater than 0.*-1"),
        ("float32 = 0.1", "float32 = inf", r"peak_tops\.float32.*finite"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 0", r"memory\.bandwidth_gbs"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = 10000000", "fit no device"),
        ("bandwidth_gbs = 10", "", r"memory\.bandwidth_gbs.*required"),
        ('backend = "onnx"\n', "", "backend.*required"),
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


def test_missing_profile_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml: cannot be read"):
        profiles.resolve(str(tmp_path / "absent.toml"))


def test_profiles_are_package_data() -> None:
    assert (FOLDER / "families.toml").is_file() and len(builtin()) == len(builtin_profiles())

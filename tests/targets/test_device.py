"""`ProfileTarget` and what is detected of this machine."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compactor import registry
from compactor.backend import Session
from compactor.errors import UnsupportedError
from compactor.targets import host
from compactor.targets.device import detected
from compactor.targets.profile import builtin_profiles
from compactor.targets.registry import profiles


class Identity(Session):
    """A session that returns its inputs."""

    runtime = "python"

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(inputs)


def test_the_machine_is_detected() -> None:
    machine = host.detect()
    assert machine.isa in host.OPERATIONS and 0.5 < machine.ghz < 8
    assert 1 <= machine.cores <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("avx2", "avx2"),
        ("avx2 avx_vnni", "avx_vnni"),
        ("avx2 avx512f", "avx512"),
        ("avx2 avx512f avx512_vnni", "avx512_vnni"),
        ("avx2 avx512f avx512_vnni zen4_or_older", "avx512_vnni_split"),
        ("avx2 avx512f avx512_vnni amx_int8 amx_bf16 amx_tile", "amx"),
        ("sse2", "generic"),
    ],
)
def test_instruction_sets(flags: str, isa: str) -> None:
    assert host._isa("x86_64", "CPU", frozenset(flags.split())) == isa


def test_bfloat16_only_with_its_instructions() -> None:
    machine = replace(host.detect(), isa="avx512_vnni", bfloat16=False, cores=4, ghz=3.0)
    given = builtin_profiles()["host-cpu"]
    plain, with_bf16 = detected(given, machine), detected(given, replace(machine, isa="amx", bfloat16=True))
    assert plain.precisions == ["float32", "int8"] and plain.peak_tops["int8"] == pytest.approx(256 * 4 * 3e-3)
    assert with_bf16.precisions == ["float32", "bfloat16", "int8"]
    assert with_bf16.model != plain.model


def test_host_has_float32_and_int8_always() -> None:
    assert {"float32", "int8"} <= set(profiles.resolve("host-cpu").precisions)
    assert profiles.resolve("host-cpu").backend == "openvino" and profiles.resolve("host-cpu-onnx").backend == "onnx"


@pytest.mark.parametrize("name", [n for n in profiles.names() if not n.startswith("host")])
def test_other_devices_are_never_present(name: str) -> None:
    target = profiles.resolve(name)
    assert not target.present
    with pytest.raises(UnsupportedError, match=f"{name} is not present"):
        target.measure(Identity(), (torch.zeros(1),))
    with pytest.raises(UnsupportedError, match=f"{name} is not present"):
        target.compare({"a": Identity()}, (torch.zeros(1),))


@pytest.mark.parametrize("name", ["host-cpu", "host-cpu-onnx"])
def test_host_is_present_where_its_runtime_is(name: str) -> None:
    target = profiles.resolve(name)
    if target.backend not in registry.names("compactor.backends"):
        pytest.skip(f"backend {target.backend} is not registered")
    assert target.present == registry.load("compactor.backends", target.backend)().installed()
    if target.present:
        assert target.measure(Identity(), (torch.zeros(1),)).basis == "measured"


def test_fingerprints_differ_and_repeat_in_another_process() -> None:
    ours = {name: profiles.resolve(name).fingerprint for name in profiles.names()}
    assert len(set(ours.values())) == len(ours) and all(len(f) == 64 for f in ours.values())
    code = "from compactor.targets.registry import profiles as p; print(*(p.resolve(n).fingerprint for n in p.names()))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert other == list(ours.values())

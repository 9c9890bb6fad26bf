"""The `cuda` target: what it takes from a GPU, through a driver that is compiled here, and what it is without one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from compactor import gpu
from compactor.errors import UnsupportedError
from compactor.gpu import Gpu
from compactor.ir.kernels import Kernel
from compactor.targets import cuda
from compactor.targets.profile import builtin_profiles
from compactor.targets.registry import profiles

GIVEN = builtin_profiles()["cuda"]
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", 89, 128, 2.52, 1008.1, 24.0)
DRIVER = r"""
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "NVIDIA GeForce RTX 4090", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 24ull << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 16: *value = 128; break;
    case 13: *value = 2520000; break;
    case 36: *value = 10501000; break;
    case 37: *value = 384; break;
    case 75: *value = 8; break;
    case 76: *value = 9; break;
    default: return 1;
  }
  return 0;
}
"""


def shown(folder: Path, *, status: int = 0, count: int = 1) -> dict[str, Any]:
    """What ``compactor targets show cuda`` says with such a driver."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (folder / "driver.c").write_text(DRIVER)
    macros = [f"-DSTATUS={status}", f"-DCOUNT={count}"]
    subprocess.run(["gcc", "-shared", "-fPIC", *macros, "-o", "libcuda.so.1", "driver.c"], cwd=folder, check=True)
    command = [sys.executable, "-m", "compactor", "targets", "show", "cuda", "--json"]
    own = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_gpu_is_described_by_its_driver(tmp_path: Path) -> None:
    found = shown(tmp_path)
    assert found["peak_tops"]["float32"] == pytest.approx(82.6, rel=0.01), "NVIDIA's own figure"
    assert found["peak_tops"]["float16"] == pytest.approx(330.3, rel=0.01)
    assert found["memory"]["bandwidth_gbs"] == pytest.approx(1008, rel=0.001) and found["memory"]["capacity_gb"] == 24


@pytest.mark.parametrize("without", [{"status": 100}, {"count": 0}])
def test_a_driver_without_a_gpu(without: dict[str, int], tmp_path: Path) -> None:
    found = shown(tmp_path, **without)
    assert found["peak_tops"] == GIVEN.peak_tops and found["latency"] == "predicted"


@pytest.mark.parametrize(
    ("capability", "like"), [(89, 89), (88, 87), (52, None), (121, 120), (130, 120)]
)  # the newest known one that is not newer
def test_capabilities_between_and_beyond_the_table(capability: int, like: int | None) -> None:
    found = cuda.detected(GIVEN, Gpu("some", capability, 10, 1.0, 100.0, 8.0))
    float32, float16 = cuda.OPERATIONS[like] if like is not None else (128, 128)
    assert found.peak_tops == {"float32": float32 / 100, "float16": float16 / 100}
    assert found.memory.capacity_gb == 8.0 and found.model == GIVEN.model


def test_published_peaks_come_out() -> None:
    """Dense float16 peaks that NVIDIA publishes, within 2 %."""
    for found, published in (
        (Gpu("A100", 80, 108, 1.41, 1555, 40), 312),
        (Gpu("A10", 86, 72, 1.695, 600, 24), 125),
        (Gpu("L4", 89, 58, 2.04, 300, 24), 121),
        (Gpu("H100 SXM", 90, 132, 1.83, 3350, 80), 989),
        (Gpu("T4", 75, 40, 1.59, 320, 16), 65),
    ):
        assert cuda.detected(GIVEN, found).peak_tops["float16"] == pytest.approx(published, rel=0.02)


def test_predictions_and_precisions() -> None:
    target = profiles.resolve("gpu")
    assert target.name == "cuda" and target.backend == "cuda" and target.precisions == ("float32", "float16")
    kernel = Kernel("linear", 10**9, 10**6, 10**6, 10**4, "head", 1, 1000, 1000, 1000)
    predicted = target.predict([kernel], "float16")
    assert predicted.basis == "predicted" and predicted.low is not None and predicted.high is not None
    assert predicted.low < predicted.p50 < predicted.high == 4 * predicted.p50
    with pytest.raises(UnsupportedError, match="int8"):
        target.predict([kernel], "int8")


@pytest.mark.skipif(gpu.detect() is not None, reason="there is a GPU")
def test_nothing_is_measured_without_a_gpu() -> None:
    target = profiles.resolve("cuda")
    assert not target.present and target.machines == ()
    with pytest.raises(UnsupportedError, match=r"cuda is not present.*\n.*compactor\[cuda\]"):
        target.measure(lambda inputs: inputs, (torch.zeros(1),))  # type: ignore[arg-type]

"""The first NVIDIA GPU of this machine, as its driver describes it; needs no library but the driver."""

import ctypes
from dataclasses import asdict, dataclass
from functools import cache

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
# CUdevice_attribute in the CUDA driver API.
_PROCESSORS, _KHZ, _MEMORY_KHZ, _BUS_BITS, _MAJOR, _MINOR = 16, 13, 36, 37, 75, 76


@dataclass(frozen=True)
class Gpu:
    """``capability``: 86 for 8.6; ``processors``: SMs; ``ghz``: their boost clock; ``gbs``: the memory's bandwidth."""

    name: str
    capability: int
    processors: int
    ghz: float
    gbs: float
    gb: float

    def to_dict(self) -> dict[str, str | int | float]:
        """JSON form."""
        return asdict(self)


@cache
def detect() -> Gpu | None:
    """None where there is no driver or no GPU. The same in every run on a machine."""
    driver = _driver()
    if driver is None or driver.cuInit(0) != 0:
        return None
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    return _described(driver, device)


def _driver() -> ctypes.CDLL | None:
    for name in _DRIVERS:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _described(driver: ctypes.CDLL, device: ctypes.c_int) -> Gpu:
    def attribute(number: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    name, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=10 * attribute(_MAJOR) + attribute(_MINOR),
        processors=attribute(_PROCESSORS),
        ghz=round(attribute(_KHZ) / 1e6, 3),
        gbs=round(2 * attribute(_MEMORY_KHZ) * 1e3 * attribute(_BUS_BITS) / 8 / 1e9, 1),  # two transfers a clock
        gb=round(size.value / 2**30, 1),
    )

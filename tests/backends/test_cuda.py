"""ONNX Runtime on CUDA: the contract on the CPU, or on the GPU where one is here, and what is said without."""

from pathlib import Path

import onnxruntime
import pytest

from compactor.backends.onnx.cuda import CudaBackend
from compactor.backends.onnx.runtime import CUDA
from compactor.errors import ExitCode, MissingRuntimeError
from tests.backends.template import BackendContract, Device, form

BACKEND = CudaBackend()
WORKSTATION = Device("cuda", ("float32", "float16"))
HERE = BACKEND.installed()


class TestCuda(BackendContract):
    """Without a GPU everything but opening a session on it."""

    backend = BACKEND
    precisions = ("float32", "float16")
    refused = ("bfloat16", "int8")
    package = "onnxruntime"
    device = WORKSTATION
    executable = HERE


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this build of ONNX Runtime has CUDA")
def test_a_build_without_cuda_is_told_so(tmp_path: Path) -> None:
    lowered = BACKEND.lower(form("residual", "float32"), WORKSTATION, tmp_path)
    assert lowered.options["provider"] == CUDA
    with pytest.raises(MissingRuntimeError, match="has no CUDA provider") as caught:
        BACKEND.open(lowered, batch=1)
    assert caught.value.exit_code == ExitCode.MISSING_RUNTIME and "compactor[cuda]" in caught.value.remedy


@pytest.mark.skipif(not HERE, reason="no NVIDIA GPU with onnxruntime-gpu")
def test_it_runs_on_the_gpu(tmp_path: Path) -> None:
    session = BACKEND.open(BACKEND.lower(form("residual", "float32"), WORKSTATION, tmp_path), batch=1)
    assert "CUDA" in session.runtime

"""What must hold for every subnet of every Program: equal outputs, exact costs, training, archives, runtimes."""

import math
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from compactor import parity
from compactor.backend import Backend
from compactor.backends.onnx.backend import OnnxBackend
from compactor.backends.openvino.backend import OpenVINOBackend
from compactor.ir import graphs
from compactor.ir.archive import load
from compactor.ir.masking import mask_program
from compactor.ir.program import Program
from compactor.ir.slicing import slice_program
from compactor.ir.space import SearchSpace
from compactor.ir.subnet import Subnet
from compactor.target import Target
from compactor.targets.registry import profiles

TOLERANCE = 1e-5
"""Relative error between mask and slice, float32."""
ROUNDING, EXACT = 1e-3, 1e-10
"""A float32 error up to the first that is below the second in float64 is rounding in an ill-conditioned graph."""
BACKENDS: tuple[Backend, ...] = (OnnxBackend(), OpenVINOBackend())

Inputs = tuple[Tensor, ...]


@dataclass
class Findings:
    """What the subnets of one architecture showed; a mismatch is a wrong result that no error announced."""

    subnets: int = 0
    exports: int = 0
    error: float = 0.0
    mismatches: list[str] = field(default_factory=list)
    rounding: int = 0
    """Subnets whose float32 error is above the tolerance and gone in float64."""

    def expect(self, holds: bool, text: str) -> None:
        """Note a mismatch unless this holds."""
        if not holds:
            self.mismatches.append(text)

    def compare(self, student: Program, masked: Program, inputs: Inputs) -> None:
        """Note the relative error between slice and mask; one that is not a number is infinite."""
        error = relative_error(outputs(student, inputs), outputs(masked, inputs))
        self.error = max(self.error, error if math.isfinite(error) else math.inf)
        rounding = TOLERANCE < error <= ROUNDING
        if rounding:
            rounding = relative_error(doubled(student, inputs), doubled(masked, inputs)) <= EXACT
        self.rounding += rounding
        self.expect(error <= TOLERANCE or rounding, f"mask and slice: relative error {error:.1e}")


def outputs(model: Program, inputs: Inputs) -> Inputs:
    """All outputs as a tuple."""
    result = model(*inputs)
    return (result,) if isinstance(result, Tensor) else result


def doubled(model: Program, inputs: Inputs) -> Inputs:
    """All outputs, weights and inputs in float64."""
    state = {name: _double(tensor) for name, tensor in model.state.items()}
    with torch.no_grad():
        found: Inputs = graphs.graph_module(model.graph, state)(*map(_double, inputs))
    return found


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def relative_error(found: Inputs, wanted: Inputs) -> float:
    """The largest over the outputs; infinite where shapes differ."""
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return math.inf
    pairs = [(a.double(), b.double()) for a, b in zip(found, wanted, strict=True)]
    # NaN must win, which max of Python does not promise.
    return float(torch.stack([(a - b).norm() / b.norm().clamp_min(1e-12) for a, b in pairs]).amax())


def check_slice(space: SearchSpace, subnet: Subnet, inputs: Inputs, findings: Findings) -> Program:
    """Mask equals slice, predicted cost equals counted cost; returns the slice."""
    student = slice_program(space.program, subnet)
    masked = mask_program(space.program, subnet)
    findings.subnets += 1
    findings.compare(student, masked, inputs)
    predicted, counted = space.cost(subnet), student.cost()
    findings.expect(predicted == counted, f"predicted {predicted}, counted {counted}")
    elements = sum(student.state[name].numel() for name in student.trainable)
    findings.expect(counted.parameters == elements, f"{counted.parameters} parameters counted, {elements} there")
    return student


def check_training(student: Program, inputs: Inputs, findings: Findings) -> None:
    """One step of SGD: finite loss and gradients, some gradient, finite outputs after it."""
    module = student.module(train=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    loss = torch.stack([o.float().square().mean() for o in module(*inputs)]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    findings.expect(bool(torch.isfinite(loss)), f"loss {float(loss.detach())}")
    findings.expect(all(bool(g.isfinite().all()) for g in gradients), "gradients are not finite")
    findings.expect(any(bool(g.any()) for g in gradients), "no gradient")
    optimizer.step()
    findings.expect(all(bool(o.isfinite().all()) for o in module(*inputs)), "outputs after a step are not finite")


def check_archive(student: Program, inputs: Inputs, findings: Findings) -> None:
    """Saved and loaded, a Program is the same and computes the same."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.pt2"
        student.save(path)
        loaded = load(path)
    findings.expect(loaded.fingerprint == student.fingerprint, "the loaded archive has another fingerprint")
    pairs = zip(outputs(loaded, inputs), outputs(student, inputs), strict=True)
    findings.expect(all(torch.equal(a, b) for a, b in pairs), "the loaded archive computes something else")


def check_runtimes(student: Program, inputs: Inputs, findings: Findings) -> None:
    """Lowered to ONNX and OpenVINO, a Program computes the same."""
    findings.exports += 1
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            session = backend.open(backend.lower(student, _target(), Path(folder)), threads=1)
            found = parity.check(student, session, inputs)
            del session  # before its files
        findings.expect(found.passed, f"{backend.name}: relative error {found.error:.1e}, cosine {found.cosine:.5f}")


@cache
def _target() -> Target:
    return profiles.resolve("host-cpu")

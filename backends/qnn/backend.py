"""The backend for Qualcomm's Hexagon NPUs."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from compactor.backend import Loader, Lowered, Session, require
from compactor.backends.feeds import describe_shapes
from compactor.backends.onnx.backend import open_onnx
from compactor.backends.onnx.export import write_onnx
from compactor.backends.qnn import environment, worker
from compactor.backends.qnn.rewrite import for_hexagon
from compactor.backends.qnn.session import EmulatorSession, SampleBySample
from compactor.backends.shapes import nominal_shapes
from compactor.ir.program import Program
from compactor.ir.quantplan import QuantRules
from compactor.target import Target, lacking

MODEL, COMPILED = "model.onnx", "model.hexagon.onnx"
_CHIPS = {"qualcomm-8-gen-3": "57", "qualcomm-x-elite": "60"}
"""Qualcomm's numbers of the chips that can be compiled for: SM8650 and SC8380XP."""

_EMULATED = "57"
"""The chip that the emulator stands for where the target is none of those: without one it has no float16."""


class QnnBackend:
    """Lowers to ONNX at batch 1 and, where the runtime is, to the context binary that the NPU loads; stateless.

    Models run on the device. Here the emulator that comes with the runtime checks them (`reference`); without it the
    ONNX file is checked on ONNX Runtime's CPU provider, as far as that goes.
    """

    name = "qnn"
    # On the emulator a small BERT had an error of 8 % with SmoothQuant's factors, and 0.9 % without.
    rules = QuantRules("Qualcomm's Hexagon", smooth=False)

    def installed(self) -> bool:
        """False: nothing here runs a model at the speed of the device."""
        return False

    def supports(self, program: Program, target: Target) -> list[str]:
        """Reasons why this Program cannot be lowered for the target."""
        if program.precision in ("float32", "bfloat16"):
            return [f"Hexagon does not run {program.precision}, only float16 and int8"]
        return lacking(target, program.precision)

    def lower(self, program: Program, target: Target, folder: Path) -> Lowered:
        """Write ``model.onnx``, and what Hexagon's compiler makes of it where that is.

        Raises `MissingRuntimeError`, or `UnsupportedError` with what the compiler refuses.
        """
        require(self, program, target)
        origins = write_onnx(program, folder / MODEL, rewrite=for_hexagon, batch=1)
        options: dict[str, str | int | float | bool] = {"shapes": describe_shapes(program)}
        files: tuple[str, ...] = (MODEL,)
        if target.name in _CHIPS and environment.interpreter() is not None:
            options["soc_model"] = _CHIPS[target.name]
            environment.run(folder / MODEL, worker.provider_options(options), compiled=folder / COMPILED)
            files = (COMPILED, MODEL)
        return Lowered(self.name, folder, files, program.precision, options, origins)

    def open(self, lowered: Lowered, *, threads: int | None = None, batch: int | None = None) -> Session:
        """The emulator. Raises `MissingRuntimeError` where there is none."""
        environment.python()
        options = worker.provider_options({"soc_model": _EMULATED, **lowered.options})
        return EmulatorSession(lowered.folder / lowered.files[0], options, list(nominal_shapes(lowered.options, 1)))

    def reference(self, lowered: Lowered) -> Session | None:
        """The emulator, else ONNX Runtime's CPU provider, where one of them is."""
        if environment.interpreter() is not None:
            return self.open(lowered)
        if find_spec("onnxruntime") is None:
            return None
        return SampleBySample(
            open_onnx(replace(lowered, files=(MODEL,), options={"shapes": lowered.options["shapes"]}))
        )

    def loader(self) -> Loader:
        """For Snapdragon devices that have the runtime alone."""
        modules = ("runtime", "worker")
        own = tuple(f"compactor.backends.qnn.{name}" for name in modules)
        return Loader((*own, "compactor.backends.shapes"), "onnxruntime_qnn", worker.LEAST)

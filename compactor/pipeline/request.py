"""What a build is asked for, resolved and checked before any work: target, teacher, data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compactor import registry, scoring
from compactor.backend import Backend
from compactor.budget import Budget
from compactor.data import DataSource, Split
from compactor.errors import InputError
from compactor.ir.program import Program
from compactor.pipeline.context import PassContext
from compactor.target import Target

_SCAN = 256


def resolve_target(target: str | Target) -> Target:
    """The target of a name. Raises `UnsupportedError` with the known names."""
    if not isinstance(target, str):
        return target
    found: Target = registry.load("compactor.targets", "profiles").resolve(target)
    return found


def backend_of(target: Target) -> Backend:
    """The backend that lowers for a target."""
    backend: Backend = registry.load("compactor.backends", target.backend)()
    return backend


def open_teacher(
    teacher: "Program | nn.Module | str | Path",
    *,
    factory: str | None = None,
    trust_pickle: bool = False,
    example_inputs: tuple[Tensor, ...] | None = None,
) -> Program:
    """The teacher as a Program with finite weights. Raises `InputError`."""
    if isinstance(teacher, Program):
        program = teacher
    else:
        from compactor import frontend

        if isinstance(teacher, nn.Module):
            if example_inputs is None:
                raise InputError("a live module needs example inputs", "give example_inputs, or compactor.export first")
            program = frontend.export(teacher, example_inputs)
        else:
            program = frontend.load(
                Path(teacher), factory=factory, trust_pickle=trust_pickle, example_inputs=example_inputs
            )
    check_weights(program)
    return program


def check_weights(program: Program) -> None:
    """Raise `InputError` naming the first tensor with a value that is not finite."""
    for name, tensor in program.state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            if name not in program.trainable and not torch.isnan(tensor).any():
                continue  # attention masks hold infinities on purpose
            raise InputError(
                f"the teacher's tensor {name!r} holds {bad} values that are not finite",
                "train or export the teacher again",
            )


def open_data(data: "str | Path | DataSource | None", program: Program, seed: int) -> DataSource:
    """The data of a spec: nothing is synthetic, ``module:callable`` is called, all else is files."""
    if isinstance(data, DataSource):
        return data
    kind = "synthetic" if data is None else "callable" if is_callable(str(data)) else "files"
    opener: Callable[[str | None, Program, int], DataSource] = registry.load("compactor.calibration", kind)
    opened = opener(None if data is None else str(data), program, seed)
    return opened


def is_callable(spec: str) -> bool:
    """Whether a data spec reads ``module:callable`` rather than a path."""
    module, colon, name = spec.partition(":")
    words = [*module.split("."), name]
    return bool(colon) and all(word.isidentifier() for word in words) and not Path(spec).exists()


def check_data(program: Program, data: DataSource) -> None:
    """Raise `InputError` for inputs that do not fit, labels beyond the classes, and outputs that are not finite."""
    splits = {"train": data.train, "dev": data.dev, "test": data.test}
    classes = _classes(program)
    for name, split in splits.items():
        if split is None:
            continue
        if len(split) == 0:
            raise InputError(f"the {name} split is empty", "give at least one sample")
        batch = split.take(torch.arange(min(2, len(split))))
        program.check_inputs(batch.inputs)
        outputs = program(*batch.inputs)
        first = outputs if isinstance(outputs, Tensor) else outputs[0]
        if not torch.isfinite(first).all():
            raise InputError(
                f"the teacher's outputs for the {name} split are not finite",
                "check the teacher and the scale of the data",
            )
        if split.labelled and classes is not None:
            _check_labels(name, split, classes)


def _classes(program: Program) -> int | None:
    """Number of classes, when the first output is (N, classes)."""
    from compactor.ir import graphs

    node = graphs.output_node(program.graph).args[0][0]  # type: ignore[index]
    value: Any = program.values[node]  # type: ignore[index]
    return int(value.shape[1]) if isinstance(value, Tensor) and value.dim() == 2 else None


def _check_labels(name: str, split: Split, classes: int) -> None:
    labels = getattr(split, "labels", None)
    for chunk in [labels] if isinstance(labels, Tensor) else _taken_labels(split):
        try:
            scoring.check_labels(chunk, classes)
        except InputError as error:
            raise InputError(f"{name} split: {error.message}", error.remedy) from error


def _taken_labels(split: Split) -> Iterator[Tensor]:
    for start in range(0, len(split), _SCAN):
        labels = split.take(torch.arange(start, min(start + _SCAN, len(split)))).labels
        if labels is not None:
            yield labels


def bare_context(program: Program, target: Target, folder: Path) -> PassContext:
    """A context without a build: synthetic inputs, no limits, the Program as its own teacher."""
    return PassContext(
        teacher=program, target=target, backend=backend_of(target), data=open_data(None, program, 0), budget=Budget(),
        workspace=folder,
    )  # fmt: skip

"""Data from the user's own code: ``module:callable``."""

import inspect
from collections.abc import Mapping
from typing import Any

from compactor.calibration import arrays, facts
from compactor.calibration.splits import ArraySplit, set_aside
from compactor.data import DataSource
from compactor.errors import InputError, UsageError
from compactor.frontend.factory import importable_from_here, resolve
from compactor.ir.program import Program

_REMEDY = "return a DataSource, arrays by input name with labels y, or such arrays under train, dev and test"


def open(spec: str | None, program: Program, seed: int) -> DataSource:
    """What ``module:callable`` returns, called with those of ``program`` and ``seed`` that it has parameters for.

    It returns a `DataSource`, arrays by input name with labels ``y`` (then a tenth is set aside as dev), or a mapping
    of ``train``, ``dev`` and ``test`` to such arrays. Raises `InputError`.
    """
    if spec is None:
        raise UsageError("no data callable given", "give module:callable")
    with importable_from_here():
        _, function = resolve(spec)
        known: dict[str, Any] = {"program": program, "seed": seed}
        try:
            wanted = inspect.signature(function).parameters
            result = function(**{name: value for name, value in known.items() if name in wanted})
        except Exception as error:  # the user's code
            raise InputError(f"{spec!r} failed: {type(error).__name__}: {error}", _REMEDY) from error
    if isinstance(result, DataSource):
        return result
    if not isinstance(result, Mapping):
        raise InputError(f"{spec!r} returned a {type(result).__name__}", _REMEDY)
    return _from_mapping(result, program, spec, seed)


def _from_mapping(result: Mapping[str, Any], program: Program, spec: str, seed: int) -> DataSource:
    parts = result if isinstance(result.get("train"), Mapping) else {"train": result}
    read: dict[str, ArraySplit] = {}
    for name in ("train", "dev", "test"):
        if parts.get(name) is not None:
            read[name] = arrays.from_mapping(parts[name], program, f"{spec} {name}")
    train, test, classes = read["train"], read.get("test"), facts.labels(program)
    if "dev" in read:
        return DataSource(train, read["dev"], test, classes)
    rest, dev = set_aside(train, train.labels, seed)
    return DataSource(rest, dev, test, classes)

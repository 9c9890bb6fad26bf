"""``module:callable``: the user's own code that builds a model."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from compactor.errors import InputError

_EXPECTED = "give module:callable (or path/to/file.py:callable), importable from here"


def build(spec: str) -> tuple[nn.Module, tuple[Tensor, ...] | None]:
    """The module a factory makes and its example inputs, when the factory returns or declares them.

    A factory returns the module or ``(module, example_inputs)``. An attribute ``example_inputs`` (a value, or a
    function without arguments) of the module, the factory or the factory's file serves too. Raises `InputError`.
    """
    with importable_from_here():
        source, factory = resolve(spec)
        try:
            made = factory()
        except Exception as error:  # the user's code
            raise InputError(
                f"factory {spec!r} failed: {type(error).__name__}: {error}", "make it callable without arguments"
            ) from error
        module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(module, nn.Module):
            raise InputError(
                f"factory {spec!r} returned a {type(module).__name__}", "return a torch.nn.Module or (module, inputs)"
            )
        for owner in (module, factory, source):
            found = getattr(owner, "example_inputs", None)
            if inputs is None and found is not None:
                inputs = found() if callable(found) else found
    return module, as_inputs(inputs)


def as_inputs(value: Any) -> tuple[Tensor, ...] | None:
    """Example inputs as a tuple of tensors. Raises `InputError` for anything else."""
    if value is None:
        return None
    values = (value,) if isinstance(value, Tensor) else tuple(value)
    for item in values:
        if not isinstance(item, Tensor):
            raise InputError(f"example inputs hold a {type(item).__name__}", "give a tensor or a tuple of tensors")
    return values


def resolve(spec: str) -> tuple[ModuleType, Callable[[], Any]]:
    """The Python module and the callable that ``module:callable`` names."""
    name, colon, attribute = spec.rpartition(":")
    if not colon or not name or not attribute:
        raise InputError(f"{spec!r} is not of the form module:callable", _EXPECTED)
    module = _import(spec, name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
            raise InputError(f"{name!r} has no {attribute!r}", f"it has {', '.join(public[:10]) or 'nothing callable'}")
        found = getattr(found, part)
    if not callable(found):
        raise InputError(f"{spec!r} is a {type(found).__name__}, not callable", _EXPECTED)
    return module, found


def _import(spec: str, name: str) -> ModuleType:
    try:
        return _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except Exception as error:  # the user's code
        raise InputError(f"cannot import {name!r} of {spec!r}: {type(error).__name__}: {error}", _EXPECTED) from error


def _import_file(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # so that dataclasses and the like find their module
    try:
        specification.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem)
        if before is not None:
            sys.modules[path.stem] = before
        raise
    return module


@contextmanager
def importable_from_here() -> Iterator[None]:
    """The current folder on the import path, as for ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)

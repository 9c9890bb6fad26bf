"""Files of `torch.save` and safetensors: state dicts without unpickling, pickled modules only when trusted."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compactor.errors import InputError
from compactor.frontend.quiet import quiet

_NESTS = ("state_dict", "model_state_dict", "model", "ema_state_dict", "params", "net")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is a damaged safetensors file ({error})", "copy it again") from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a `torch.save` file, found also under ``state_dict`` and the like.

    Only tensors and plain containers are read; raises `InputError` for a pickle that holds anything else.
    """
    try:
        with quiet():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is a pickle that holds more than tensors and could run code; it was not loaded",
            "save model.state_dict() instead and give --factory, or, if you trust its author, give --trust-pickle",
        ) from error
    except Exception as error:  # a damaged file makes the reader raise anything
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise InputError(f"{path} is a truncated or damaged torch.save file ({reason})", "copy it again") from error
    return _state_dict_in(path, content)


def read_module(path: Path) -> nn.Module | None:
    """The module in a pickle whose author the user trusts; None when the file holds no module."""
    try:
        with quiet():
            content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling runs arbitrary code
        raise InputError(
            f"{path} cannot be unpickled: {type(error).__name__}: {error}",
            "run where the module's own code can be imported, or give a state dict and --factory",
        ) from error
    return content if isinstance(content, nn.Module) else None


def _state_dict_in(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in _NESTS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
    kind = type(content).__name__
    raise InputError(f"{path} holds a {kind} without tensors, not a state dict", "save model.state_dict()")


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict strictly. Raises `InputError` listing the first keys and shapes that do not fit."""
    expected = module.state_dict()
    given = {_plain(k, expected): v for k, v in state.items()}
    missing = [k for k in expected if k not in given]
    unexpected = [k for k in given if k not in expected]
    wrong = [
        f"{k} {tuple(given[k].shape)} (the factory's is {tuple(v.shape)})"
        for k, v in expected.items()
        if k in given and given[k].shape != v.shape
    ]
    found = [
        f"{what} {len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
        if names
    ]
    if found:
        raise InputError(
            f"the state dict {path} does not fit the factory's module; {'; '.join(found)}",
            "give the factory, and its settings, that the weights were trained with",
        )
    module.load_state_dict(given)


def _plain(key: str, expected: Mapping[str, Tensor]) -> str:
    """The key without the prefix that data parallelism or compilation put before it."""
    for prefix in ("module.", "_orig_mod."):
        if key not in expected and key.startswith(prefix):
            key = key.removeprefix(prefix)
    return key

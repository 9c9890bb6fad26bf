"""`load`: reads a teacher by its content."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compactor.errors import InputError
from compactor.frontend import checkpoints
from compactor.frontend import factory as factories
from compactor.frontend.batching import with_free_batch
from compactor.frontend.exporting import Inputs, export
from compactor.frontend.finite import check_finite
from compactor.frontend.guess import image_inputs
from compactor.frontend.quiet import quiet
from compactor.frontend.sniff import Form, form_of
from compactor.ir import archive
from compactor.ir.program import Program

_NEEDS_FACTORY = "give --factory module:callable (factory= in Python), the code that builds the model"


def load(
    path: str | Path,
    *,
    factory: str | None = None,
    trust_pickle: bool = False,
    example_inputs: Inputs | None = None,
) -> Program:
    """The Program of a teacher on disk; what the file is called does not matter.

    Args:
        path: a `torch.export` archive, a state dict (`torch.save` or safetensors), a Hugging Face folder, or a
            pickled module.
        factory: ``module:callable`` that builds the module of a state dict; returns it, or ``(module, inputs)``.
        trust_pickle: allow unpickling a module, which runs code of the file's author. Nothing else ever unpickles.
        example_inputs: for a state dict or a pickled module: inputs of the nominal shape.

    Raises `InputError` for a teacher that cannot be used, `UnsupportedError` for a model that cannot be exported.
    """
    path = Path(path)
    form = form_of(path)
    if factory is not None and form not in (Form.CHECKPOINT, Form.SAFETENSORS):
        raise InputError(
            f"--factory {factory} with a {form.value}, {path}", "leave --factory away; it is for state dicts"
        )
    if form is Form.ARCHIVE:
        program = with_free_batch(_read_archive(path))
    elif form is Form.FOLDER:
        from compactor.frontend.huggingface import load_folder

        program = load_folder(path)
    else:
        program = _load_weights(path, form, factory, trust_pickle, example_inputs)
    check_finite(program.state, program.trainable)
    return program


def _read_archive(path: Path) -> Program:
    with quiet():
        return archive.load(path)


def _load_weights(
    path: Path, form: Form, factory: str | None, trust_pickle: bool, example_inputs: Inputs | None
) -> Program:
    if factory is not None:
        safetensors = form is Form.SAFETENSORS
        state = checkpoints.read_safetensors(path) if safetensors else checkpoints.read_state_dict(path)
        check_finite(state, state)
        module, declared = factories.build(factory)
        checkpoints.load_into(module, state, path)
    else:
        module = _pickled(path, form, trust_pickle)
        found = getattr(module, "example_inputs", None)
        declared = factories.as_inputs(found() if callable(found) else found)
    given: Inputs | None = example_inputs if example_inputs is not None else declared
    return _export(module, given)


def _pickled(path: Path, form: Form, trust_pickle: bool) -> nn.Module:
    if form is Form.CHECKPOINT and trust_pickle:
        module = checkpoints.read_module(path)
        if module is not None:
            return module
    if form is Form.CHECKPOINT:
        checkpoints.read_state_dict(path)  # says what is wrong if it is not even that
    raise InputError(f"{path} is a state dict: weights without the model", _NEEDS_FACTORY)


def _export(module: nn.Module, inputs: Inputs | None) -> Program:
    meta: dict[str, Any] = {}
    if inputs is None:
        guessed: tuple[tuple[Tensor, ...], str] = image_inputs(module)
        inputs, meta["assumed"] = guessed
    return export(module, inputs, meta=meta)

"""A Hugging Face folder: configuration, safetensors weights, tokenizer; task and inputs through optimum."""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compactor.errors import InputError, MissingRuntimeError, UnsupportedError
from compactor.frontend.exporting import BATCH, export, reason
from compactor.frontend.quiet import quiet
from compactor.ir.program import DynamicDim, Program

NOMINAL_LENGTH = 64
_TEXT = ("input_ids", "attention_mask", "token_type_ids")
_UNKNOWN_LENGTH = 512


class _Normalized(nn.Module):
    """An image model behind the normalisation of its image processor: it takes RGB in 0..1, as all image data here."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values=(pixel_values - self.mean) / self.std)


def load_folder(folder: Path) -> Program:
    """The Program of a folder that ``save_pretrained`` wrote.

    Text models get a free batch and a free sequence length (2 to the model's longest), nominal length 64; image models
    get the normalisation of their image processor inside the graph. ``meta`` holds task, labels and tokenizer folder.
    Raises `InputError` for a folder that is incomplete, `UnsupportedError` for a model that cannot be exported.
    """
    _check_files(folder)
    with quiet():
        model, task = _model(folder)
        tokenizer = _tokenizer(folder)
    meta = _meta(folder, model.config, task, tokenizer)
    names = list(inspect.signature(model.forward).parameters)
    if "input_ids" in names:
        program = _export_text(
            model, _text_inputs(model, names, tokenizer, task), _longest(model.config, tokenizer), meta
        )
    elif "pixel_values" in names:
        program = _export_image(folder, model, task, meta)
    else:
        raise UnsupportedError(
            f"{type(model).__name__} takes {', '.join(names[:3])}", "text and image models can be read from a folder"
        )
    return program


def _check_files(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'} is not JSON: {error}", "copy the folder again") from error
    if not config.get("architectures"):
        raise InputError(f"{folder / 'config.json'} names no architectures", "save the model with save_pretrained")
    if config.get("auto_map"):
        raise UnsupportedError(f"{folder} needs its own Python code to run", "export it in Python with cp.export")
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no .safetensors weights", "save the model again with save_pretrained; pickles are not read"
        )


def _model(folder: Path) -> tuple[Any, str]:
    """The model in evaluation mode and float32, and optimum's name of its task."""
    try:
        import transformers
        from optimum.exporters.tasks import TasksManager
    except ImportError as error:
        raise MissingRuntimeError(f"{folder} needs {error.name}", "pip install 'compactor[hf]'") from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        name = config.architectures[0]
        model_class = getattr(transformers, name, None)
        if model_class is None:
            raise UnsupportedError(
                f"transformers {transformers.__version__} has no {name}", "install a newer transformers"
            )
        for key in ("use_cache", "output_attentions", "output_hidden_states"):
            if getattr(config, key, None):
                setattr(config, key, False)
        task = str(TasksManager.infer_task_from_model(model_class))
        with _no_progress_bar():
            model, info = model_class.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported by name in _check_complete
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"transformers cannot load {folder}: {reason(error)}", "save it again with save_pretrained"
        ) from error
    _check_complete(folder, info)
    return model.eval(), task


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _check_complete(folder: Path, info: Mapping[str, Any]) -> None:
    """transformers fills what a checkpoint lacks with random numbers; a teacher must be whole."""
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(m[0] if isinstance(m, tuple) else m) for m in info["mismatched_keys"])
    if missing or wrong:
        shown = ", ".join((missing + wrong)[:3])
        raise InputError(
            f"{folder}: {len(missing)} weights are missing and {len(wrong)} have another shape: {shown}",
            "fine-tune the model for its task first, or name the right architecture in config.json",
        )


def _tokenizer(folder: Path) -> Any | None:
    if not any((folder / n).is_file() for n in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")):
        return None
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the tokenizer in {folder} cannot be read: {reason(error)}", "save it again") from error


def _meta(folder: Path, config: Any, task: str, tokenizer: Any | None) -> dict[str, Any]:
    meta: dict[str, Any] = {"task": task}
    labels = getattr(config, "id2label", None)
    if labels and task.endswith("classification"):
        meta["labels"] = [str(labels[i]) for i in sorted(labels)]
    if tokenizer is not None:
        meta["tokenizer"] = str(folder.resolve())
    return meta


def _text_inputs(model: Any, names: list[str], tokenizer: Any | None, task: str) -> dict[str, Tensor]:
    """Inputs of the nominal length from optimum's generator, for the names that model and tokenizer share."""
    from optimum.utils import NormalizedTextConfig
    from optimum.utils.input_generators import DummyTextInputGenerator

    if "decoder_input_ids" in names:
        raise UnsupportedError(f"{type(model).__name__} is an encoder-decoder", "give an encoder or a decoder model")
    types = getattr(model.config, "type_vocab_size", 0) or 0
    known = list(getattr(tokenizer, "model_input_names", _TEXT if types > 1 else _TEXT[:2]))
    length = min(NOMINAL_LENGTH, _longest(model.config, tokenizer))
    generator = DummyTextInputGenerator(
        task,
        NormalizedTextConfig(model.config),
        batch_size=2,
        sequence_length=length,
        random_sequence_length_range=None,
    )
    wanted = [n for n in _TEXT if n in names and n in known]
    inputs: dict[str, Tensor] = {n: generator.generate(n, framework="pt").long() for n in wanted}
    for name in inputs.keys() - {"input_ids"}:
        inputs[name] = torch.full_like(inputs[name], int(name == "attention_mask"))
    return inputs


def _longest(config: Any, tokenizer: Any | None) -> int:
    """The longest sequence that positions and tokenizer allow."""
    limits = [getattr(config, n, None) for n in ("max_position_embeddings", "n_positions", "max_seq_len")]
    known = [int(n) for n in limits if isinstance(n, int) and n > 1]
    if "roberta" in config.model_type and known:  # its positions start behind the padding index
        known = [n - int(config.pad_token_id or 0) - 1 for n in known]
    told = getattr(tokenizer, "model_max_length", None)
    if isinstance(told, int) and told < 1 << 20:
        known.append(told)
    return min(known, default=_UNKNOWN_LENGTH)


def _export_text(model: nn.Module, inputs: dict[str, Tensor], longest: int, meta: dict[str, Any]) -> Program:
    sequence = DynamicDim("sequence", 2, longest)
    try:
        return _logits_only(export(model, inputs, [{0: BATCH, 1: sequence} for _ in inputs], meta=meta))
    except UnsupportedError as error:
        fixed = {"static_sequence": error.message}
        return _logits_only(export(model, inputs, [{0: BATCH} for _ in inputs], meta=meta | fixed))


def _export_image(folder: Path, model: Any, task: str, meta: dict[str, Any]) -> Program:
    from optimum.utils import NormalizedVisionConfig
    from optimum.utils.input_generators import DummyVisionInputGenerator

    processor = folder / "preprocessor_config.json"
    told = json.loads(processor.read_text(encoding="utf-8")) if processor.is_file() else {}
    size = getattr(model.config, "image_size", None) or _processor_size(told)
    if size is None:
        raise InputError(f"{folder} does not say the image size", "set image_size in config.json")
    height, width = (size, size) if isinstance(size, int) else size
    generator = DummyVisionInputGenerator(
        task, NormalizedVisionConfig(model.config), batch_size=2, height=height, width=width
    )
    images: Tensor = generator.generate("pixel_values", framework="pt").float()
    module = _Normalized(model, told["image_mean"], told["image_std"]) if told.get("do_normalize") else model
    return _logits_only(export(module, {"pixel_values": images}, meta=meta))


def _processor_size(told: Mapping[str, Any]) -> tuple[int, int] | None:
    size = told.get("crop_size") if told.get("do_center_crop") else told.get("size")
    if isinstance(size, dict):
        side = size.get("shortest_edge")
        size = (size.get("height", side), size.get("width", side))
    height, width = size if isinstance(size, tuple) else (size, size)
    return (int(height), int(width)) if height and width else None


def _logits_only(program: Program) -> Program:
    """Keep the first output, the logits or the last hidden state; states and caches are not what a student learns."""
    from compactor.ir import graphs

    if len(program.outputs) == 1:
        return program
    graph, _ = graphs.copy_graph(program.graph)
    output = graphs.output_node(graph)
    output.args = (tuple(output.args[0])[:1],)  # type: ignore[arg-type]
    graphs.eliminate_dead(graph)
    return program.evolve(graph=graph, outputs=program.outputs[:1])

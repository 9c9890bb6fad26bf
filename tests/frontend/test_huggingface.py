"""Hugging Face folders, built small: task, labels, tokenizer, free length, normalisation inside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import compactor.frontend as frontend
from compactor.errors import InputError, UnsupportedError
from compactor.frontend.quiet import quiet

pytest.importorskip("transformers")
pytest.importorskip("optimum")

WIDTHS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT: dict[str, Any] = {**WIDTHS, "vocab_size": 99, "max_position_embeddings": 40}
BERT_LABELS = {0: "bad", 1: "fine", 2: "good"}


def _bert() -> Any:
    import transformers as t

    return t.BertForSequenceClassification(t.BertConfig(**TEXT, id2label=BERT_LABELS))


def _roberta() -> Any:
    import transformers as t

    return t.RobertaForSequenceClassification(t.RobertaConfig(**TEXT))


def _gpt2() -> Any:
    import transformers as t

    config = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 40}
    return t.GPT2LMHeadModel(t.GPT2Config(**config, bos_token_id=1, eos_token_id=2))


def _llama() -> Any:
    import transformers as t

    return t.LlamaForCausalLM(t.LlamaConfig(**TEXT, num_key_value_heads=2))


def _vit() -> Any:
    import transformers as t

    return t.ViTForImageClassification(t.ViTConfig(**WIDTHS, image_size=32, patch_size=8))


def _save(build: Callable[[], Any], folder: Path) -> Any:
    from transformers.utils import logging

    with quiet():
        torch.manual_seed(0)
        model = build()
        logging.disable_progress_bar()
        model.save_pretrained(folder)
        logging.enable_progress_bar()
    return model.eval()


@pytest.mark.parametrize(
    ("build", "task", "inputs", "longest"),
    [
        (_bert, "text-classification", ["input_ids", "attention_mask", "token_type_ids"], 40),
        (_roberta, "text-classification", ["input_ids", "attention_mask", "token_type_ids"], 38),
        (_gpt2, "text-generation", ["input_ids", "attention_mask"], 40),
        (_llama, "text-generation", ["input_ids", "attention_mask"], 40),
    ],
    ids=["bert", "roberta", "gpt2", "llama"],
)
def test_text_models(build: Callable[[], Any], task: str, inputs: list[str], longest: int, tmp_path: Path) -> None:
    model = _save(build, tmp_path)
    program = frontend.load(tmp_path)
    assert program.meta["task"] == task
    assert [s.name for s in program.inputs] == inputs
    assert program.inputs[0].shape[1] == min(64, longest)
    assert program.inputs[0].dynamic[1].high == longest
    assert len(program.outputs) == 1
    values = dict.fromkeys(inputs, torch.zeros(3, 7, dtype=torch.long)) | {"attention_mask": torch.ones(3, 7).long()}
    values["input_ids"] = torch.arange(3, 24).view(3, 7)
    values["attention_mask"][1, 5:] = 0
    with torch.no_grad():
        want = model(**values).logits
    torch.testing.assert_close(program(*(values[n] for n in inputs)), want, rtol=1e-4, atol=1e-4)


def test_labels_and_tied_weights(tmp_path: Path) -> None:
    _save(_bert, tmp_path / "bert")
    assert frontend.load(tmp_path / "bert").meta["labels"] == ["bad", "fine", "good"]
    model = _save(_gpt2, tmp_path / "gpt2")
    program = frontend.load(tmp_path / "gpt2")
    assert program.cost().parameters == sum(p.numel() for p in model.parameters())


def test_image_models_take_unnormalised_images(tmp_path: Path) -> None:
    model = _save(_vit, tmp_path)
    told = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "size": 32}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    program = frontend.load(tmp_path)
    x = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(told[k]).view(1, 3, 1, 1) for k in ("image_mean", "image_std"))
    with torch.no_grad():
        want = model((x - mean) / std).logits
    torch.testing.assert_close(program(x), want, rtol=1e-4, atol=1e-4)
    assert program.meta["task"] == "image-classification"


def test_bad_folders(tmp_path: Path) -> None:
    _save(_bert, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def fails(kind: type[Exception], words: str, **changes: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(kind, match=words):
            frontend.load(tmp_path)

    fails(InputError, "names no architectures", architectures=None)
    fails(UnsupportedError, "has no NoSuchModel", architectures=["NoSuchModel"])
    fails(UnsupportedError, "own Python code", auto_map={"AutoModel": "code.Model"})
    fails(InputError, "2 weights are missing.*qa_outputs", architectures=["BertForQuestionAnswering"])
    fails(InputError, "0 weights are missing and 2 have another shape: classifier", id2label={"0": "a", "1": "b"})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        frontend.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \.safetensors"):
        frontend.load(tmp_path)


def test_shared_teachers(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "teachers" / "cifar10-resnet56"
    monkeypatch.chdir(folder)
    exported = frontend.load(folder / "resnet56.pt2")
    built = frontend.load("resnet56.state_dict.pt", factory="resnet_cifar:resnet56")
    assert exported.fingerprint == built.fingerprint
    text = frontend.load(shared / "teachers" / "sst2-minilm")
    assert text.meta["tokenizer"] == str((shared / "teachers" / "sst2-minilm").resolve())

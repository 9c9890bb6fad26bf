"""TSV and CSV tables of text, tokenized with the teacher's tokenizer."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from compactor.calibration import labels
from compactor.calibration.splits import TextSplit
from compactor.errors import InputError, MissingRuntimeError
from compactor.ir.program import Program

# Pairs first: a table with both columns of one is a pair task.
TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text_a", "text_b"),
    ("sentence",),
    ("text",),
)
_CHUNK = 8192


def read(path: Path, program: Program) -> TextSplit:
    """The split of a table with a header: text in ``sentence`` or ``text`` (or a pair of columns), ``label`` optional.

    Texts are cut at the model's nominal length. Raises `InputError` for missing columns, unknown labels, or a teacher
    without tokenizer.
    """
    tokenizer = _tokenizer(path, program)
    rows = _rows(path)
    header = rows[0]
    columns = next((c for c in TEXT_COLUMNS if set(c) <= set(header)), None)
    if columns is None:
        raise InputError(f"{path} has columns {', '.join(header)}", "name the text column sentence or text")
    body = rows[1:]
    for line, row in enumerate(body, 2):
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: {len(row)} fields, the header has {len(header)}", "repair the line")
    texts = [[row[header.index(c)] for row in body] for c in columns]
    target = header.index("label") if "label" in header else None
    targets = None if target is None else labels.from_texts([row[target] for row in body], program, str(path))
    return _tokenized(texts, tokenizer, program, targets)


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            tabs = "\t" in handle.readline()
            handle.seek(0)
            # Tables with tabs, as of GLUE, hold stray quotes; tables with commas need theirs.
            reader = csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(handle)
            rows = [row for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a UTF-8 table: {error}", "save it as UTF-8 TSV or CSV") from error
    if len(rows) < 2:
        raise InputError(f"{path} is empty: {len(rows)} lines", "give a header and at least one row")
    rows[0] = [name.strip() for name in rows[0]]
    return rows


def _tokenizer(path: Path, program: Program) -> Any:
    folder = program.meta.get("tokenizer")
    if folder is None:
        raise InputError(
            f"{path} is text, but the teacher has no tokenizer", "load the teacher from its Hugging Face folder"
        )
    from compactor.frontend.quiet import quiet

    try:
        with quiet():
            import transformers

            return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise MissingRuntimeError(f"{path} needs {error.name}", "pip install 'compactor[hf]'") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the tokenizer in {folder} cannot be read: {error}", "load the teacher again") from error


def _tokenized(texts: Sequence[list[str]], tokenizer: Any, program: Program, targets: torch.Tensor | None) -> TextSplit:
    names = tuple(spec.name for spec in program.inputs)
    unknown = [n for n in names if n not in ("input_ids", "attention_mask", "token_type_ids")]
    if "input_ids" not in names or unknown:
        raise InputError(f"the model takes {', '.join(names)}, not tokens of a text", "give arrays named by input")
    spec = program.inputs[names.index("input_ids")]
    kept = [n for n in names if n != "attention_mask"]
    values: dict[str, list[int]] = {n: [] for n in kept}
    sizes: list[int] = []
    for start in range(0, len(texts[0]), _CHUNK):
        part = tokenizer(
            *[column[start : start + _CHUNK] for column in texts],
            truncation=True,
            max_length=spec.shape[1],
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in kept,
        )
        for name in kept:
            for sequence in part[name]:
                values[name] += sequence
        sizes += [len(sequence) for sequence in part["input_ids"]]
    if 0 in sizes:
        raise InputError(f"text {sizes.index(0)} has no tokens", "remove empty rows")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return TextSplit(
        names=names,
        tokens={name: torch.tensor(flat, dtype=torch.int32) for name, flat in values.items()},
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(sizes).cumsum(0)]),
        pads={"input_ids": int(pad or 0), "token_type_ids": int(getattr(tokenizer, "pad_token_type_id", 0))},
        length=spec.shape[1],
        dynamic=1 in spec.dynamic,
        labels=targets,
    )

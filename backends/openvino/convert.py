"""Saving OpenVINO IR whose bytes depend on the model only."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from compactor.backends.profiles import names_in

_STEP = 1 << 20
_LARGEST = float(np.finfo(np.float16).max)


def save_ir(model: Any, path: Path, precision: str, marks: Mapping[str, str]) -> dict[str, str]:
    """Write ``path`` (.xml) and the .bin beside it; float weights in 16 bits, unless ``precision`` is float32.

    The model is simplified first, as OpenVINO's converter does; the converter itself would report its use over the net.
    Numbers that OpenVINO draws for names, its notes on versions and conversion, and indentation are left out.
    ``marks`` say what the nodes of the model were made of, and so do those that come back, by the names in the file.
    """
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    marks = _marked_throughout(model, marks)
    apply_moc_transformations(model, cf=False)
    if precision == "int8":
        _halve_tables(model)
    kept = {name for result in model.get_results() for name in result.input_value(0).get_names()}
    nodes = model.get_ordered_ops()
    made_of = _made_of(nodes, marks)
    for i, node in enumerate(nodes):
        if node.get_type_name() == "Parameter":
            continue
        node.set_friendly_name(f"{node.get_type_name()}.{i}")
        for port in node.outputs():
            port.set_names(port.get_names() & kept)
    try:
        openvino.save_model(model, path, compress_to_fp16=precision in ("float16", "bfloat16"))
    except RuntimeError:
        _ask_the_disk(path.with_suffix(".bin"))
        raise
    tree = ElementTree.parse(path)
    root = tree.getroot()
    root.set("name", "model")
    for notes in root.findall("rt_info"):
        root.remove(notes)
    for element in root.iter():
        element.text, element.tail = (text.strip() if text else None for text in (element.text, element.tail))
    tree.write(path, encoding="utf-8", xml_declaration=True)
    for file in (path, path.with_suffix(".bin")):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    return {nodes[i].get_friendly_name(): origin for i, origin in made_of.items()}


def _marked_throughout(model: Any, marks: Mapping[str, str]) -> dict[str, str]:
    """Name every node so that simplifications, which hand names on, keep its mark; the marks by these names."""
    nodes = model.get_ordered_ops()
    found = {}
    for i, origin in _made_of(nodes, marks).items():
        if nodes[i].get_type_name() != "Parameter":
            nodes[i].set_friendly_name(f"Node.{i}")
            found[f"Node.{i}"] = origin
    return found


def _made_of(nodes: Sequence[Any], marks: Mapping[str, str]) -> dict[int, str]:
    """The mark of each node by its number; one whose name lost it takes that of a node it feeds."""
    number = {node.get_instance_id(): i for i, node in enumerate(nodes)}
    found: dict[int, str] = {}
    for i, node in reversed(list(enumerate(nodes))):
        own = [marks.get(name) for name in reversed(names_in(node.get_friendly_name()))]
        fed = [found.get(number[t.get_node().get_instance_id()]) for o in node.outputs() for t in o.get_target_inputs()]
        origin = next((m for m in (*own, *fed) if m is not None), None)
        if origin is not None:
            found[i] = origin
    return found


def _halve_tables(model: Any) -> None:
    """Store what stayed float32 (embeddings, weights) in 16 bits; it is converted back when the model is loaded.

    Vectors stay: they are small, and among them are scales, which of nearly dead channels lie below half precision.
    """
    import openvino
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.f32:
            continue
        values = node.data
        if sum(size > 1 for size in values.shape) < 2 or not np.abs(values).max() <= _LARGEST:
            continue
        half = opset13.convert(opset13.constant(values.astype(np.float16)), "f32")
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(half.output(0))


def _ask_the_disk(path: Path) -> None:
    """Raise the OSError behind a failed write, which OpenVINO does not tell: a full disk refuses to go on here too."""
    try:
        with path.open("ab") as handle:
            handle.write(bytes(_STEP))
            handle.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error

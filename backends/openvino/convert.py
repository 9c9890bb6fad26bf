"""Saving OpenVINO IR whose bytes depend on the model only."""

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def save_ir(model: Any, path: Path, *, halve: bool) -> None:
    """Write ``path`` (.xml) and the .bin beside it; ``halve`` stores float weights in 16 bits.

    The model is simplified first, as OpenVINO's converter does; the converter itself would report its use over the net.
    Numbers that OpenVINO draws for names, its notes on versions and conversion, and indentation are left out.
    """
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=False)
    kept = {name for result in model.get_results() for name in result.input_value(0).get_names()}
    for i, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() == "Parameter":
            continue
        node.set_friendly_name(f"{node.get_type_name()}.{i}")
        for port in node.outputs():
            port.set_names(port.get_names() & kept)
    openvino.save_model(model, path, compress_to_fp16=halve)
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

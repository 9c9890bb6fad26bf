"""TensorRT's quantizer rules: what `quantize.ptq` makes keeps them, and every planted violation is named."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compactor import parity
from compactor.backends.tensorrt.backend import TensorRTBackend
from compactor.backends.tensorrt.rules import check_quantizers, violations
from compactor.errors import UnsupportedError
from compactor.ir.program import Program
from compactor.passes.canonicalize.canonicalize import canonical
from compactor.passes.canonicalize.fold_batchnorm import folded_program
from compactor.passes.quantize.ptq import PostTrainingQuantization, PtqConfig
from compactor.targets.registry import profiles
from tests.backends.template import form
from tests.models import program
from tests.passes.support import context

pytest.importorskip("nncf")

BACKEND, ORIN = TensorRTBackend(), profiles.resolve("jetson-orin")
MODELS = {"resnet_b": "Conv", "mobilenet_v2": "Conv", "vit": "MatMul", "bert": "MatMul"}
Graph = Any
Plant = Callable[[Graph], ir.Node]


@cache
def quantized(name: str) -> Program:
    """A model as `quantize.ptq` makes it for this target."""
    before = folded_program(canonical(program(name))[0])[0]
    with TemporaryDirectory() as folder:
        ctx = context(before, Path(folder), device=ORIN, backend=BACKEND)
        return PostTrainingQuantization(PtqConfig(samples=8)).run(before, ctx).program


@cache
def lowered(name: str) -> bytes:
    """The ONNX file of a model that is quantized by hand."""
    with TemporaryDirectory() as folder:
        made = BACKEND.lower(form(name, "int8"), ORIN, Path(folder))
        return (made.folder / made.files[0]).read_bytes()


def graph_of(name: str) -> Graph:
    """A fresh copy of the graph in that file."""
    import onnx

    return ir.from_proto(onnx.load_from_string(lowered(name))).graph


def found(graph: Graph) -> list[tuple[str, str]]:
    """Violations by the name of the node."""
    return [(str(node.name), reason) for node, reason in violations(graph)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_what_ptq_makes_keeps_the_rules(name: str, tmp_path: Path) -> None:
    made = BACKEND.lower(quantized(name), ORIN, tmp_path)
    graph = ir.load(tmp_path / "model.onnx").graph
    assert found(graph) == []
    products = [node for node in graph if node.op_type == MODELS[name]]
    weighted = [n for n in products if all(dequantizer(value) for value in n.inputs[:2])]
    assert len(weighted) >= 4, "input and weight of these are integers"
    session = BACKEND.reference(made)
    assert session is not None
    assert parity.check(quantized(name), session, quantized(name).example_inputs(4, seed=3)).passed


def dequantizer(value: Any) -> bool:
    """Whether this value comes out of one."""
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def constant(graph: Graph, array: Any) -> ir.Value:
    """A new stored tensor."""
    name = f"planted.{len(graph.initializers)}"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def quantizer(graph: Graph, number: int = 0) -> ir.Node:
    """One of the QuantizeLinear nodes."""
    return [n for n in graph if n.op_type == "QuantizeLinear"][number]


def weight(graph: Graph, reader: str = "Conv") -> ir.Node:
    """The DequantizeLinear of the first quantized weight."""
    return next(
        n.inputs[1].producer()
        for n in graph
        if n.op_type == reader and dequantizer(n.inputs[1]) and n.inputs[1].producer().inputs[0].const_value is not None
    )


def reads(graph: Graph, operator: str, inputs: list[ir.Value]) -> ir.Node:
    """A new node, whose output nobody reads."""
    node = ir.node(operator, inputs, name=f"planted {operator}")
    graph.append(node)
    return node


def replaced(graph: Graph, place: int, value: Any) -> ir.Node:
    """A quantizer with another constant for its scale (1) or zero point (2)."""
    node = quantizer(graph)
    node.replace_input_with(place, constant(graph, value))
    return node


def computed(graph: Graph, place: int) -> ir.Node:
    """A quantizer whose scale (1) or zero point (2) is computed."""
    node = quantizer(graph)
    node.replace_input_with(place, reads(graph, "Identity", [node.inputs[place]]).outputs[0])
    return node


def zero_point(graph: Graph, value: Any) -> ir.Node:
    return replaced(graph, 2, value)


def scale(graph: Graph, value: Any) -> ir.Node:
    return replaced(graph, 1, np.asarray(value, np.float16))


def no_zero_point(graph: Graph) -> ir.Node:
    node = quantizer(graph)
    node.resize_inputs(2)
    return node


def activation_per_channel(graph: Graph) -> ir.Node:
    node = next(n for n in graph if n.op_type == "DequantizeLinear" and n.inputs[0].const_value is None)
    node.replace_input_with(1, constant(graph, np.ones(3, np.float16)))
    return node


def stored(graph: Graph, kind: type) -> ir.Node:
    node = weight(graph)
    node.replace_input_with(0, constant(graph, node.inputs[0].const_value.numpy().astype(kind)))
    return node


def axis(graph: Graph) -> ir.Node:
    node = weight(graph)
    channels = node.inputs[0].const_value.shape[1]
    node.replace_input_with(1, constant(graph, np.ones(channels, np.float16)))
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    return node


def number_of_scales(graph: Graph) -> ir.Node:
    node = weight(graph)
    node.replace_input_with(1, constant(graph, np.ones(node.inputs[1].const_value.size + 1, np.float16)))
    return node


def rows_of_a_product(graph: Graph) -> ir.Node:
    node = weight(graph, "MatMul")
    node.replace_input_with(1, constant(graph, np.ones(node.inputs[0].const_value.shape[0], np.float16)))
    node.attributes["axis"] = ir.AttrInt64("axis", 0)
    return node


def weight_per_channel_elsewhere(graph: Graph) -> ir.Node:
    node = weight(graph)
    reads(graph, "Relu", [node.outputs[0]])
    return node


def bias(graph: Graph) -> ir.Node:
    reader = next(n for n in graph if n.op_type == "Conv" and len(n.inputs) > 2)
    small = constant(graph, np.ones(reader.inputs[2].const_value.shape[0], np.int8))
    node = ir.node("DequantizeLinear", [small, constant(graph, np.float16(0.1))], name="planted bias")
    graph.insert_before(reader, node)
    reader.replace_input_with(2, node.outputs[0])
    return node


def bias_of_a_product(graph: Graph) -> ir.Node:
    reader, place = next(
        (n, i)
        for n in graph
        if n.op_type == "Add"
        for i, value in enumerate(n.inputs)
        if value.const_value is not None and getattr(n.inputs[1 - i].producer(), "op_type", "") == "MatMul"
    )
    small = constant(graph, np.ones(reader.inputs[place].const_value.size, np.int8))
    node = ir.node("DequantizeLinear", [small, constant(graph, np.float16(0.1))], name="planted bias")
    graph.insert_before(reader, node)
    reader.replace_input_with(place, node.outputs[0])
    return node


def read_as_integers(graph: Graph) -> ir.Node:
    node = quantizer(graph)
    reads(graph, "MatMulInteger", [node.outputs[0], constant(graph, np.ones((1, 1), np.int8))])
    return node


def read_as_integers_moved(graph: Graph) -> ir.Node:
    node = quantizer(graph)
    moved = reads(graph, "Transpose", [node.outputs[0]])
    reads(graph, "Relu", [moved.outputs[0]])
    return node


def integers_of_nobody(graph: Graph) -> ir.Node:
    node = next(n for n in graph if n.op_type == "DequantizeLinear" and n.inputs[0].const_value is None)
    cast = reads(graph, "Cast", [graph.inputs[0]])
    node.replace_input_with(0, cast.outputs[0])
    return node


def integer_output(graph: Graph) -> ir.Node:
    node = quantizer(graph)
    graph.outputs.append(node.outputs[0])
    return node


PLANTED: dict[str, tuple[str, Plant, str]] = {
    "zero point": ("residual", lambda g: zero_point(g, np.int8(3)), "zero point that is not 0"),
    "computed zero point": ("residual", lambda g: computed(g, 2), "zero point that is not 0"),
    "uint8": ("residual", lambda g: zero_point(g, np.uint8(0)), "stores UINT8, not INT8"),
    "no zero point": ("residual", no_zero_point, "stores UINT8, not INT8"),
    "zero scale": ("residual", lambda g: scale(g, 0.0), "scale that is not positive"),
    "negative scale": ("encoder", lambda g: scale(g, -0.1), "scale that is not positive"),
    "NaN scale": ("encoder", lambda g: scale(g, np.nan), "scale that is not positive"),
    "infinite scale": ("encoder", lambda g: scale(g, np.inf), "scale that is not positive"),
    "computed scale": ("residual", lambda g: computed(g, 1), "scale that is not a constant"),
    "activation per channel": ("residual", lambda g: scale(g, np.ones(3)), "3 scales on an activation"),
    "activation per channel, back": ("residual", activation_per_channel, "3 scales on an activation"),
    "unsigned weight": ("residual", lambda g: stored(g, np.uint8), "stores UINT8, not INT8"),
    "wide weight": ("residual", lambda g: stored(g, np.int32), "stores INT32, not INT8"),
    "axis": ("residual", axis, "scales on axis 1, the output channels"),
    "axis of a product": ("encoder", rows_of_a_product, "scales on axis 0, the output channels"),
    "number of scales": ("residual", number_of_scales, "scales for"),
    "per channel elsewhere": ("residual", weight_per_channel_elsewhere, "(Relu) takes one"),
    "bias": ("residual", bias, "is the bias of"),
    "bias of a product": ("encoder", bias_of_a_product, "is the bias of"),
    "read as integers": ("encoder", read_as_integers, "read as integers by planted MatMulInteger"),
    "read as integers, moved": ("encoder", read_as_integers_moved, "read as integers by planted Relu"),
    "integers of nobody": ("residual", integers_of_nobody, "planted Cast made, not a quantizer"),
    "integer output": ("residual", integer_output, "is an output of the model"),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_violation_is_named(rule: str) -> None:
    model, plant, words = PLANTED[rule]
    graph = graph_of(model)
    node = plant(graph)
    assert [(name, words in reason) for name, reason in found(graph)] == [(node.name, True)]
    with pytest.raises(UnsupportedError, match=str(node.name)) as caught:
        check_quantizers(graph)
    assert "quantize for this target" in caught.value.remedy


@given(st.data())
def test_all_planted_zero_points_are_found_and_nothing_else(data: st.DataObject) -> None:
    graph = graph_of("encoder")
    nodes = [n for n in graph if n.op_type == "QuantizeLinear"]
    chosen = data.draw(st.dictionaries(st.integers(0, len(nodes) - 1), st.integers(-128, 127), min_size=1))
    for number, value in chosen.items():
        nodes[number].replace_input_with(2, constant(graph, np.int8(value)))
    wanted = {str(nodes[number].name) for number, value in chosen.items() if value != 0}
    assert {name for name, _ in found(graph)} == wanted


def test_several_violations_are_all_found() -> None:
    graph = graph_of("residual")
    nodes = [plant(graph) for plant in (bias, number_of_scales, read_as_integers)]
    assert sorted(name for name, _ in found(graph)) == sorted(str(node.name) for node in nodes)

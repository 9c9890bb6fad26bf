"""Reading an archive runs no code, whatever is in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import compactor.frontend as frontend
from compactor.errors import ExitCode, InputError
from compactor.ir.safety import _is_expression, _is_operator, _is_spec
from tests.frontend import planted

Plant = Callable[[dict[str, bytes], Path], dict[str, bytes]]


def _payload(path: str, use_pickle: bool) -> dict[str, Any]:
    return {"path_name": path, "is_param": False, "use_pickle": use_pickle, "tensor_meta": None}


def _sample_inputs(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    return content | {planted.SAMPLES: planted.bomb(marker)}


def _weight(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    def edit(config: Any) -> None:
        for payload in config["config"].values():
            payload["use_pickle"] = True

    bombs = {n: planted.bomb(marker) for n in content if n.startswith("data/weights/weight_")}
    return planted.edited(content, planted.WEIGHTS, edit) | bombs


def _constant(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    def edit(config: Any) -> None:
        config["config"]["c"] = _payload("opaque_obj_0", True)

    body = planted.bomb(marker, torch_format=False)
    return planted.edited(content, planted.CONSTANTS, edit) | {"data/constants/opaque_obj_0": body}


def _constant_that_says_it_is_none(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    def edit(config: Any) -> None:
        config["config"]["c"] = _payload("opaque_obj_0", False)

    body = planted.bomb(marker, torch_format=False)
    return planted.edited(content, planted.CONSTANTS, edit) | {"data/constants/opaque_obj_0": body}


def _legacy_weights(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    return content | {"data/weights/model.pt": planted.bomb(marker)}


def _library(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    return content | {"data/aotinductor/model/model.so": b"\x7fELF"}


def _expression(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    def edit(model: Any) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        size = {"as_expr": {"expr_str": f"open({str(marker)!r}, 'w').fileno()", "hint": None}}
        for value in values.values():
            value["sizes"][0] = size

    return planted.edited(content, planted.MODEL, edit)


def _operator(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    def edit(model: Any) -> None:
        node = model["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.hub.os.mkdir"

    return planted.edited(content, planted.MODEL, edit)


def _input_name(content: dict[str, bytes], marker: Path) -> dict[str, bytes]:
    name = f"x=open({str(marker)!r},'w')".encode()
    return content | {planted.MODEL: content[planted.MODEL].replace(b'"input"', b'"' + name + b'"')}


PLANTS = (
    _sample_inputs,
    _weight,
    _constant,
    _constant_that_says_it_is_none,
    _legacy_weights,
    _library,
    _expression,
    _operator,
    _input_name,
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: p.__name__.strip("_"))
def test_planted_code_does_not_run(plant: Plant, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = planted.write(tmp_path / "teacher.pt2", plant(planted.records(), marker))
    with pytest.raises(InputError) as raised:
        frontend.load(path)
    assert not marker.exists()
    assert raised.value.exit_code is ExitCode.BAD_INPUT
    assert str(path) in raised.value.message
    assert raised.value.remedy


def test_the_bomb_is_live(tmp_path: Path) -> None:
    """The tests above prove something only if the same pickle does run where pickles are loaded."""
    marker = tmp_path / "marker"
    path = tmp_path / "x.pt"
    path.write_bytes(planted.bomb(marker))
    torch.load(path, weights_only=False)["x"].close()
    assert marker.exists()


def test_untouched_records_load(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "teacher", planted.records())
    program = frontend.load(path)
    x = torch.randn(5, 4)
    torch.testing.assert_close(program(x), planted.small()(x).detach())


def test_a_good_archive_needs_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good archive loads with every unrestricted way to unpickle barred."""

    def barred(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    path = planted.write(tmp_path / "teacher", planted.records())
    monkeypatch.setattr("pickle.loads", barred)
    monkeypatch.setattr("torch._C._pickle_load_obj", barred)
    frontend.load(path)


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("Mul(Integer(2), Symbol('s77', integer=True))", True),
        ("s0*s1 + 1", True),
        ("FloorDiv(s0, 2)", True),
        ("__import__('os').system('x')", False),
        ("Symbol('s77').__class__", False),
        ("Symbol('a b')", False),
        ("open(s0)", False),
        ("[x for x in s0]", False),
    ],
)
def test_expressions(text: str, accepted: bool) -> None:
    assert _is_expression(text) is accepted


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("torch.ops.aten.add.Tensor", True),
        ("torch.ops.aten.__and__.Tensor", True),
        ("torch.ops.higher_order.wrap_with_set_grad_enabled", True),
        ("_operator.mul", True),
        ("torch.sym_max", True),
        ("torch.ops.load_library", False),
        ("torch.ops.aten.from_file.default", False),
        ("torch.ops.__class__.mro", False),
        ("torch.load", False),
        ("torch.os.system", False),
        ("_operator.methodcaller", False),
        ("_operator.call", False),
        ("#anything", False),
        ("builtins.eval", False),
    ],
)
def test_operators(text: str, accepted: bool) -> None:
    assert _is_operator(text) is accepted


def test_specs_that_import_are_refused() -> None:
    assert _is_spec('[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]')
    assert not _is_spec('[1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}]')
    assert not _is_spec('[1, {"type": "builtins.dict", "context": "[{\\"__enum__\\": true}]", "children_spec": []}]')

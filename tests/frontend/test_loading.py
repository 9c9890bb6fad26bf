"""Every accepted form of a teacher, whatever the file is called; every bad one with value and remedy."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import compactor.frontend as frontend
from compactor.errors import ExitCode, InputError
from compactor.ir.program import Program
from tests.frontend import planted

FACTORY = "tests.frontend.teachers:small"
X = torch.linspace(-1, 1, 20).view(5, 4)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """The state dict of the small teacher."""
    return planted.small().state_dict()


def _same(program: Program, module: nn.Module) -> None:
    torch.testing.assert_close(program(X), module.eval()(X).detach())


def _fails(path: Path, *words: str, **options: object) -> InputError:
    with pytest.raises(InputError) as raised:
        frontend.load(path, **options)  # type: ignore[arg-type]
    assert raised.value.exit_code is ExitCode.BAD_INPUT
    assert raised.value.remedy
    for word in words:
        assert word in str(raised.value)
    return raised.value


@pytest.mark.parametrize("name", ["teacher.pt2", "teacher.pt", "teacher", "teacher.zip"])
def test_archive_under_any_name(name: str, tmp_path: Path) -> None:
    _same(frontend.load(planted.write(tmp_path / name, planted.records())), planted.small())


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_state_dict(nest: str | None, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    torch.save({nest: state, "epoch": 3} if nest else state, path)
    _same(frontend.load(path, factory=FACTORY), planted.small())


def test_state_dict_of_data_parallel(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "w.pt")
    _same(frontend.load(tmp_path / "w.pt", factory=FACTORY), planted.small())


def test_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.pt")
    _same(frontend.load(tmp_path / "w.pt", factory=FACTORY), planted.small())


def test_pickled_module_needs_trust(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(planted.small(), path)
    _fails(path, "could run code", "--trust-pickle")
    program = frontend.load(path, trust_pickle=True, example_inputs=torch.zeros(1, 4))
    _same(program, planted.small())


@pytest.mark.parametrize("torch_format", [True, False])
@pytest.mark.parametrize("factory", [None, FACTORY])
def test_pickle_does_not_run(torch_format: bool, factory: str | None, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "m.pt"
    path.write_bytes(planted.bomb(marker, torch_format=torch_format))
    _fails(path, str(path), factory=factory)
    assert not marker.exists()


def test_missing_empty_unknown(tmp_path: Path) -> None:
    _fails(tmp_path / "no.pt", "no.pt does not exist")
    empty, unknown = tmp_path / "empty.pt2", tmp_path / "unknown.pt2"
    empty.touch()
    unknown.write_bytes(b"\x7fELF and more of it")
    _fails(empty, "is empty")
    _fails(unknown, "unknown format", "ELF")
    _fails(tmp_path, "folder without config.json")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_truncated_archive(share: float, tmp_path: Path) -> None:
    whole = planted.write(tmp_path / "t.pt2", planted.records()).read_bytes()
    path = tmp_path / "cut.pt2"
    path.write_bytes(whole[: int(len(whole) * share)])
    _fails(path, "truncated or damaged")


def test_damaged_content(tmp_path: Path) -> None:
    content = planted.records()
    path = planted.write(tmp_path / "t.pt2", content | {planted.MODEL: content[planted.MODEL][:500]})
    _fails(path, "cannot read")


def test_truncated_state_dict_and_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.pt")
    for name in "abc":
        path = tmp_path / f"{name}.pt"
        path.write_bytes(path.read_bytes()[:-100])
        _fails(path, str(path), factory=FACTORY)


def test_state_dict_without_factory(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    _fails(tmp_path / "w.pt", "weights without the model", "--factory")
    _fails(tmp_path / "w.pt", "weights without the model", "--factory", trust_pickle=True)


def test_wrong_keys_and_shapes(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    del state["0.bias"]
    torch.save(state | {"extra": torch.zeros(1), "2.weight": torch.zeros(5, 8)}, tmp_path / "w.pt")
    _fails(tmp_path / "w.pt", "0.bias", "extra", "2.weight (5, 8)", "(3, 8)", factory=FACTORY)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(value: float, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    state["2.weight"][1, 2] = value
    torch.save(state, tmp_path / "w.pt")
    _fails(tmp_path / "w.pt", "2.weight", "1 of 24", factory=FACTORY)
    module = planted.small()
    module.load_state_dict(state)
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(
        torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=({0: batch},)), tmp_path / "t.pt2"
    )
    _fails(tmp_path / "t.pt2", "2.weight", "1 of 24")


@pytest.mark.parametrize(
    ("factory", "word"),
    [
        ("nothing_of_this_name:build", "nothing_of_this_name"),
        ("tests.frontend.teachers:absent", "small"),
        ("tests.frontend.teachers", "module:callable"),
        ("tests.frontend.teachers:WIDTH", "not callable"),
        ("tests.frontend.teachers:fails", "no such weights"),
        ("tests.frontend.teachers:returns_text", "returned a str"),
    ],
)
def test_bad_factory(factory: str, word: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    _fails(tmp_path / "w.pt", word, factory=factory)


def test_factory_from_the_current_folder_and_by_path(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "w.pt")
    code = "from tests.frontend.planted import small\nimport torch\nexample_inputs = torch.zeros(1, 4)\n"
    (tmp_path / "own_teacher_code.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    _same(frontend.load("w.pt", factory="own_teacher_code:small"), planted.small())
    monkeypatch.chdir("/")
    _same(frontend.load(tmp_path / "w.pt", factory=f"{tmp_path}/own_teacher_code.py:small"), planted.small())


def test_unknown_inputs_are_said(tmp_path: Path) -> None:
    torch.save(planted.small().state_dict(), tmp_path / "w.pt")
    _fails(tmp_path / "w.pt", "inputs is not known", "example_inputs", factory="tests.frontend.planted:small")


def test_assumed_image_size_is_recorded(tmp_path: Path) -> None:
    from tests.frontend.teachers import convolutional

    torch.save(convolutional().state_dict(), tmp_path / "w.pt")
    program = frontend.load(tmp_path / "w.pt", factory="tests.frontend.teachers:convolutional")
    assert program.inputs[0].shape[1:] == (3, 32, 32)
    assert "3x32x32 assumed" in program.meta["assumed"]


def test_other_zip_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    _fails(tmp_path / "a.npz", "x.npy, not a model")
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(planted.small()).save(tmp_path / "s.pt")
    _fails(tmp_path / "s.pt", "TorchScript")
    (tmp_path / "p.pt").write_bytes(pickle.dumps([1, 2, 3], protocol=4))
    _fails(tmp_path / "p.pt", "p.pt")


def test_factory_with_an_archive(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "t.pt2", planted.records())
    _fails(path, "--factory", factory=FACTORY)

"""Saved Programs: the same after loading, and the same bytes every time and everywhere."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compactor.ir import archive
from compactor.ir.program import Program
from tests.models import program

_SAVE = """
import sys
from pathlib import Path
from tests.models import program
program(sys.argv[1]).save(Path(sys.argv[2]))
"""


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_same_bytes_under_any_name_and_after_loading(architecture_program: Program, tmp_path: Path) -> None:
    paths = [tmp_path / n for n in ("a.pt2", "another_name.pt2", "reloaded.pt2")]
    architecture_program.save(paths[0])
    architecture_program.save(paths[1])
    again = archive.load(paths[0])
    again.save(paths[2])
    assert again.fingerprint == architecture_program.fingerprint
    assert len({_sha(p) for p in paths}) == 1


@pytest.mark.slow
def test_same_bytes_in_another_process(tmp_path: Path) -> None:
    program("bert").save(tmp_path / "here.pt2")
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    command = [sys.executable, "-W", "ignore", "-c", _SAVE, "bert", str(tmp_path / "there.pt2")]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2], capture_output=True)
    assert _sha(tmp_path / "here.pt2") == _sha(tmp_path / "there.pt2")


def test_meta_travels_but_paths_of_this_machine_do_not(tmp_path: Path) -> None:
    meta = {"task": "text-classification", "labels": ["a", "b"], "tokenizer": "/some/where"}
    before = program("bert").evolve(meta=meta, history=({"pass": "x", "version": 1},), precision="bfloat16")
    before.save(tmp_path / "p.pt2")
    after = archive.load(tmp_path / "p.pt2")
    assert after.meta == {"task": "text-classification", "labels": ["a", "b"]}
    assert after.history == before.history
    assert after.precision == "bfloat16"
    assert b"/some/where" not in (tmp_path / "p.pt2").read_bytes()


def test_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    """A slice of a large tensor must not drag the large one along."""
    base = program("bert")
    big = {k: torch.cat([v, v])[: len(v)] if v.dim() else v for k, v in base.state.items()}
    base.save(tmp_path / "own.pt2")
    base.evolve(state=big).save(tmp_path / "views.pt2")
    assert _sha(tmp_path / "own.pt2") == _sha(tmp_path / "views.pt2")


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    broken = program("bert").evolve(meta={"x": object()})
    try:
        broken.save(folder / "p.pt2")
    except TypeError:
        assert list(folder.iterdir()) == []
    else:
        raise AssertionError("saved what JSON cannot hold")


def test_quantized_programs_load_where_their_operators_are_not_registered_yet(tmp_path: Path) -> None:
    """A process that only reads the archive must still know the quantization operators."""
    import torch.ao.quantization.fx._decomposed

    from compactor.frontend import export

    class Quantized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.arange(-6, 6, dtype=torch.int8).view(3, 4))
            self.register_buffer("scale", torch.tensor([0.1, 0.2, 0.3]))
            self.register_buffer("zero", torch.zeros(3, dtype=torch.int64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ops = torch.ops.quantized_decomposed
            q = ops.quantize_per_tensor.default(x, 0.05, 0, -128, 127, torch.int8)
            x = ops.dequantize_per_tensor.default(q, 0.05, 0, -128, 127, torch.int8)
            args = (self.weight, self.scale, self.zero, 0, -128, 127, torch.int8)
            return torch.nn.functional.linear(x, ops.dequantize_per_channel.default(*args))

    before = export(Quantized(), torch.rand(2, 4)).evolve(precision="int8")
    before.save(tmp_path / "q.pt2")
    assert archive.load(tmp_path / "q.pt2").fingerprint == before.fingerprint
    code = "import sys; from compactor.frontend import load; print(load(sys.argv[1]).fingerprint)"
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "q.pt2")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == before.fingerprint

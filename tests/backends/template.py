"""The one suite that every backend passes: subclass `BackendContract` and give it a backend and its precisions."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from compactor import parity
from compactor.backend import Backend, Lowered, Session
from compactor.errors import InputError, MissingRuntimeError, UnsupportedError
from compactor.ir.program import Program
from compactor.targets.remote.device import MODULES, source
from tests.backends.models import MODELS, cast, inputs_for, quantized, residual

_FORMS: dict[str, Any] = {
    "float32": lambda program: program,
    "float16": lambda program: cast(program, torch.float16),
    "bfloat16": lambda program: cast(program, torch.bfloat16),
    "int8": quantized,
}


@dataclass(frozen=True)
class _Device:
    """What a backend asks of a target."""

    name: str = "host-cpu"
    precisions: tuple[str, ...] = ("float32", "float16", "bfloat16", "int8")


Device: Any = _Device  # A fraction of the Target protocol.


@cache
def form(model: str, precision: str) -> Program:
    """A model of `MODELS` in a precision."""
    program: Program = _FORMS[precision](MODELS[model]())
    return program


def digests(lowered: Lowered) -> dict[str, str]:
    """sha256 of every file."""
    return {name: hashlib.sha256((lowered.folder / name).read_bytes()).hexdigest() for name in lowered.files}


class BackendContract:
    """Tests of one backend. Class attributes say what it promises."""

    backend: ClassVar[Backend]
    precisions: ClassVar[tuple[str, ...]]
    refused: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str]
    device: ClassVar[Any] = Device()
    executable: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def lowered(cls, tmp_path_factory: pytest.TempPathFactory) -> Any:
        """Lowers a model once per class."""

        @cache
        def lower(model: str, precision: str) -> Lowered:
            folder = tmp_path_factory.mktemp(f"{model}-{precision}")
            return cls.backend.lower(form(model, precision), cls.device, folder)

        return lower

    def session(self, lowered: Lowered, **options: Any) -> Session:
        """A session that runs this model here."""
        if self.executable:
            return self.backend.open(lowered, **options)
        session = self.backend.reference(lowered)
        assert session is not None
        return session

    @pytest.fixture(params=sorted(MODELS))
    def model(self, request: pytest.FixtureRequest) -> str:
        """Name of a model."""
        return str(request.param)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per promised precision."""
        if "precision" in metafunc.fixturenames:
            metafunc.parametrize("precision", metafunc.cls.precisions)
        if "bad_precision" in metafunc.fixturenames:
            metafunc.parametrize("bad_precision", metafunc.cls.refused)

    def test_parity_at_several_batch_sizes(self, lowered: Any, model: str, precision: str) -> None:
        program, session = form(model, precision), self.session(lowered(model, precision))
        for batch in (1, 5):
            found = parity.check(program, session, inputs_for(program, batch, seed=batch))
            assert found.passed, found
            assert found.samples == batch

    def test_shorter_sequences(self, lowered: Any, precision: str) -> None:
        program, session = form("encoder", precision), self.session(lowered("encoder", precision))
        assert parity.check(program, session, inputs_for(program, 3, sequence=7)).passed

    def test_a_mask_hides_what_it_masks(self, lowered: Any, precision: str) -> None:
        session = self.session(lowered("encoder", precision))
        tokens, mask = inputs_for(form("encoder", precision), 2)
        changed = tokens.clone()
        changed[1, -3:] = 7
        torch.testing.assert_close(session((tokens, mask))[0], session((changed, mask))[0])

    def test_static_batch(self, lowered: Any, model: str, precision: str) -> None:
        if not self.executable:
            pytest.skip("latency is not measured on the reference runtime")
        program = form(model, precision)
        session = self.backend.open(lowered(model, precision), threads=1, batch=1)
        assert parity.check(program, session, inputs_for(program, 1)).passed

    def test_same_program_same_bytes(self, lowered: Any, model: str, precision: str, tmp_path: Path) -> None:
        again = self.backend.lower(form(model, precision), self.device, tmp_path)
        assert digests(again) == digests(lowered(model, precision))
        assert again.options == lowered(model, precision).options

    def test_files_are_listed_and_nothing_else_is_left(self, lowered: Any, precision: str) -> None:
        made = lowered("residual", precision)
        found = {str(p.relative_to(made.folder)) for p in made.folder.rglob("*") if p.is_file()}
        assert found == set(made.files)
        assert made.size_bytes == sum((made.folder / name).stat().st_size for name in made.files)
        assert (made.backend, made.precision) == (self.backend.name, precision)

    def test_smaller_precisions_make_smaller_files(self, lowered: Any, precision: str) -> None:
        weights = sum(t.numel() * t.element_size() for t in form("encoder", precision).state.values())
        made = lowered("encoder", precision)
        largest = max((made.folder / name).stat().st_size for name in made.files if not name.endswith(".xml"))
        assert largest < weights + 12_000

    def test_outputs_are_float32_and_own_their_memory(self, lowered: Any, precision: str) -> None:
        program, session = form("residual", precision), self.session(lowered("residual", precision))
        first = session(inputs_for(program, 2, seed=1))[0]
        kept = first.clone()
        session(inputs_for(program, 2, seed=2))
        assert first.dtype == torch.float32
        assert torch.equal(first, kept)

    def test_queries_in_turns_keep_their_inputs(self, lowered: Any, model: str) -> None:
        program, session = form(model, self.precisions[0]), self.session(lowered(model, self.precisions[0]))
        given = [inputs_for(program, 2, seed=seed) for seed in (1, 2)]
        alone = [session(inputs)[0] for inputs in given]
        assert not torch.equal(*alone)
        for inputs, other, expected in zip(given, map(session.query, reversed(given)), alone, strict=True):
            other()
            assert torch.equal(session(inputs)[0], expected)

    def test_wrong_number_of_inputs(self, lowered: Any) -> None:
        session = self.session(lowered("encoder", self.precisions[0]))
        with pytest.raises(InputError, match=r"1 inputs given, the model takes 2.*\n.*tokens"):
            session(inputs_for(form("encoder", self.precisions[0]), 2)[:1])

    def test_session_names_its_runtime(self, lowered: Any) -> None:
        assert any(c.isdigit() for c in self.session(lowered("residual", self.precisions[0])).runtime)

    def test_a_device_opens_it_without_torch(self, tmp_path: Path) -> None:
        """The loader's modules import with nothing of compactor but what a device gets, and no torch."""
        loader = self.backend.loader()
        if loader is None:
            pytest.skip("no loader")
        for name in (*MODULES, *loader.modules):
            path = tmp_path / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source(name))
        code = (
            "import sys, importlib; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]);"
            "[importlib.import_module(name) for name in sys.argv[2:]]"
        )
        command = [sys.executable, "-P", "-c", code, str(tmp_path), *loader.modules, *MODULES]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_a_device_computes_the_same(self, lowered: Any, model: str, precision: str) -> None:
        loader = self.backend.loader()
        if loader is None or not self.executable:
            pytest.skip("nothing of it runs here")
        load, made = import_module(loader.modules[0]).load, lowered(model, precision)
        files = [made.folder / file for file in made.files]
        program, session = form(model, precision), self.session(made)
        for batch, fixed in ((3, None), (1, 1)):
            inputs = inputs_for(program, batch, seed=1)
            found = load(files, made.precision, made.options, batch=fixed)([t.numpy() for t in inputs])
            for ours, theirs in zip(session(inputs), found, strict=True):
                torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-2, atol=1e-2)

    def test_refused_precisions_give_a_reason(self, bad_precision: str, tmp_path: Path) -> None:
        program = form("residual", bad_precision)
        assert self.backend.supports(program, self.device)
        with pytest.raises(UnsupportedError):
            self.backend.lower(program, self.device, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_precision_that_the_device_lacks(self) -> None:
        reasons = self.backend.supports(residual(), Device("npu", ("int8",)))
        assert "float32" in reasons[0]
        assert "int8" in reasons[0]

    def test_missing_runtime_names_the_remedy(self, lowered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        made = lowered("residual", self.precisions[0])
        self.hide_runtime(monkeypatch)
        with pytest.raises(MissingRuntimeError, match="->"):
            self.backend.open(made)

    def hide_runtime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the runtime's import fail, as on a machine without it."""
        monkeypatch.setitem(__import__("sys").modules, self.package, None)

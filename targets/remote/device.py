"""`SshDevice`: the device behind an address ``ssh://user@host``."""

import asyncio
import io
import json
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from compactor import errors
from compactor.device import Facts, Needs, Outcome, Work
from compactor.errors import CompactorError, DeviceError, InternalError, UsageError
from compactor.latency import Latency
from compactor.targets.remote import supervisor
from compactor.targets.remote.address import Address
from compactor.targets.remote.connection import Link, process

T = TypeVar("T")
MODULES = "compactor.errors", "compactor.latency", "compactor.targets.measure", supervisor.WORKER
"""What of compactor every device gets; none of it needs torch."""
ANSWER = 60.0
"""Seconds for Python to start there and to say what it finds."""


class SshDevice:
    """A device over SSH, with Python and a runtime; see `compactor.device.Device`.

    Host keys are those that ``ssh`` knows, its configuration is followed, and logins are by key or agent. ``minutes``
    is the time that a conversation may take, uploads included.
    """

    def __init__(self, url: str, minutes: float = 10.0) -> None:
        self.address, self.minutes = Address.parse(url), minutes
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._cancelled = False

    @property
    def name(self) -> str:
        """Its address."""
        return str(self.address)

    def check(self, needs: Needs) -> Facts:
        """What it is; nothing runs there."""
        return self._wait(self._converse(needs, None))[0]

    def run(self, work: Work) -> Outcome:
        """Copy models there, run and time them."""
        with TemporaryDirectory(prefix="compactor-") as folder:
            facts, answer, payload = self._wait(self._converse(work.needs, _bundle(work, Path(folder))))
        try:
            latencies = {name: Latency(**answer["latencies"][name]) for name in work.models}
            return Outcome(facts, {name: _outputs(payload, name) for name in work.models}, latencies)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise DeviceError(
                f"{self.name} sent something that is no result: {error}", "run the same command"
            ) from None

    def cancel(self) -> None:
        """End from another thread what is under way."""
        self._cancelled = True
        if self._task is not None:
            loop, task = self._task
            loop.call_soon_threadsafe(task.cancel)

    def _wait(self, conversation: Coroutine[Any, Any, T]) -> T:
        """The result of a conversation, within the time; also where a loop runs already, as in notebooks."""

        async def limited() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._task = loop, task
            if self._cancelled:
                task.cancel()
            async with asyncio.timeout(60 * self.minutes):
                return await conversation

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._ended(limited())
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._ended, limited()).result()

    def _ended(self, conversation: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run(conversation)
        except TimeoutError:
            raise DeviceError(
                f"{self.name} was not done within {self.minutes:g} minutes", "allow more with --device-minutes"
            ) from None
        except asyncio.CancelledError:
            raise DeviceError(f"what ran on {self.name} was cancelled", "run the same command") from None
        finally:
            self._task = None

    async def _converse(self, needs: Needs, bundle: dict[str, Path] | None) -> tuple[Facts, dict[str, Any], bytes]:
        """What the device is, its answer and the bytes that came with it; nothing is asked without a bundle."""
        async with process(self.address, source(supervisor.__name__)) as link:
            await link.send(json.dumps({"runtime": needs.loader.runtime}).encode() + b"\n")
            facts = await self._facts(link)
            needs.require(facts, self.name)
            if bundle is None:
                return facts, {}, b""
            self._require_space(facts, bundle)
            answer, payload = await _exchange(link, bundle)
        if "error" in answer:
            raise self._raised(**answer["error"])
        return facts, answer, payload

    async def _facts(self, link: Link) -> Facts:
        try:
            async with asyncio.timeout(ANSWER):
                await link.skip(supervisor.MARK)
                return Facts(**(await link.receive())[0])
        except TimeoutError:
            raise DeviceError(f"{self.name} did not answer within {ANSWER:g} s", "try again when it is idle") from None

    def _require_space(self, facts: Facts, bundle: dict[str, Path]) -> None:
        size = sum(path.stat().st_size for path in bundle.values())
        if facts.free < size:
            raise UsageError(
                f"{self.name} has {facts.free / 1e6:.1f} MB free in {facts.temporary}, {size / 1e6:.1f} MB are needed",
                "free some space there, or set TMPDIR there",
            )

    def _raised(self, kind: str, message: str, remedy: str) -> CompactorError:
        found: type[CompactorError] = getattr(errors, kind, DeviceError)
        return found(f"{self.name}: {message}", remedy)


async def _exchange(link: Link, bundle: dict[str, Path]) -> tuple[dict[str, Any], bytes]:
    """Send the bundle, then signs of life until the answer comes; it may come before all is sent."""
    sending = asyncio.create_task(_send(link, bundle))
    try:
        return await link.receive()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(link: Link, bundle: dict[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in bundle.items()}
    await link.send(json.dumps({"files": sizes}).encode() + b"\n")
    for path in bundle.values():
        await link.copy(path)
    await link.beat()


def _bundle(work: Work, folder: Path) -> dict[str, Path]:
    """All that the device gets, by its path there; what is not a model's file is written to ``folder``."""
    loader = work.needs.loader
    texts = {f"{name.replace('.', '/')}.py": source(name) for name in (*MODULES, *loader.modules)}
    packages = {parent.as_posix() for name in texts for parent in Path(name).parents if parent != Path()}
    texts |= {f"{package}/__init__.py": "" for package in packages}
    models = {
        name: {"files": m.files, "precision": m.precision, "options": m.options} for name, m in work.models.items()
    }
    texts["job.json"] = json.dumps({"module": loader.modules[0], "runtime": loader.runtime, "models": models})
    written = {}
    for i, (name, text) in enumerate(sorted(texts.items())):
        written[name] = folder / str(i)
        written[name].write_text(text, encoding="utf-8")
    for name, tensors in (("samples.npz", work.samples), ("inputs.npz", work.inputs)):
        written[name] = _saved(folder / name, tensors)
    return {**written, **work.files}


def source(module: str) -> str:
    """A module's text."""
    found = find_spec(module)
    loader: Any = found.loader if found is not None else None
    text = loader.get_source(module) if loader is not None else None
    if text is None:
        raise InternalError(f"the source of {module} is not at hand")
    return str(text)


def _saved(path: Path, tensors: Sequence[Tensor]) -> Path:
    arrays: dict[str, Any] = {str(i): t.detach().cpu().numpy() for i, t in enumerate(tensors)}
    np.savez(path, **arrays)
    return path


def _outputs(payload: bytes, name: str) -> tuple[Tensor, ...]:
    """The arrays of a model, in order. Nothing that the device sends is unpickled."""
    if not payload:
        return ()
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        count = sum(key.rpartition("/")[0] == name for key in stored.files)
        return tuple(torch.from_numpy(stored[f"{name}/{i}"]) for i in range(count))

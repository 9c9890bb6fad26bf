"""The device's end of a connection: one temporary folder and one worker, for as long as the connection holds.

This text is sent to the device's Python, whatever its version: standard library only, Python 3.7 or newer. Stdin brings
a line with the name of a runtime; stdout answers with facts. A line with the names and sizes of files follows, then the
files, then a newline now and then as a sign of life. Stdout ends with the worker's result. When stdin ends or falls
silent, or this process is told to end, the worker is killed and the folder removed.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MARK = b"compactor-device 1\n"
"""Comes first: a login shell may have written something before."""
SILENCE = 30.0
"""Seconds without a sign of life after which nobody is there any more."""
WORKER = "compactor.targets.remote.runner"
TAIL, CHUNK = 4000, 1 << 16
FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
LOW = 1 << 18
"""Bytes below which a worker that failed has failed for lack of space."""


class Gone(Exception):
    """The other end has hung up, or has fallen silent."""


class Link:
    """Stdin and stdout, unbuffered."""

    def __init__(self) -> None:
        self.buffer = b""

    def listen(self, other: int | None = None) -> bool:
        """Wait until there is more on stdin, or on ``other``: whether the latter is so. Raises `Gone`."""
        ready = select.select([0] if other is None else [0, other], [], [], SILENCE)[0]
        if not ready:
            raise Gone
        if 0 in ready:
            chunk = os.read(0, CHUNK)
            if not chunk:
                raise Gone
            self.buffer += chunk
        return other in ready

    def take(self, size: int) -> bytes:
        """At least one and at most ``size`` of the bytes that come next."""
        if not self.buffer:
            self.listen()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def line(self) -> dict[str, Any]:
        """The JSON of the next line."""
        while b"\n" not in self.buffer:
            self.listen()
        text, _, self.buffer = self.buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(text)
        return found

    def send(self, value: dict[str, Any], payload: bytes = b"") -> None:
        """A line of JSON and what follows it; ends this process where nobody takes it."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(2 * int(SILENCE))
        data = memoryview(json.dumps({**value, "bytes": len(payload)}).encode() + b"\n" + payload)
        while data:
            data = data[os.write(1, data[:CHUNK]) :]
        signal.alarm(0)


def facts(runtime: str) -> dict[str, Any]:
    """What this machine is, and which version of the runtime it has; nothing of it is loaded."""
    try:
        temporary, free = tempfile.gettempdir(), shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        temporary, free = "", 0
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "runtime": version(runtime),
        "temporary": temporary,
        "free": free,
        "identity": read("/proc/sys/kernel/random/boot_id") or platform.node(),
        "cpu": processor(),
        "power": read("/var/lib/nvpmodel/status") or read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def version(module: str) -> str | None:
    """None where it is missing, "" where it does not say."""
    import importlib.util

    if importlib.util.find_spec(module) is None:
        return None
    try:
        from importlib import metadata

        owners = metadata.packages_distributions().get(module, [module])
        return metadata.version(owners[0])
    except Exception:  # an old Python, or a runtime that came without a record
        return ""


def processor() -> str:
    """The board of an Arm device, the processor of others."""
    board = read("/proc/device-tree/model").strip("\0")
    names = [line.partition(":")[2].strip() for line in read("/proc/cpuinfo").splitlines() if "model name" in line]
    return board or (names[0] if names else platform.processor())


def read(path: str) -> str:
    """A file's text; "" where there is none."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def receive(link: Link, folder: Path, files: dict[str, int]) -> None:
    """Write the files that follow, by relative path with their sizes."""
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as handle:
            while size > 0:
                chunk = link.take(min(size, CHUNK))
                handle.write(chunk)
                size -= len(chunk)


def work(link: Link, folder: Path) -> tuple[dict[str, Any], bytes]:
    """The worker's result, and the bytes that go with it."""
    code, tail = supervise(link, folder)
    if code == 0:
        outputs = folder / "outputs.npz"
        return json.loads((folder / "result.json").read_text()), outputs.read_bytes() if outputs.exists() else b""
    if shutil.disk_usage(str(folder)).free < LOW:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    how = f"was killed by signal {-code}, perhaps for lack of memory" if code < 0 else f"ended with code {code}"
    last = tail.decode(errors="replace").strip().splitlines()[-3:]
    return failure("DeviceError", ": ".join([f"what ran there {how}", *last]), "try again when it is idle"), b""


def supervise(link: Link, folder: Path) -> tuple[int, bytes]:
    """Run the worker: its exit code, and the end of what it wrote."""
    command = [sys.executable, "-B", "-m", WORKER, str(folder)]
    pipe, own = subprocess.PIPE, {**os.environ, "TMPDIR": str(folder)}  # runtimes leave files of their own
    with subprocess.Popen(
        command, cwd=str(folder), env=own, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
    ) as worker:
        output, tail = worker.stdout.fileno() if worker.stdout else 0, b""
        try:
            while True:
                if not link.listen(output):
                    continue
                chunk = os.read(output, CHUNK)
                if not chunk:
                    return worker.wait(), tail
                tail = (tail + chunk)[-TAIL:]
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)


def failure(kind: str, message: str, remedy: str = "") -> dict[str, Any]:
    """An error that is raised at the other end."""
    return {"error": {"kind": kind, "message": message, "remedy": remedy}}


def refused(error: OSError, folder: str) -> dict[str, Any]:
    """The failure behind an error of the system: a full disk is the user's to clear."""
    message = f"cannot write {folder}: {error.strerror or error}" if folder else f"no temporary folder: {error}"
    return failure(
        "UsageError" if error.errno in FULL else "DeviceError", message, "free some space there, or set TMPDIR there"
    )


def serve(link: Link) -> None:
    """One conversation."""
    os.write(1, MARK)
    link.send(facts(link.line()["runtime"]))
    files = link.line()["files"]
    folder, payload = "", b""
    try:
        folder = tempfile.mkdtemp(prefix="compactor-")
        receive(link, Path(folder), files)
        answer, payload = work(link, Path(folder))
    except OSError as error:
        answer = refused(error, folder)
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    link.send(answer, payload)


def leave(number: int, frame: object) -> None:
    """End as after an error: what was begun is cleaned up."""
    sys.exit(128 + number)


def main() -> None:
    """Serve until done, or until nobody is there."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, leave)
    try:
        serve(Link())
    except (Gone, BrokenPipeError):
        sys.exit(1)


if __name__ == "__main__":
    main()

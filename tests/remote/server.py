"""A real SSH server on a loopback port with throw-away keys, and a bare Python as a device has it."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
BARE = "numpy", "onnxruntime", "openvino", "flatbuffers", "protobuf", "packaging"
"""The runtimes and what they import. No torch, and nothing of ours."""


@dataclass(frozen=True)
class Server:
    """``temporary`` is the device's folder for temporary files: all that we leave there would be seen in it."""

    port: int
    python: Path
    temporary: Path
    folder: Path
    log: Path

    def url(self, port: int | None = None, python: Path | str | None = None) -> str:
        """The address, of another port or with another Python where they are given."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port or self.port}{self.python if python is None else python}"

    def strays(self) -> list[str]:
        """What of ours is left there: files, and processes that were given its folder for temporary files."""
        return [p.name for p in self.temporary.iterdir()] + [" ".join(c) for c in self.processes().values()]

    def processes(self) -> dict[int, list[str]]:
        """Command lines of the processes that run there, by number."""
        mark, found = f"TMPDIR={self.temporary}".encode(), {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
        return found

    def busy(self, word: str) -> bool:
        """Whether a process with this word in its command line runs there."""
        return any(word in part for command in self.processes().values() for part in command)

    def settled(self, seconds: float = 20.0) -> list[str]:
        """`strays`, after it had some time to clean up."""
        end = time.monotonic() + seconds
        while (left := self.strays()) and time.monotonic() < end:
            time.sleep(0.1)
        return left


def key(path: Path) -> Path:
    """A new key pair; skips the test where none can be made, or where no server could take it."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no SSH server: install openssh-server and openssh-client")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def bare_python(folder: Path) -> Path:
    """A virtual environment with the runtimes of this one and nothing else."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for package in BARE:
        record = distribution(package)
        for top in {file.parts[0] for file in record.files or ()} - {".."}:
            (site / top).symlink_to(str(record.locate_file(top)))
    return folder / "bin" / "python"


@contextmanager
def server(folder: Path, temporary: Path, python: Path, home: Path, *more: str) -> Iterator[Server]:
    """A server that accepts the key in ``home``; its sessions use ``temporary``."""
    assert SSHD is not None, "the key in `home` was made"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the system's own service never ran
    port, log = free_port(), folder / "log"
    host = key(folder / "host")
    (folder / "authorized").write_text((home / ".ssh" / "id_ed25519.pub").read_text())
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {host}", f"AuthorizedKeysFile {folder / 'authorized'}",
        "PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no",
        "KbdInteractiveAuthentication no", f"SetEnv TMPDIR={temporary}", *more,
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(lines) + "\n")
    with log.open("wb") as output:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=output)
    try:
        wait_for_port(port, log)
        yield Server(port, python, temporary, folder, log)
    finally:
        process.terminate()
        process.wait()


def trust(home: Path, found: Server, port: int | None = None) -> None:
    """Write the server's host key into the known hosts, under ``port`` where it is given."""
    text = (found.folder / "host.pub").read_text()
    with (home / ".ssh" / "known_hosts").open("a") as known:
        known.write(f"[127.0.0.1]:{port or found.port} {text}")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, log: Path) -> None:
    """Until something listens there."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"sshd does not start: {log.read_text()}")


def python_without_runtimes() -> str:
    """The interpreter behind this environment: it has Python's own library only."""
    return str(Path(sys.base_prefix) / "bin" / "python3")

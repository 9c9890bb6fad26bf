"""One SSH connection to a device, with one process at its end; every way that can fail has its message."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compactor.errors import DeviceError, MissingRuntimeError
from compactor.targets.remote.address import Address

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection, SSHClientProcess, SSHKey

CONNECT, ALIVE, MISSES, GOODBYE = 15.0, 5.0, 3, 10.0
"""Seconds to connect in; between signs of life, of which this many may be missed; for the device to clean up in."""
CHUNK = 1 << 16
_NOT_FOUND = 127


class Lost(Exception):
    """The connection ended before the conversation did."""


class Link:
    """The stdin and stdout of a process on the device."""

    def __init__(self, process: "SSHClientProcess[bytes]") -> None:
        self._process = process

    async def send(self, data: bytes) -> None:
        """Send bytes, no faster than they are taken."""
        for start in range(0, len(data), CHUNK):
            self._process.stdin.write(data[start : start + CHUNK])
            await self._process.stdin.drain()

    async def copy(self, path: Path) -> None:
        """Send a file's content."""
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                await self.send(chunk)

    async def skip(self, mark: bytes) -> None:
        """Read past what a login shell may have written before the mark."""
        while (line := await self._process.stdout.readline()) != mark:
            if not line:
                raise Lost

    async def receive(self) -> tuple[dict[str, Any], bytes]:
        """A line of JSON, and as many bytes as it announces."""
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise Lost
        value: dict[str, Any] = json.loads(line)
        return value, await self._process.stdout.readexactly(int(value.pop("bytes")))

    async def beat(self) -> None:
        """Signs of life, for as long as this runs."""
        while True:
            await self.send(b"\n")
            await asyncio.sleep(ALIVE)

    async def close(self) -> int | None:
        """Say that no more will come, and wait until the device has cleaned up: the exit code, where there is one."""
        with suppress(Exception):  # a connection that is lost already
            self._process.stdin.write_eof()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait_closed(), GOODBYE)
        return self._process.exit_status


@asynccontextmanager
async def process(address: Address, source: str) -> AsyncIterator[Link]:
    """A Python on the device that runs ``source``; it ends with this block. Raises `DeviceError`."""
    text = source.encode()
    # One line without quotes of its own, for any login shell. The reader takes what it is told and no byte more.
    code = f"import io;exec(io.BufferedReader(io.FileIO(0,closefd=False),1).read({len(text)}))"
    command = f"{shlex.quote(address.python)} -c '{code}'"
    with _explained(address):
        async with _connection(address) as connection:
            link = Link(await connection.create_process(command, encoding=None))
            try:
                await link.send(text)
                yield link
            except (Lost, OSError, asyncio.IncompleteReadError, _asyncssh().Error) as error:
                if await link.close() == _NOT_FOUND:
                    raise MissingRuntimeError(
                        f"{address} has no {address.python}",
                        "install Python 3.10 or newer there, or name one: ssh://user@host/path/to/python",
                    ) from None
                raise Lost from error
            finally:
                if await link.close() is None:
                    connection.abort()  # nobody answers: a farewell would wait for that


@asynccontextmanager
async def _connection(address: Address) -> "AsyncIterator[SSHClientConnection]":
    import asyncssh

    given = {"port": address.port, "username": address.user}
    options = asyncssh.SSHClientConnectionOptions(
        host=address.host, connect_timeout=CONNECT, login_timeout=CONNECT, keepalive_interval=ALIVE,
        keepalive_count_max=MISSES, **{k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    # "UserKnownHostsFile none" would mean to asyncssh that any host will do.
    files = [Path(str(f)).expanduser() for f in _names(options.known_hosts) or ["~/.ssh/known_hosts"]]
    known = [str(f) for f in files if f.is_file()] or b""
    refused: list[DeviceError] = []

    class Client(asyncssh.SSHClient):
        """Says why a host is not trusted."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: "SSHKey") -> bool:
            others = asyncssh.match_known_hosts(known, host, addr, port if port != asyncssh.DEFAULT_PORT else None)[0]
            refused.append(_untrusted(address, key.get_fingerprint(), bool(others)))
            return False

    try:
        async with asyncssh.connect(
            options.host, options.port, options=options, known_hosts=known, client_factory=Client
        ) as connection:
            yield connection
    except asyncssh.HostKeyNotVerifiable as error:
        raise (refused[0] if refused else _untrusted(address, str(error), True)) from None


def _names(known_hosts: object) -> list[object]:
    return known_hosts if isinstance(known_hosts, list) else []


def _untrusted(address: Address, fingerprint: str, known: bool) -> DeviceError:
    if not known:
        return DeviceError(
            f"the host key of {address} is unknown: {fingerprint}",
            f"compare it with the device's own, then accept it once: {address.command}",
        )
    name = f"[{address.host}]:{address.port}" if address.port not in (None, 22) else address.host
    return DeviceError(
        f"{address} shows another host key than before: {fingerprint}",
        f"someone may be listening in; if the device was set up anew: ssh-keygen -R '{name}', then {address.command}",
    )


def _asyncssh() -> Any:
    try:
        import asyncssh
    except ImportError as error:
        raise MissingRuntimeError(
            f"devices over SSH need asyncssh: {error}", "install it with pip install 'compactor[remote]'"
        ) from error
    return asyncssh


@contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turn what SSH and the network raise into `DeviceError`."""
    asyncssh = _asyncssh()
    try:
        yield
    except asyncssh.PermissionDenied as error:
        raise DeviceError(
            f"{address} refuses the login: {error.reason}",
            f"log in with a key: ssh-copy-id; what works is what works without a password: {address.command}",
        ) from error
    except Lost as error:
        raise DeviceError(
            f"the connection to {address} was lost", "check the device and its network, then run the same command"
        ) from error
    except (asyncssh.Error, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or f"no answer within {CONNECT:g} s"
        raise DeviceError(
            f"cannot talk to {address}: {reason}", f"check the address, and that this works: {address.command}"
        ) from error

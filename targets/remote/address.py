"""Addresses of devices: ``ssh://user@host:port/path/to/python``."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from compactor.errors import UsageError

FORM = "write ssh://user@host or ssh://user@host:port; a path after that names the Python there that has the runtime"


@dataclass(frozen=True)
class Address:
    """``user`` and ``port`` are None where SSH's own configuration decides.

    ``python`` is a command there, or a path; one without a leading slash is relative to the home folder, where
    commands over SSH start.
    """

    host: str
    port: int | None
    user: str | None
    python: str

    @staticmethod
    def parse(url: str) -> "Address":
        """The address that a URL says. Raises `UsageError`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no address of a device: {error}", FORM) from None
        if parts.scheme != "ssh" or not parts.hostname or parts.query or parts.fragment or port == 0:
            raise UsageError(f"{url!r} is no address of a device", FORM)
        if parts.password is not None:
            raise UsageError(
                "a password in an address can be read by everyone on this machine",
                "log in with a key: ssh-keygen, then ssh-copy-id",
            )
        user = unquote(parts.username) if parts.username else None
        python = unquote(parts.path).removeprefix("/~/") if parts.path.startswith("/~/") else unquote(parts.path)
        return Address(parts.hostname, port, user, python if python not in ("", "/") else "python3")

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}"

    @property
    def command(self) -> str:
        """What ``ssh`` is given to get there."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{self.user}@{self.host}" if self.user else f"ssh {port}{self.host}"

"""A relay of one TCP port that can be cut, or silenced, in the middle of a connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.remote.server import free_port


class Proxy:
    """Relays connections from ``port`` to another port.

    Attributes:
        sent, received: bytes relayed to the device and from it.
    """

    def __init__(self, target: int) -> None:
        self.port, self._target = free_port(), target
        self.sent = self.received = 0
        self._pairs: list[socket.socket] = []
        self._flow = {True: threading.Event(), False: threading.Event()}
        for flow in self._flow.values():
            flow.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._pairs += [near, far]
                threading.Thread(target=self._relay, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._relay, args=(far, near, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                self._flow[up].wait()
                sink.sendall(data)
                if up:
                    self.sent += len(data)
                else:
                    self.received += len(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def hold(self, up: bool) -> None:
        """Let nothing through any more in one direction; connections stay open."""
        self._flow[up].clear()

    def cut(self) -> None:
        """End all connections at once."""
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Stop relaying."""
        self._listener.close()
        self.cut()
        for flow in self._flow.values():
            flow.set()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A relay to this port."""
    relay = Proxy(target)
    try:
        yield relay
    finally:
        relay.close()

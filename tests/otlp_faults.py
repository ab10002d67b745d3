"""Receivers of OTLP that do not take what they get: the table of outages that tests and ``make bench-otlp`` go through.

``python tests/otlp_faults.py 429`` serves one in a process of its own, says its address, and ends with its standard input.
"""

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from otlp_sink import Answer, Sink


def closed_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Silent:
    """A receiver that accepts connections and never says a word, or a byte a second."""

    def __init__(self, trickles: bool = False) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.05)
        self._trickles = trickles
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _serve(self) -> None:
        held: list[tuple[socket.socket, Iterator[int]]] = []
        due = time.monotonic()
        while not self._over.is_set():
            try:
                held.append((self._server.accept()[0], iter(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
            except TimeoutError:
                pass
            if self._trickles and time.monotonic() >= due:
                due += 1
                for connection, left in held:
                    connection.send(bytes(byte for byte, _ in zip(left, "1", strict=False)), socket.MSG_DONTWAIT)
        for connection in (self._server, *(connection for connection, _ in held)):
            connection.close()


@contextmanager
def faulty(fault: str, retry_after: str = "60") -> Iterator[str]:
    """The address of a receiver with this fault: ``refused``, ``silent``, ``a byte a second``, or the status it answers."""
    if fault == "refused":
        yield f"http://127.0.0.1:{closed_port()}"
    elif fault in ("silent", "a byte a second"):
        with Silent(trickles=fault != "silent") as server:
            yield server.url
    else:
        answer = Answer(int(fault), {"Retry-After": retry_after} if fault == "429" else {})
        with Sink() as sink:
            sink.answer = lambda request: answer
            yield sink.url


if __name__ == "__main__":
    with faulty(*sys.argv[1:]) as url:
        print(url, flush=True)
        sys.stdin.read()

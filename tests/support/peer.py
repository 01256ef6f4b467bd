"""A TCP server on loopback whose connections follow scripts, for tests of the bytes on the wire."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, cycle, repeat
from typing import Any, NamedTuple

from tests.support.dynamodb_server import CERTIFICATE

PATIENCE = 10.0  # seconds after which a server or a test stops waiting for the other


class Received(NamedTuple):
    """A request as received; ``connection`` is the number of its connection."""

    connection: int
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def all_of(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name]


class Talk:
    """The server's end of one connection."""

    def __init__(self, peer: "Peer", number: int, connection: socket.socket) -> None:
        self.peer = peer
        self.number = number
        self.connection = connection
        self._lines = connection.makefile("rb")

    def receives(self) -> Received | None:
        """Return the next request, or ``None`` if the client has closed the connection."""
        line = self._lines.readline()
        if not line:
            return None
        headers = []
        while (header := self._lines.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = header.partition(": ")
            headers.append((name, value))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        received = Received(self.number, line.decode("latin-1").rstrip("\r\n"), headers, self._lines.read(length))
        self.peer.received.append(received)
        return received

    def sends(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def encrypts(self) -> None:
        """Continue the connection over TLS."""
        self._lines.close()
        self.connection = certified().wrap_socket(self.connection, server_side=True)
        self._lines = self.connection.makefile("rb")

    def close(self) -> None:
        self._lines.close()
        self.connection.close()


Script = Callable[[Talk], object]


class Peer:
    """A TCP server on loopback; its connections follow the scripts in order, further ones the last script."""

    def __init__(self, *scripts: Script, tls: bool = False) -> None:
        self._scripts = chain(scripts, repeat(scripts[-1]))
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._talks: list[Talk] = []
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self.received: list[Received] = []
        self.connections = 0
        self.ended = threading.Semaphore(0)
        self.stopped = threading.Event()

    def __enter__(self) -> "Peer":
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for talk in self._talks:
            with suppress(OSError):
                socket.socket.shutdown(talk.connection, socket.SHUT_RDWR)  # also ends TLS, without its closing message
        for thread in self._threads:
            thread.join()

    def await_end(self) -> None:
        """Wait until the server has closed another connection."""
        assert self.ended.acquire(timeout=PATIENCE)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(PATIENCE)
                self._talks.append(Talk(self, self.connections, connection))
                self._start(self._serve, self._talks[-1], next(self._scripts))
                self.connections += 1

    def _serve(self, talk: Talk, script: Script) -> None:
        try:
            with suppress(OSError):
                if self._tls:
                    talk.encrypts()
                script(talk)
        finally:
            talk.close()
            self.ended.release()


@contextmanager
def full_servers(count: int) -> Iterator[tuple[int, list[str]]]:
    """One port on several loopback addresses, each with a full queue, so that no connection is ever accepted."""
    with ExitStack() as opened:
        port, addresses = 0, [f"127.0.0.{number}" for number in range(1, count + 1)]
        for address in addresses:
            server = opened.enter_context(socket.create_server((address, port), backlog=0))
            port = server.getsockname()[1]
            for _ in range(4):
                waiting = opened.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((address, port))
        yield port, addresses


def certified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def keeps(*answers: bytes) -> Script:
    """Answer each request of the connection, repeating the last answer."""

    def script(talk: Talk) -> None:
        for answer in chain(answers, repeat(answers[-1])):
            if talk.receives() is None:
                return
            talk.sends(answer)

    return script


def says(raw: bytes) -> Script:
    """Answer one request with these bytes, then close the connection."""

    def script(talk: Talk) -> None:
        talk.receives()
        talk.sends(raw)

    return script


def echoes(talk: Talk) -> None:
    while (received := talk.receives()) is not None:
        length = len(received.body)
        talk.sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, received.body))


def resets_at_the_end(talk: Talk) -> None:
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets(talk: Talk) -> None:
    talk.receives()
    resets_at_the_end(talk)


def drips(talk: Talk) -> None:
    """Send the head of an answer byte by byte, without an end."""
    talk.receives()
    for byte in cycle(b"HTTP/1.1 200 OK\r\n"):
        if talk.peer.stopped.wait(0.02):
            return
        with suppress(OSError):
            talk.sends(bytes([byte]))


def never_answers(talk: Talk) -> None:
    talk.receives()
    talk.peer.stopped.wait(PATIENCE)


def tunnels(script: Script, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> Script:
    """Act as a proxy and as the encrypted server behind it."""

    def behind(talk: Talk) -> None:
        talk.receives()
        talk.sends(answer)
        talk.encrypts()
        script(talk)

    return behind

"""The process of the embedded AWS: ``python -m ticketctl.embedded.server FOLDER``.

One process per folder: it holds a lock on ``engine.lock`` until it ends. When it is ready, it writes its own record,
``engine.json``. So if the command that started it is interrupted, other commands still find it.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from ticketctl.embedded.durability import Durable
from ticketctl.embedded.emulator import Emulator, IncompatibleError, environment, open_emulator
from ticketctl.embedded.engine import HOST
from ticketctl.embedded.gate import AsgiSend, Gate, Message, Receive
from ticketctl.embedded.store import Store, StoreError

LOCK, RECORD, STORE = "engine.lock", "engine.json", "state.db"
KEEP_ALIVE_SECONDS = 75.0
FOLDER_LOCK_SECONDS = 0.5
WATCH_SECONDS = 1.0


def main(folder: Path) -> None:
    """Run until SIGTERM or until the record is removed; ``SystemExit`` with the reason if it cannot start."""
    os.umask(0o077)
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        if not _lock(lock):
            sys.exit(f"another embedded AWS already uses {folder}")
        record = folder / RECORD
        record.unlink(missing_ok=True)  # of an engine that has ended
        listener = listen(preferred=last_port(lock))
        port = listener.getsockname()[1]
        _write_holder(lock, port)
        key, secret = f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)

        def write_record() -> None:
            document = {"pid": os.getpid(), "port": port, "key": key, "secret": secret, "started_at": time.time()}
            temporary = record.with_suffix(".new")
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(record)

        try:
            emulator = open_emulator(environment(port=port, key=key, secret=secret))
            durable = Durable(emulator, Store(folder / STORE), log=_log)
            durable.restore()
        except IncompatibleError as error:
            sys.exit(f"this release of ministack is not supported: {error}")
        except StoreError as error:
            sys.exit(f"the state cannot be opened: {error}")
        except Exception as error:
            sys.exit(f"the state in {folder / STORE} cannot be restored: {type(error).__name__}: {error}")
        server = Server(listener, emulator, durable, key=key, secret=secret)
        try:
            asyncio.run(server.run(ready=write_record, wanted=record.exists))
        finally:
            record.unlink(missing_ok=True)


class Server:
    """Serves the emulator, behind its gate, on a loopback socket."""

    def __init__(self, listener: socket.socket, emulator: Emulator, durable: Durable, *, key: str, secret: str) -> None:
        self._listener = listener
        self._emulator = emulator
        self._durable = durable
        self._gate = Gate(
            durable,
            self._lifespan,
            key=key,
            secret=secret,
            issued=emulator.issued_secret,
            is_public=emulator.is_public,
        )
        self._is_up = asyncio.Event()
        self._ended = asyncio.Event()

    async def run(self, *, ready: Callable[[], None], wanted: Callable[[], bool]) -> None:
        """Serve until a signal, or until ``wanted`` returns False; then save what is not saved yet."""
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
        config = Config()
        config.bind = [f"fd://{self._listener.detach()}"]
        config.keep_alive_timeout = KEEP_ALIVE_SECONDS
        config.loglevel = "WARNING"
        watching = asyncio.create_task(self._watch(ready, wanted))
        await serve(self._gate, config, shutdown_trigger=self._ended.wait)  # type: ignore[arg-type] # plain dicts
        watching.cancel()
        await self._durable.close()

    async def _watch(self, ready: Callable[[], None], wanted: Callable[[], bool]) -> None:
        await self._is_up.wait()
        try:
            ready()
        except OSError as error:
            _log(f"the record cannot be written: {error}")
        while wanted():
            await asyncio.sleep(WATCH_SECONDS)
        self._ended.set()

    async def _lifespan(self, scope: Message, receive: Receive, send: AsgiSend) -> None:
        async def noticed(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._is_up.set()
            await send(message)

        try:
            await self._emulator.app(scope, receive, noticed)
        except Exception as error:
            _log(f"the emulator ended: {type(error).__name__}: {error}")
            self._ended.set()


def listen(preferred: int) -> socket.socket:
    """A loopback socket, on the preferred port if it is free, so that URLs stay the same after a restart."""
    for port in (preferred, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            listener.close()
            continue
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.listen(128)
        return listener
    sys.exit(f"no port of {HOST} is free")


def _lock(file: TextIO) -> bool:
    deadline = time.monotonic() + FOLDER_LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a command that checks the lock also holds it for a moment
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def last_port(lock: TextIO) -> int:
    """The port of the engine that last held the lock; 0 if unknown."""
    lock.seek(0)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        port = int(json.loads(lock.read())["port"])
        return port if 0 < port < 65536 else 0
    return 0


def _write_holder(lock: TextIO, port: int) -> None:
    lock.seek(0)
    lock.truncate()
    json.dump({"pid": os.getpid(), "port": port}, lock)
    lock.flush()


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""An ASGI application between the gate and the emulator: it sends an answer only after its effect is on disk.

Requests that wait at the same time share one write. If saving fails, changes of items are undone, and every request
that overlapped gets an error that means "not written". Until writing works again, only reads are executed.
"""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ticketctl.embedded.emulator import Emulator
from ticketctl.embedded.gate import AsgiSend, Message, Receive, answer, called_function, refuse
from ticketctl.embedded.signature import SignedRequest
from ticketctl.embedded.store import Store, StoreError

NOT_SAVED = "EngineStateNotSavedException"
"""The name of the error. Its status is 400, because AWS's own 400 errors mean that nothing was written."""
_PROBLEM = "the embedded AWS cannot save its state"
_READS = re.compile("Describe|Get|List|Scan|Query|BatchGet|TransactGet|GET$|HEAD$")
_SIGNED_FOR_STACKS = "/cloudformation/aws4_request"
_ITEM_WRITES = {"UpdateItem", "PutItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}


class Durable:
    """The emulator, with each answer held until its effect is saved. ``log`` gets a line if saving fails."""

    def __init__(self, emulator: Emulator, store: Store, *, log: Callable[[str], None]) -> None:
        self._emulator = emulator
        self._store = store
        self._log = log
        self._saved: dict[str, str] = {}
        self._stacks: dict[object, str] = {}
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "store")  # waiting functions can fill the default pool
        self._failures = 0
        self._problem = ""

    def restore(self) -> None:
        """Load the saved state into the emulator; raises an exception if any of it cannot be restored."""
        self._saved = self._store.services()
        self._emulator.restore(self._saved, self._store.items())
        self._stacks = self._emulator.stacks()

    async def close(self) -> None:
        """Save the functions' log lines, which otherwise wait for the next write; then compact and close the file."""
        try:
            async with self._turn:
                await self._save(self._emulator.snapshot(self._saved))
        except (StoreError, RuntimeError) as error:
            self._log(f"the last log lines of functions are not saved: {error}")
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)

    async def __call__(self, scope: Message, request: SignedRequest, receive: Receive, send: AsgiSend) -> None:
        """Execute a request and answer when its effect is saved; only reads if saving has failed."""
        is_call = bool(called_function(scope["path"]))
        reads = bool(_READS.match(_action(request))) and not is_call
        if self._problem and not reads and not await self._works_again():
            await self._refuse(request, send, is_call=is_call)
        elif is_call:  # the requests that the function sends come through here and wait
            await self._emulator.app(scope, receive, send)
        else:
            await self._answer(scope, request, receive, send)

    async def _answer(self, scope: Message, request: SignedRequest, receive: Receive, send: AsgiSend) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        failures = self._failures
        await self._emulator.app(scope, receive, hold)
        # A separate task: if this request is cancelled, the write that it shares with others continues.
        saving = asyncio.create_task(self._commit(scope, request, failures))
        if not await asyncio.shield(saving):
            await self._refuse(request, send, is_call=False)
            return
        for message in held:
            await send(message)

    async def _commit(self, scope: Message, request: SignedRequest, failures: int) -> bool:
        """Save a request's changes; return False if they were undone because a save failed since the request began."""
        async with self._turn:
            if failures == self._failures:
                try:
                    await self._save(self._changed_documents(scope, request))
                except (StoreError, RuntimeError, TypeError, ValueError) as error:
                    self._emulator.undo([])
                    self._failures += 1
                    self._problem = f"{_PROBLEM}: {error}"
                    self._log(self._problem)
            return failures == self._failures

    def _changed_documents(self, scope: Message, request: SignedRequest) -> dict[str, str]:
        """The documents that this request may have changed."""
        action = _action(request)
        if scope["path"].endswith("/invocations"):
            return {}
        if action in _ITEM_WRITES:
            return self._emulator.snapshot(self._saved) if self._emulator.in_unsaved_table() else {}
        # A deployment continues after its request was answered. Once a client saw it finished, a kill must not undo it.
        if self._has_deployed() or (_SIGNED_FOR_STACKS in _credential(request) and not _READS.match(action)):
            return self._emulator.snapshot(self._saved)
        return {} if _READS.match(action) else self._emulator.snapshot(self._saved, without="cloudformation")

    def _has_deployed(self) -> bool:
        """Whether a deployment finished, or a stack was deleted, since everything was saved last."""
        now = self._emulator.stacks()
        finished = {key: status for key, status in now.items() if status}
        return finished.items() - self._stacks.items() != set() or not self._stacks.keys() <= now.keys()

    async def _save(self, documents: dict[str, str]) -> None:
        if not documents and not self._emulator.has_changes():
            return
        taken, stacks = self._emulator.take_changes(), self._emulator.stacks()
        changes = [change for change, _ in taken]

        def write() -> None:
            self._store.write(documents, changes, replaces_items="dynamodb" in documents)

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, write)
        except StoreError:
            self._emulator.undo(taken)
            raise
        self._saved.update(documents)
        if "cloudformation" in documents:
            self._stacks = stacks

    async def _works_again(self) -> bool:
        try:
            async with self._turn:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._store.probe)
        except StoreError as error:
            self._problem = f"{_PROBLEM}: {error}"
            return False
        self._problem = ""
        return True

    async def _refuse(self, request: SignedRequest, send: AsgiSend, *, is_call: bool) -> None:
        detail = f"{self._problem}; nothing was written"
        if is_call:
            document: dict[str, Any] = {"code": "unavailable", "status": 503, "title": "Unavailable", "detail": detail}
            await answer(send, 503, [(b"content-type", b"application/problem+json")], json.dumps(document).encode())
        else:
            await refuse(send, dict(request.headers), 400, NOT_SAVED, detail)


def _action(request: SignedRequest) -> str:
    """The operation of a request, from its header or form; the method if it has neither (REST)."""
    if target := request.headers.get("x-amz-target", "").partition(".")[2]:
        return target
    form = re.search(rb"(?:^|&)Action=(\w+)", request.body)
    named = form[1].decode() if form else dict(request.query).get("Action", "")
    return named or request.method


def _credential(request: SignedRequest) -> str:
    """The credential of a request's signature, which includes the service's name."""
    return request.headers.get("authorization", "") or dict(request.query).get("X-Amz-Credential", "")

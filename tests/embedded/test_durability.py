"""When the embedded AWS saves its state, and which requests fail if it cannot; with a scripted emulator."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import pytest

from ticketctl.embedded.durability import NOT_SAVED, Durable
from ticketctl.embedded.emulator import Emulator
from ticketctl.embedded.gate import Message
from ticketctl.embedded.signature import SignedRequest
from ticketctl.embedded.store import ItemChange, Store, StoreError


class ScriptedEmulator:
    """A counter that each UpdateItem advances, and stacks that the test changes."""

    def __init__(self) -> None:
        self.counter = 0
        self.statuses: dict[object, str] = {}
        self.snapshots: list[str] = []
        self._taken: list[tuple[ItemChange, Callable[[], object]]] = []

    async def app(self, scope: Message, receive: Any, send: Any) -> None:  # noqa: ARG002 - as ASGI
        if scope["action"] == "UpdateItem":
            before, self.counter = self.counter, self.counter + 1
            change = ItemChange("table", '"p"', '""', str(self.counter))
            self._taken.append((change, lambda: setattr(self, "counter", before)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.counter).encode()})

    def restore(self, documents: Mapping[str, str], items: Iterable[ItemChange]) -> None:
        assert (dict(documents), list(items)) == ({}, [])

    def stacks(self) -> dict[object, str]:
        return dict(self.statuses)

    def snapshot(self, known: Mapping[str, str], without: str = "") -> dict[str, str]:
        self.snapshots.append(without)
        text = json.dumps(list(self.statuses.items()))
        return {"cloudformation": text} if not without and known.get("cloudformation") != text else {}

    def in_unsaved_table(self) -> bool:
        return False

    def has_changes(self) -> bool:
        return bool(self._taken)

    def take_changes(self) -> list[tuple[ItemChange, Callable[[], object]]]:
        taken, self._taken = self._taken, []
        return taken

    def undo(self, taken: list[tuple[ItemChange, Callable[[], object]]]) -> None:
        for _, back in reversed([*taken, *self._taken]):
            back()
        self._taken = []


class ScriptedStore:
    """Keeps what is written, except while it is ``broken``; a write waits until ``go`` is set."""

    def __init__(self) -> None:
        self.broken = False
        self.items: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def services(self) -> dict[str, str]:
        return {}

    def write(self, documents: Mapping[str, str], changes: Iterable[ItemChange], *, replaces_items: bool) -> None:  # noqa: ARG002 - as a store
        self.go.wait(10)
        self.probe()
        self.items += [change.item or "" for change in changes]

    def probe(self) -> None:
        if self.broken:
            raise StoreError("state.db: disk full")


class Setup:
    def __init__(self) -> None:
        self.emulator, self.store, self.logged = ScriptedEmulator(), ScriptedStore(), list[str]()
        emulator, store = cast(Emulator, self.emulator), _Empty(self.store)
        self.durable = Durable(emulator, cast(Store, store), log=self.logged.append)
        self.durable.restore()

    async def ask(self, action: str, service: str = "dynamodb", path: str = "/") -> tuple[int, str]:
        target = {"x-amz-target": f"DynamoDB_20120810.{action}"} if service == "dynamodb" else {}
        scope = f"Credential=AKID/20261124/us-east-1/{service}/aws4_request"
        body = b"" if target else f"Action={action}".encode()
        request = SignedRequest("POST", path, "", [], {**target, "authorization": scope}, body)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await self.durable({"path": path, "action": action}, request, cast(Any, None), send)
        return sent[0]["status"], sent[1]["body"].decode()


class _Empty:
    """The scripted store, without any items."""

    def __init__(self, store: ScriptedStore) -> None:
        self.services, self.write, self.probe = store.services, store.write, store.probe

    def items(self) -> list[ItemChange]:
        return []


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_mint_writes_its_item_and_nothing_else(setup: Setup) -> None:
    """A mint writes a single row, and the state of other services is not read."""
    assert asyncio.run(setup.ask("UpdateItem")) == (200, "1")
    assert (setup.store.items, setup.emulator.snapshots) == (["1"], [])


def test_requests_that_wait_share_a_write(setup: Setup) -> None:
    """Requests that arrive during a write are saved together in the next write."""

    async def mint() -> list[tuple[int, str]]:
        setup.store.go.clear()
        asking = [asyncio.create_task(setup.ask("UpdateItem")) for _ in range(5)]
        await asyncio.sleep(0.05)
        setup.store.go.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(mint()) == [(200, str(number)) for number in range(1, 6)]
    assert setup.store.items == ["1", "2", "3", "4", "5"]


def test_polling_a_deployment_saves_nothing(setup: Setup) -> None:
    """Polling a deployment saves nothing; the state is saved when the stack is complete and when it is deleted."""

    async def deploy() -> None:
        for status in ("", "", "CREATE_COMPLETE", "CREATE_COMPLETE"):
            setup.emulator.statuses = {"Tickets": status}
            await setup.ask("DescribeStacks", "cloudformation")
        setup.emulator.statuses = {}
        await setup.ask("DescribeStacks", "cloudformation")
        await setup.ask("DescribeStacks", "cloudformation")

    asyncio.run(deploy())
    assert setup.emulator.snapshots == ["", ""]


def test_stacks_are_read_only_if_they_may_have_changed(setup: Setup) -> None:
    """The stacks are read after a change of CloudFormation, but not after a change of another service."""

    async def change() -> None:
        await setup.ask("CreateRole", "iam")
        await setup.ask("CreateChangeSet", "cloudformation")

    asyncio.run(change())
    assert setup.emulator.snapshots == ["cloudformation", ""]


def test_a_failed_save_fails_overlapping_requests(setup: Setup) -> None:
    """If a save fails, its items are restored, overlapping requests fail, and the next number follows the last one."""

    async def mint() -> list[tuple[int, str]]:
        assert await setup.ask("UpdateItem") == (200, "1")
        setup.store.broken = True
        setup.store.go.clear()
        asking = [asyncio.create_task(setup.ask("UpdateItem")) for _ in range(4)]
        await asyncio.sleep(0.05)
        setup.store.go.set()
        refused = await asyncio.gather(*asking)
        assert setup.emulator.counter == 1
        assert await setup.ask("GetItem") == (200, "1")
        refused.append(await setup.ask("UpdateItem"))
        setup.store.broken = False
        assert await setup.ask("UpdateItem") == (200, "2")
        return refused

    refused = asyncio.run(mint())
    message = "the embedded AWS cannot save its state: state.db: disk full; nothing was written"
    assert [(status, json.loads(body)) for status, body in refused] == [
        (400, {"__type": NOT_SAVED, "message": message})
    ] * 5
    assert setup.store.items == ["1", "2"]
    assert setup.logged == ["the embedded AWS cannot save its state: state.db: disk full"]


def test_a_call_is_refused_while_saving_fails(setup: Setup) -> None:
    """While saving fails, a Function URL returns a problem document that means *not minted*."""

    async def call() -> tuple[int, str]:
        setup.store.broken = True
        await setup.ask("UpdateItem")
        return await setup.ask("POST", path="/_aws/lambda-url/abc/")

    status, body = asyncio.run(call())
    assert (status, json.loads(body)["code"]) == (503, "unavailable")


def test_a_request_that_is_cut_off_does_not_cut_off_the_others(setup: Setup) -> None:
    """If one request is aborted, the write that it shares with others continues, and there are no duplicates."""

    async def mint() -> tuple[int, str]:
        setup.store.go.clear()
        first, second = (asyncio.create_task(setup.ask("UpdateItem")) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0.05)
        assert not second.done()
        setup.store.go.set()
        return await second

    assert asyncio.run(mint()) == (200, "2")
    assert setup.store.items == ["1", "2"]

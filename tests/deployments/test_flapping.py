"""A stack that is looked up again and again in a long-running process: nothing is opened twice."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.memory_aws import US, Account, MemorySession, stack_in
from tests.support.minting import requested
from tests.support.peer import Peer, keeps
from ticketctl.aws.stacks import outputs_of
from ticketctl.client.aio import UrlMinter
from ticketctl.deadline import Deadline
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError
from ticketctl.settings import resolve

pytestmark = pytest.mark.usefixtures("no_aws")

TIMES = 5


def answer(status: int, **fields: object) -> bytes:
    body = json.dumps(fields).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-Amzn-ErrorType: AccessDeniedException\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


FORBIDDEN = answer(403, Message="Forbidden")
MINTED = answer(200, partition=US, first=1, last=1, count=1, increment=1)


def open_stack(url: str, folder: Path) -> RegionalStack:
    account, environ = Account(US), {"TICKETCTL_HOME": str(folder)}
    deployed = stack_in(US, {})
    account.stacks[US] = replace(deployed, outputs={**deployed.outputs, "Url": url + "/"})
    session = MemorySession(resolve({"region": (US,)}, environ), account, environ)
    Locator(session).remember(outputs_of(account.stacks[US], US))
    return RegionalStack(session)


def mint(stack: RegionalStack) -> None:
    with stack:
        for _ in range(TIMES):
            with pytest.raises(AccessError):
                stack.attempt(requested(1), Deadline(10.0), looks_up=True)
            assert stack.attempt(requested(1), Deadline(10.0), looks_up=True).last == 1


def mint_with_await(stack: RegionalStack) -> None:
    async def main() -> None:
        minter = UrlMinter(stack)
        for _ in range(TIMES):
            with pytest.raises(AccessError):
                await minter.mint(requested(1), Deadline(10.0))
            assert (await minter.mint(requested(1), Deadline(10.0))).last == 1
        await minter.close()

    asyncio.run(main())


@pytest.mark.parametrize("mint", [mint, mint_with_await])
def test_look_ups_open_no_connection(tmp_path: Path, mint: Callable[[RegionalStack], None]) -> None:
    """If a stack is looked up after each refusal, all requests still use one connection."""
    with Peer(keeps(*[FORBIDDEN, MINTED] * TIMES)) as peer:
        stack = open_stack(peer.url, tmp_path)
        mint(stack)
        assert stack.locator.generation == TIMES
    assert (len(peer.received), peer.connections) == (2 * TIMES, 1)


@pytest.mark.parametrize("sdk", [False, True])
def test_a_table_has_one_sender(tmp_path: Path, *, sdk: bool) -> None:
    """Each look-up of a stack gives the sender that its table already has, with its connections."""
    environ = {"TICKETCTL_HOME": str(tmp_path)}
    session = Session(resolve({"region": (US,)}, environ), environ=environ)
    assert session.sender("Tickets", sdk=sdk) is session.sender("Tickets", sdk=sdk)
    assert session.sender("Tickets", sdk=sdk) is not session.sender("Other", sdk=sdk)
    session.close()

"""``spread``: a mint that is denied right after a deployment is retried while the new policy spreads through AWS."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deployments.test_cache import TICKETS
from tests.support.http_server import Answer, Server
from tests.support.memory_aws import US, Account, MemorySession, stack_in
from tests.support.minting import requested
from ticketctl.aws.stacks import outputs_of
from ticketctl.client.aio import UrlMinter
from ticketctl.deadline import Deadline
from ticketctl.deployments.cache import DeployedCache
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.spread import PAUSES
from ticketctl.errors import AccessError, ExpiredCredentialsError, NotMintedError, TicketctlError
from ticketctl.models import Block, StackOutputs
from ticketctl.settings import resolve

pytestmark = pytest.mark.usefixtures("no_aws")

HEADERS = {"x-amzn-errortype": "AccessDeniedException", "x-amzn-requestid": "1"}
FORBIDDEN = Answer(403, "application/json", b'{"Message":"Forbidden. For troubleshooting"}', headers=HEADERS)
BLOCK = (
    b'{"partition": "us-east-1", "hand_crafted_int": 1, "first": 1, "last": 1, "count": 1, "increment": 1, '
    b'"replayed": false}'
)
MINTED = Answer(200, "application/json", BLOCK)


class Clock:
    """A clock for the deadline and for the age of a deployment; only sleep advances it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(server: Server) -> Account:
    account = Account(US)
    deployed = stack_in(US, {})
    account.stacks[US] = replace(deployed, outputs={**deployed.outputs, "Url": server.url + "/"})
    return account


@pytest.fixture
def connect(account: Account, tmp_path: Path, clock: Clock) -> Callable[[], RegionalStack]:
    """Connect as each process does: the stack is cached."""

    def make() -> RegionalStack:
        environ = {"TICKETCTL_HOME": str(tmp_path)}
        session = MemorySession(resolve({"region": (US,)}, environ), account, environ)
        Locator(session).remember(outputs_of(account.stacks[US], US))
        stack = RegionalStack(session, sleep=clock.sleep)
        stack.locator = Locator(session, clock=clock)
        return stack

    return make


Connect = Callable[[], RegionalStack]


def mint(stack: RegionalStack, clock: Clock, seconds: float) -> int:
    return stack.attempt(requested(1), Deadline(seconds, clock), looks_up=True).last


def test_a_policy_spreads(connect: Connect, server: Server, clock: Clock) -> None:
    """A mint that is denied twice right after the deployment succeeds at the third attempt."""
    server.answers = [FORBIDDEN, FORBIDDEN, MINTED]
    connect().locator.mark_deployed()
    assert mint(connect(), clock, 60) == 1
    assert (clock.slept, len(server.requests)) == ([0.5, 1.0], 3)


def test_a_missing_permission_stays_one(connect: Connect, server: Server, account: Account, clock: Clock) -> None:
    """If a caller has no permission, the error comes after at most ten seconds and one look-up of the stack."""
    server.answers = [FORBIDDEN] * 10
    connect().locator.mark_deployed()
    with pytest.raises(AccessError):
        mint(connect(), clock, 60)
    assert (clock.slept, len(server.requests)) == (list(PAUSES), 1 + len(PAUSES))
    assert sum(PAUSES) <= 10
    assert account.calls[f"describe {US}"] == 1


def test_the_deadline_ends_the_attempts(connect: Connect, server: Server, clock: Clock) -> None:
    """No attempt starts after the deadline."""
    server.answers = [FORBIDDEN] * 10
    connect().locator.mark_deployed()
    with pytest.raises(AccessError):
        mint(connect(), clock, 2)
    assert (clock.slept, len(server.requests)) == ([0.5, 1.0], 3)


def test_no_attempt_is_too_short(connect: Connect, server: Server, clock: Clock) -> None:
    """An attempt that would be so short that a slow refusal counts as unknown is not started."""
    server.answers = [FORBIDDEN] * 10
    connect().locator.mark_deployed()
    with pytest.raises(AccessError):
        mint(connect(), clock, 1.9)
    assert (clock.slept, len(server.requests)) == ([0.5], 2)


class SlowLocator(Locator):
    """A look-up takes eight seconds."""

    def __init__(self, session: MemorySession, clock: Clock) -> None:
        super().__init__(session, clock=clock)
        self.now = clock

    def look_up(self, deadline: Deadline | None = None) -> StackOutputs:
        self.now.sleep(8.0)
        return super().look_up(deadline)


@pytest.mark.parametrize(("seconds", "requests"), [(8.4, 0), (8.6, 1)])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_slow_look_up_leaves_no_short_attempt(
    account: Account, tmp_path: Path, server: Server, clock: Clock, *, seconds: float, requests: int, asynchronous: bool
) -> None:
    """After a look-up, the mint is only tried again if enough time is left for an answer."""
    environ = {"TICKETCTL_HOME": str(tmp_path)}
    session = MemorySession(resolve({"region": (US,)}, environ), account, environ)
    Locator(session).remember(replace(outputs_of(account.stacks[US], US), url="http://127.0.0.9:1/"))
    stack = RegionalStack(session)
    stack.locator = SlowLocator(session, clock)
    server.answers = [Answer(429, "application/json", b"{}", headers={"x-amzn-errortype": "TooManyRequestsException"})]

    def attempt() -> Block:
        deadline = Deadline(seconds, clock)
        if asynchronous:
            return asyncio.run(UrlMinter(stack)._attempt(requested(1), deadline))
        return stack.attempt(requested(1), deadline, looks_up=True)

    with pytest.raises(NotMintedError):
        attempt()
    assert len(server.requests) == requests


@pytest.mark.parametrize("later", [None, 61.0, -1.0], ids=["never", "a minute ago", "in the future"])
def test_another_caller_is_refused_at_once(
    connect: Connect, server: Server, account: Account, clock: Clock, later: float | None
) -> None:
    """If the stack was not just deployed from this machine, a denied mint costs one request and one look-up."""
    if later is not None:
        connect().locator.mark_deployed()
        clock.now += later
    server.answers = [FORBIDDEN] * 10
    with pytest.raises(AccessError):
        mint(connect(), clock, 60)
    assert (clock.slept, len(server.requests), account.calls[f"describe {US}"]) == ([], 1, 1)


def test_a_policy_spreads_for_await_too(connect: Connect, server: Server) -> None:
    """An asynchronous client waits in the same way, without blocking its event loop."""
    server.answers = [FORBIDDEN, MINTED]
    stack = connect()
    stack.locator.mark_deployed()

    async def mint() -> int:
        minter = UrlMinter(stack)
        try:
            return (await minter.mint(requested(1), Deadline(20))).last
        finally:
            await minter.close()

    assert (asyncio.run(mint()), len(server.requests)) == (1, 2)


@pytest.mark.parametrize("error", [ExpiredCredentialsError("expired"), TicketctlError("other")], ids=repr)
def test_only_a_missing_permission_may_spread(connect: Connect, error: TicketctlError) -> None:
    """Only a missing permission is retried; expired credentials are not, whenever the stack was deployed."""
    locator = connect().locator
    locator.mark_deployed()
    assert not locator.policy_may_spread(error)
    assert locator.policy_may_spread(AccessError("denied"))


def test_old_deployments_are_forgotten(tmp_path: Path) -> None:
    """The file keeps only deployments of the last minute."""
    path = tmp_path / "deployed.json"
    cache = DeployedCache(path)
    cache.put("old", 100.0)
    cache.put("new", 170.5)
    assert "old" not in path.read_text(encoding="utf-8")
    assert DeployedCache(path).age("new", 171.0) == 0.5


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1, "deployed": {"here": "x"}}', '{"version": 1}'])
def test_a_damaged_file_is_no_error(tmp_path: Path, content: str) -> None:
    """A damaged file is no error; it counts as empty."""
    path = tmp_path / "deployed.json"
    path.write_text(content, encoding="utf-8")
    assert DeployedCache(path).age(TICKETS.stack, 1.0) > 60
    assert DeployedCache(path).age("here", 1.0) > 60

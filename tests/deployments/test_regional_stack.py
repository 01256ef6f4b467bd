"""``regional_stack``: which source mints, and what happens if the cached stack is stale."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.counter_items import item
from tests.support.memory_aws import EU, STACK, US, Account, MemorySession, stack_in, url_in
from tests.support.minting import requested
from tests.support.model_table import ModelTable
from ticketctl.aws.stacks import outputs_of
from ticketctl.client.aio import UrlMinter
from ticketctl.deadline import Deadline
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.regional_stack import RegionalStack, max_block
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError, NotDeployedError, NotMintedError, UnknownCounterError, UnreachableError
from ticketctl.models import Block, StackOutputs
from ticketctl.settings import resolve

Connect = Callable[..., RegionalStack]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def connect(account: Account, tmp_path: Path) -> Connect:
    """Connect to the stack, as each process does; all share one cache."""

    def make(*, table: str | None = None, **flags: object) -> RegionalStack:
        environ = {"TICKETCTL_HOME": str(tmp_path)}
        settings = resolve({"region": (US,), "via": "dynamodb", **flags}, environ)
        return RegionalStack(MemorySession(settings, account, environ), table=table)

    return make


def remembered(region: str = US, **parameters: str) -> StackOutputs:
    """The outputs of a stack as an earlier deployment has cached them."""
    return outputs_of(stack_in(region, parameters), region)


def attempt(stack: RegionalStack, *, looks_up: bool = True) -> Block:
    return stack.attempt(requested(1), Deadline(5), looks_up=looks_up)


# --- a stale stack -----------------------------------------------------------------------------------


def test_a_table_that_moved_is_looked_up(account: Account, connect: Connect) -> None:
    """If the cached table does not exist, CloudFormation is asked, and the mint uses the current table."""
    account.deploy(US)
    connect().locator.remember(StackOutputs(**{**vars(remembered()), "table": "Gone"}))
    stack = connect()
    assert (attempt(stack).last, stack.counter(None, Deadline(5)).last) == (1, 1)
    assert account.calls[f"describe {US}"] == 1


def test_a_counter_is_read_after_a_look_up_too(account: Account, connect: Connect) -> None:
    """Reading a counter looks up a stale stack, as minting does."""
    account.deploy(US)
    account.tables[US].rows[US] = item(US, 7)
    connect().locator.remember(StackOutputs(**{**vars(remembered()), "table": "Gone"}))
    counter = connect().counter(None, Deadline(5))
    assert (counter.last, counter.region) == (7, US)


def test_a_first_pass_over_regions_looks_nothing_up(account: Account, connect: Connect) -> None:
    """In the first pass over the regions, an unreachable region is not looked up."""
    connect().locator.remember(remembered())
    account.down = {US}
    with pytest.raises(UnreachableError):
        attempt(connect(), looks_up=False)
    assert account.calls[f"describe {US}"] == 0
    with pytest.raises(UnreachableError):
        attempt(connect(), looks_up=True)
    assert account.calls[f"describe {US}"] == 1


def test_the_default_counter_starts_in_the_lane_of_today(account: Account, connect: Connect) -> None:
    """A new default counter starts in the lane that CloudFormation has, not in the cached one."""
    account.deploy(US, Offset="4", Increment="5")
    connect().locator.remember(remembered())
    assert attempt(connect()).last == 4


def test_a_look_up_that_fails_confirms_no_lane(account: Account, connect: Connect) -> None:
    """If CloudFormation denies the look-up, no counter starts, because another region may have the cached lane now."""
    account.deploy(US, Offset="0")
    connect().locator.remember(remembered())
    account.denies_cloudformation = True
    stack = connect()
    for _ in range(3):
        with pytest.raises(UnknownCounterError):
            attempt(stack)
    assert account.numbers(US) == {}


def test_a_destroyed_stack_is_not_deployed(account: Account, connect: Connect) -> None:
    """If stack and table were deleted, the error is that the stack is not deployed."""
    connect().locator.remember(remembered())
    with pytest.raises(NotDeployedError, match=f"the stack {STACK} is not deployed in 123456789012/{US}"):
        attempt(connect())
    assert account.tables == {}


# --- the source --------------------------------------------------------------------------------------


def test_a_source_is_opened_once_for_all_threads(account: Account, connect: Connect) -> None:
    """Threads that mint at the same time share one source, until the next look-up."""
    account.deploy(US)
    stack = connect()
    threads = [threading.Thread(target=attempt, args=(stack,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (account.numbers(US), account.calls[f"sender {US}"]) == ({US: 8}, 1)
    stack.locator.look_up()
    attempt(stack)
    assert account.calls[f"sender {US}"] == 2


class HangingLocator(Locator):
    """CloudFormation does not answer before ``released`` is set."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.asked, self.released = threading.Event(), threading.Event()

    def describe(self, deadline: Deadline | None = None) -> StackOutputs | None:
        self.asked.set()
        self.released.wait(10.0)
        return super().describe(deadline)


async def mint_with_await(stack: RegionalStack, locator: HangingLocator) -> None:
    """Mint with await while another task, which has more time, looks up the stack."""
    minter = UrlMinter(stack)
    other = asyncio.create_task(minter.mint(requested(1), Deadline(5.0)))
    await asyncio.get_running_loop().run_in_executor(None, locator.asked.wait, 5.0)
    try:
        await minter.mint(requested(1), Deadline(0.6))
    finally:
        locator.released.set()
        other.cancel()
        await minter.close()


@pytest.mark.parametrize("start", ["unknown", "stale", "await"])
def test_no_mint_waits_for_the_look_up_of_another_thread(account: Account, connect: Connect, start: str) -> None:
    """A thread that looks up the stack with more time, or without a limit, does not delay a mint past its deadline."""
    account.deploy(US)
    stack = connect(via="dynamodb" if start == "unknown" else "url")
    hanging = stack.locator = HangingLocator(stack.session)
    if start != "unknown":  # the cached address refuses every connection, and worked before
        hanging.remember(replace(remembered(), url="http://127.0.0.9:1/"))
        hanging.mark_working(hanging.generation)
    began = time.monotonic()
    if start == "await":
        with pytest.raises(NotMintedError):
            asyncio.run(mint_with_await(stack, hanging))
    else:
        other = threading.Thread(target=hanging.look_up)
        other.start()
        assert hanging.asked.wait(5.0)
        with pytest.raises(NotMintedError):
            stack.attempt(requested(1), Deadline(0.6), looks_up=True)
        hanging.released.set()
        other.join()
    assert time.monotonic() - began < 1.1


def test_a_named_table_asks_cloudformation_nothing(account: Account, connect: Connect) -> None:
    """With ``--table`` CloudFormation is not asked, and counters must exist."""
    account.tables[US] = ModelTable("Old")
    stack = connect(table="Old")
    with pytest.raises(UnknownCounterError):
        attempt(stack)
    account.tables[US].rows[US] = item(US, 41)
    assert attempt(stack).last == 42
    account.codes = {US: "AccessDeniedException"}
    with pytest.raises(AccessError):
        attempt(stack)
    assert account.calls[f"describe {US}"] == 0


@pytest.mark.parametrize(("auth", "signs"), [("AWS_IAM", True), ("NONE", False)])
def test_a_function_url_signs_at_once_unless_it_is_open(
    account: Account, connect: Connect, auth: str, *, signs: bool
) -> None:
    """The first request to a private Function URL is signed, to a public one it is not."""
    account.deploy(US, AuthType=auth)
    stack = connect(via="url")
    url, generation = stack.function_url(Deadline(5))
    assert (url.signs, generation) == (signs, stack.locator.generation)
    assert stack.url() == url_in(US)


def test_a_typed_url_is_used_as_it_is(account: Account, connect: Connect) -> None:
    """A typed Function URL is not looked up; its tickets have no region, and possible gaps name its host."""
    stack = connect(via="url", url="https://tickets.example:8443/x")
    url, _ = stack.function_url(Deadline(5))
    assert not url.signs
    assert (stack.named_region, stack.place, max_block(stack, Deadline(5))) == (None, "tickets.example:8443", 10_000)
    assert account.calls == {}


def test_the_largest_block(account: Account, connect: Connect) -> None:
    """The Function URL limits a block as its stack does; a mint from the table may have 10,000 tickets."""
    account.deploy(US, MaxCount="70")
    assert [max_block(connect(via=via), Deadline(5)) for via in ("url", "dynamodb")] == [70, 10_000]


def test_the_counters_are_of_the_confirmed_table(account: Account, connect: Connect) -> None:
    """Administration uses the table that CloudFormation names, never a cached one."""
    account.deploy(US)
    account.tables[US].rows[US] = item(US, 7)
    connect().locator.remember(StackOutputs(**{**vars(remembered()), "table": "Gone"}))
    assert [counter.last for counter in connect().counters().all()] == [7]


# --- other regions -----------------------------------------------------------------------------------


def test_another_region_is_the_same_stack(account: Account, connect: Connect) -> None:
    """A stack in another region has its own address and the same settings."""
    account.deploy(EU)
    stack = connect()
    other = stack.in_region(EU)
    assert (other.region, other.place, other.url()) == (EU, EU, url_in(EU))
    assert attempt(other).region == EU


# --- the embedded AWS --------------------------------------------------------------------------------


def test_the_embedded_aws_gets_the_stack_at_its_first_use(account: Account, connect: Connect) -> None:
    """With ``--local`` a stack that does not exist is deployed once, at its first use."""
    assert attempt(connect(local=True)).last == 1
    assert attempt(connect(local=True)).last == 2
    assert account.calls[f"execute {US}"] == 1


def test_a_sequence_is_not_started_twice(account: Account, connect: Connect) -> None:
    """With ``--local`` nothing is deployed automatically if another region has the table: tickets would repeat."""
    account.deploy(EU)
    with pytest.raises(NotDeployedError):
        attempt(connect(local=True))
    assert account.calls[f"execute {US}"] == 0


@pytest.mark.parametrize("named", [(US, EU), (US,)])
def test_several_regions_are_deployed_by_command_only(
    account: Account, connect: Connect, named: tuple[str, ...]
) -> None:
    """With ``--local`` and several regions, nothing is deployed automatically."""
    stack = connect(local=True, region=named)
    with pytest.raises(NotDeployedError):
        attempt(stack if len(named) > 1 else stack.in_region(EU))
    assert account.stacks == {}


def test_a_restarted_engine_is_no_reason_to_ask(account: Account, connect: Connect) -> None:
    """If the embedded AWS restarts, a retry uses its new key, and CloudFormation is not asked."""
    account.deploy(US)
    stack = connect(local=True)
    attempt(stack)
    before = stack.locator.generation, account.calls[f"describe {US}"]
    account.engine_restarted = True
    assert stack.locator.refresh_after(AccessError("403"), stack.locator.generation, Deadline(5))
    assert (stack.locator.generation, account.calls[f"describe {US}"]) == (before[0] + 1, before[1])


def test_starting_the_embedded_aws_costs_no_time(account: Account, connect: Connect) -> None:
    """With ``--local`` the deadline is paused while the stack is deployed, so that time is left for the mint."""
    account.seconds = 1.0
    deadline = Deadline(0.8)
    assert connect(local=True).attempt(requested(1), deadline, looks_up=True).last == 1
    assert deadline.left() > 0.2


# --- a table-only stack ------------------------------------------------------------------------------


def make_table_only(account: Account, region: str = US, **parameters: str) -> None:
    account.deploy(region, **parameters)
    account.stacks[region] = replace(account.stacks[region], outputs={"TableName": STACK})


@pytest.mark.parametrize("start", ["looked up", "remembered"])
def test_a_table_only_stack_mints_from_its_table(account: Account, connect: Connect, start: str) -> None:
    """A stack without a URL mints from its table; the first mint uses the current lane, even if the cache is older."""
    make_table_only(account, Offset="5", Increment="10", MaxCount="70")
    if start == "remembered":
        connect(via=None).locator.remember(replace(remembered(), url=None))
    stack = connect(via=None)
    assert [attempt(stack).last, attempt(stack).last] == [5, 15]
    assert stack.counter(None, Deadline(5)).last == 15
    assert max_block(stack, Deadline(5)) == 10_000
    assert account.calls[f"describe {US}"] == 1


def test_a_url_that_is_required(account: Account, connect: Connect) -> None:
    """With --via url, the error for a table-only stack names the region and the command that adds a URL."""
    make_table_only(account)
    stack = connect(via="url")
    for call in (stack.url, lambda: attempt(stack)):
        with pytest.raises(NotDeployedError) as caught:
            call()
        assert (caught.value.message, caught.value.hint) == (
            f"the stack Tickets in {US} is table-only: it has no Function URL, and tickets are minted from its table",
            f"ticketctl deploy --region {US}",
        )
    assert account.tables[US].rows == {}


def test_a_required_url_is_looked_up(account: Account, connect: Connect) -> None:
    """With --via url, a stack that is cached without a URL is looked up, because a function may have been added."""
    account.deploy(US)
    connect(via=None).locator.remember(replace(remembered(), url=None))
    stack = connect(via="url")
    assert not stack.mints_from_table(Deadline(5))
    function_url, _ = stack.function_url(Deadline(5))
    assert function_url.to_mint(requested(1)).url.startswith(url_in(US))

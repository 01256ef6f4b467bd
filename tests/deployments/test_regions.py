"""``regions``: calls to each region, the order in which they mint, and finding the regions of a sequence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.memory_aws import AP, EU, US, Account, Said, regions_of
from tests.support.minting import requested
from ticketctl.counters.arrangement import arrange
from ticketctl.counters.lanes import Lane
from ticketctl.deadline import Deadline
from ticketctl.deployments.outcomes import failures, succeeded
from ticketctl.deployments.regions import Regions
from ticketctl.errors import NoRegionError, NotMintedError, TicketctlError, UnreachableError

Connect = Callable[..., Regions]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def connect(account: Account, tmp_path: Path, said: Said) -> Connect:
    return lambda *names, **flags: regions_of(account, tmp_path, *names, said=said, **flags)


@pytest.fixture
def two(account: Account, connect: Connect) -> Regions:
    """Two regions that share the default counter: one has the odd numbers, the other the even numbers."""
    for region in (US, EU):
        account.deploy(region, Offset="0")
    regions = connect(US, EU)
    arrange(regions.members(), [US, EU])
    return regions


def mint(regions: Regions, partition: str | None = None, key: str | None = None) -> tuple[int, str | None]:
    """Take one ticket; return its number and its region."""
    block = regions.mint(requested(1, key, partition), Deadline(5))
    return block.last, block.region


# --- each --------------------------------------------------------------------------------------------


def test_each_region_answers_in_the_order_of_the_names(connect: Connect) -> None:
    """The answers are by region, in the order of the command line or of the names that the caller gives."""
    regions = connect(EU, US)
    assert list(regions.each(lambda stack: stack.region).items()) == [(EU, EU), (US, US)]
    assert list(regions.each(lambda stack: stack.region, [AP, EU])) == [AP, EU]


def test_an_error_of_one_region_is_its_outcome(connect: Connect) -> None:
    """If one region fails, its error is its outcome, next to the answers of the others."""
    error = NotMintedError("down")

    def call(stack: object) -> str:
        if stack is regions.home:
            raise error
        return "up"

    regions = connect(US, EU)
    outcomes = regions.each(call)
    assert (failures(outcomes), succeeded(outcomes)) == ({US: error}, {EU: "up"})


def test_a_region_is_connected_once(connect: Connect) -> None:
    """All calls to a region share its connection; the connection to the first region is ``home``."""
    regions = connect(US, EU)
    assert regions.at(US) is regions.home
    assert regions.at(EU) is regions.at(EU) is not regions.home


def test_nothing_is_called_without_a_region(connect: Connect) -> None:
    """Without a region the error says so, and nothing is called."""
    with pytest.raises(NoRegionError):
        connect().each(lambda stack: stack.region)


# --- mint --------------------------------------------------------------------------------------------


def test_the_first_region_mints(two: Regions) -> None:
    """While the first region answers, every ticket is from it."""
    assert [mint(two) for _ in range(3)] == [(1, US), (3, US), (5, US)]


def test_the_next_region_mints_if_the_first_is_down(two: Regions, account: Account, said: Said) -> None:
    """An unreachable region is skipped with a note, and tried last for a while."""
    account.down = {US}
    assert mint(two) == (2, EU)
    assert [line.startswith(f"{US} is skipped: ") for line in said.lines] == [True]
    account.down = set()
    assert mint(two) == (4, EU)


def test_no_region_mints_if_all_are_down(two: Regions, account: Account) -> None:
    """If all regions are unreachable, nothing was minted."""
    account.down = {US, EU}
    with pytest.raises(NotMintedError):
        two.mint(requested(1), Deadline(0.5))
    assert account.numbers(US) == {US: -1}


def test_the_name_of_a_region_is_its_default_counter(two: Regions, said: Said) -> None:
    """A counter with the name of a region is minted in that region only."""
    assert mint(two, EU) == (2, EU)
    assert said.lines == []


def test_a_typed_key_stays_in_the_first_region(two: Regions, account: Account) -> None:
    """The receipt of a typed key is in the first region, so no other region may mint for that key."""
    assert mint(two, key="order-7") == mint(two, key="order-7") == (1, US)
    account.down = {US}
    with pytest.raises(NotMintedError):
        two.mint(requested(1, "order-8"), Deadline(0.5))


def test_max_block_is_that_of_the_smallest_region(account: Account, connect: Connect) -> None:
    """A block must fit every region that can tell its limit; if none can, the first error is raised."""
    account.deploy(US, MaxCount="500")
    account.deploy(EU, MaxCount="70")
    assert connect(US, EU, via="url").max_block(Deadline(5)) == 70
    account.down = {AP}
    assert connect(US, EU, AP, via="url").max_block(Deadline(5)) == 70
    account.down = {US, EU}
    assert connect(US, via="dynamodb").max_block(Deadline(5)) == 10_000


# --- members -----------------------------------------------------------------------------------------


def names(regions: Regions, **options: object) -> list[tuple[str, bool]]:
    """Return the name of each member, and whether it is retired."""
    return [(member.region, member.retired) for member in regions.members(**options)]  # type: ignore[arg-type]


def test_a_region_without_a_table_is_no_member(account: Account, connect: Connect) -> None:
    """Only regions with a table belong to the sequence."""
    account.deploy(US)
    assert names(connect(US, EU)) == [(US, False)]


def test_a_table_without_a_stack_is_retired(account: Account, connect: Connect) -> None:
    """A table whose stack was destroyed is a member that mints nothing."""
    account.deploy(US)
    del account.stacks[US]
    (member,) = connect(US).members()
    assert (member.retired, member.start) == (True, None)


def test_the_lane_of_a_stack_is_where_its_counters_start(account: Account, connect: Connect) -> None:
    """The stack's offset and increment are the lane of its new counters; with offset 0, none starts by itself."""
    account.deploy(US, Offset="2", Increment="3")
    account.deploy(EU, Offset="0")
    assert [member.start for member in connect(US, EU).members()] == [Lane(2, 3), None]


def test_counters_name_further_members(two: Regions, connect: Connect) -> None:  # noqa: ARG001
    """Members that were not named are found through the default counter of another region."""
    assert names(connect(EU)) == [(EU, False), (US, False)]


def test_remembered_regions_are_members(account: Account, connect: Connect) -> None:
    """The cached regions of the last deployment are members, and so are those that the caller names."""
    for region in (US, EU, AP):
        account.deploy(region)
    connect(US).remember([US, EU])
    assert names(connect(US)) == [(US, False), (EU, False)]
    assert names(connect(US), also=[AP]) == [(US, False), (EU, False), (AP, False)]


def test_an_unreadable_region_is_an_error_or_a_warning(two: Regions, account: Account, said: Said) -> None:
    """If a region cannot be read, that is an error; a tolerant caller gets a warning, and the region in ``unread``."""
    account.down = {EU}
    with pytest.raises(TicketctlError):
        two.members()
    assert names(two, tolerant=True) == [(US, False)]
    assert list(two.unread) == [EU]
    assert said.lines[-1].startswith(f"{EU} cannot be read: ")


def test_a_known_stack_is_not_described(account: Account, connect: Connect) -> None:
    """A stack that the caller has already described is not described again."""
    account.deploy(US)
    regions = connect(US)
    known = {US: regions.home.locator.look_up()}
    before = account.calls[f"describe {US}"]
    assert regions.members(known=known)[0].start == Lane(1, 1)
    assert account.calls[f"describe {US}"] == before


# --- account, other regions, cache -------------------------------------------------------------------


def test_the_account_comes_from_the_first_region_that_answers(account: Account, connect: Connect) -> None:
    """If the first region is unreachable, the next one returns the account; if all are, that is the error."""
    account.down = {US}
    assert connect(US, EU).account() == "123456789012"
    account.down = {US, EU}
    with pytest.raises(UnreachableError):
        connect(US, EU).account()


def test_elsewhere(account: Account, connect: Connect) -> None:
    """All other regions of the account that have the table are found; regions that cannot be read are unread."""
    account.deploy(EU)
    account.down = {AP}
    regions = connect(US)
    assert (regions.elsewhere(), list(regions.unread)) == ([EU], [AP])


def test_several_regions_are_remembered(connect: Connect) -> None:
    """The regions of a deployment are cached if there are several; a later deployment replaces them."""
    regions = connect(US)
    regions.remember([US])
    assert regions.before() == ()
    regions.remember([US, EU])
    assert connect(US).before() == (US, EU)
    regions.remember([EU])
    assert regions.before() == (EU,)

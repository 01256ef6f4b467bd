"""``last_tickets``: a deployment warns if counters have moved back since the last one; with an account in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.counter_items import item
from tests.support.memory_aws import EU, US, Account, Said, regions_of
from tests.support.minting import take
from ticketctl.deployments.deploy import deploy
from ticketctl.deployments.destroy import destroy, plan
from ticketctl.deployments.last_tickets import MOST
from ticketctl.deployments.outcomes import succeeded
from ticketctl.deployments.regions import Regions, forget_embedded

BEHIND = (
    "the counter 'us-east-1' in us-east-1 {}, but at the last deployment from here it was at 7: if its table was "
    "restored or recreated, it mints numbers again. Before anything mints, move it past the largest number in use: "
    "ticketctl counter advance us-east-1 --to N"
)


@pytest.fixture
def account() -> Account:
    return Account(US, EU)


@pytest.fixture
def connect(account: Account, tmp_path: Path) -> Callable[..., Regions]:
    return lambda *names: regions_of(account, tmp_path, *names)


@pytest.fixture
def warnings(connect: Callable[..., Regions]) -> Callable[..., list[str]]:
    """Deploy, and return the warnings."""

    def run(*names: str) -> list[str]:
        said = Said()
        assert len(succeeded(deploy(connect(*names), {}, said.dialog, opens_to_anyone=False))) == len(names)
        return said.warnings

    return run


Warnings = Callable[..., list[str]]
Connect = Callable[..., Regions]


@pytest.fixture
def at_seven(connect: Connect, warnings: Warnings) -> None:
    """A stack that was last deployed when its counter was at 7."""
    assert warnings(US) == []
    assert take(connect(US), 7).last == 7
    assert warnings(US) == []


@pytest.mark.usefixtures("at_seven")
@pytest.mark.parametrize(("last", "said"), [(3, "is at 3"), (None, "does not exist")])
def test_a_counter_that_went_back(account: Account, warnings: Warnings, last: int | None, said: str) -> None:
    """If a counter is behind the last deployment, or missing, one warning has both numbers and the solution."""
    account.tables[US].rows = {} if last is None else {US: item(US, last)}
    assert warnings(US) == [BEHIND.format(said)]
    assert warnings(US) == []


@pytest.mark.usefixtures("at_seven")
def test_a_counter_that_went_on(connect: Connect, warnings: Warnings) -> None:
    """A counter that has minted since the last deployment causes no warning."""
    take(connect(US), 5)
    assert warnings(US) == []


@pytest.mark.usefixtures("at_seven")
def test_a_table_that_was_deleted(account: Account, warnings: Warnings) -> None:
    """If stack and table were deleted by hand, the deployment warns that the new counter would start again."""
    del account.stacks[US]
    del account.tables[US]
    assert warnings(US) == [BEHIND.format("does not exist")]


@pytest.mark.usefixtures("at_seven")
def test_destroyed_tickets_are_forgotten(connect: Connect, warnings: Warnings) -> None:
    """After ``destroy --delete-tickets`` a deployment starts again without a warning, as the user requested."""
    regions = connect(US)
    destroy(regions, succeeded(plan(regions, delete_tickets=True)), Said().dialog)
    assert warnings(US) == []


@pytest.mark.usefixtures("at_seven")
@pytest.mark.parametrize("damage", ["{", '{"version": 1, "tickets": [1]}', '{"version": 1, "tickets": {"a": 1}}', None])
def test_a_damaged_cache(account: Account, warnings: Warnings, tmp_path: Path, damage: str | None) -> None:
    """If the cache is missing or damaged, there is no warning and no error."""
    (cache,) = tmp_path.glob("**/tickets.json")
    cache.unlink()
    if damage is not None:
        cache.write_text(damage)
    account.tables[US].rows = {US: item(US, 3)}
    assert warnings(US) == []


@pytest.mark.usefixtures("at_seven")
def test_a_table_that_cannot_be_scanned(account: Account, warnings: Warnings) -> None:
    """If the table may not be scanned, there is no warning, and the known numbers are kept."""
    account.tables[US].rows = {US: item(US, 3)}
    account.denied = {"Scan"}
    assert warnings(US) == []
    account.denied = set()
    assert warnings(US) == [BEHIND.format("is at 3")]


def test_several_regions(account: Account, connect: Connect, warnings: Warnings) -> None:
    """Each region's counters are compared with its own."""
    warnings(US, EU)
    assert [take(connect(name), 4).last for name in (US, EU)] == [7, 8]
    assert warnings(US, EU) == []
    row = account.tables[EU].rows[EU]
    account.tables[EU].rows[EU] = {**row, "hand_crafted_int": {"N": "2"}}
    (warning,) = warnings(US, EU)
    assert warning.startswith(
        "the counter 'eu-west-1' in eu-west-1 is at 2, but at the last deployment from here it was at 8"
    )


def test_a_large_table_is_not_read_whole(account: Account, connect: Connect, warnings: Warnings) -> None:
    """Only the first counters of a scan are kept; a counter that is not among them is not reported as missing."""
    warnings(US)
    take(connect(US), 7)
    warnings(US)
    account.tables[US].rows = {name: item(name, 1) for name in (f"a-{number:04}" for number in range(MOST + 5))}
    assert warnings(US) == []


def test_a_reset_of_the_embedded_aws(tmp_path: Path) -> None:
    """After ``local reset`` no numbers of the embedded AWS are known."""
    from ticketctl.deployments.cache import TicketsCache

    cache = TicketsCache(tmp_path / "tickets.json")
    cache.put("embedded|||us-east-1|Tickets", {US: 7})
    cache.put("aws|||us-east-1|Tickets", {US: 9})
    forget_embedded({"TICKETCTL_HOME": str(tmp_path)})
    assert [cache.get(f"{where}|||us-east-1|Tickets") for where in ("embedded", "aws")] == [{}, {US: 9}]

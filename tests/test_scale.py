"""``docs/scale.md``: its tables are those of the simulation, which agrees with the limits and prices."""

from dataclasses import replace
from functools import cache
from inspect import signature
from pathlib import Path

import pytest

from tests.benchmarks import scale
from tests.benchmarks.scale import PLANS, Item, Load, Plan, cost, tables, years
from ticketctl.client.sync import TicketClient

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
simulated = cache(scale.simulated)


@pytest.mark.heavy
def test_the_page_has_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of the page are the output of the script, character for character."""
    scale.main()
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")


def test_the_same_plan_meets_the_same_load() -> None:
    """The same plan always gives the same result, whatever was simulated before."""
    plan = Plan(10**6)
    assert scale.simulated(plan) == scale.simulated(plan)


def test_the_item_takes_a_thousand_writes_a_second() -> None:
    """Of 2,000 writes per second an item accepts 1,000, and no ticket is issued twice."""
    item = Item(1_000)
    blocks = [item.write(number / 2_000, 3) for number in range(20_000)]
    tickets = [ticket for block in blocks if block for ticket in block.tickets]
    assert item.blocks == pytest.approx(10_000, rel=0.02)
    assert item.blocks + item.refused == 20_000
    assert tickets == list(range(1, 3 * item.blocks + 1))


def test_one_item_carries_ten_million_a_day_one_by_one() -> None:
    """With ten million single tickets per day no write is throttled at the peak."""
    load = simulated(Plan(10**7))
    assert load.carried
    assert load.throttled == 0


def test_one_item_is_the_limit_at_a_hundred_million_one_by_one() -> None:
    """With a hundred million single tickets per day an item accepts what it can; other mints fail despite retries."""
    plan = Plan(10**8)
    load = simulated(plan)
    assert plan.peak_writes == pytest.approx(5_787, abs=1)
    assert not load.carried
    # 30 seconds of arrivals, and up to 10 seconds of retries after them, at 1,000 writes per second
    assert 1 - load.given_up == pytest.approx(40 * 1_000 / (30 * plan.peak_writes), rel=0.05)
    assert 9 < load.wait <= 10.1


@pytest.mark.parametrize("tickets", [10**8, 10**9])
def test_blocks_reduce_the_writes(tickets: int) -> None:
    """Blocks of 100 divide the number of writes by 100, and no mint waits."""
    plan = next(plan for plan in PLANS if (plan.tickets, plan.block) == (tickets, 100))
    load = simulated(plan)
    assert plan.peak_writes == pytest.approx(Plan(tickets).peak_writes / 100)
    assert load.busiest == pytest.approx(plan.peak_writes, rel=0.2)
    assert load.carried
    assert (load.throttled, load.wait) == (0, 0)


@pytest.mark.parametrize("plan", [Plan(10**7), Plan(10**9, 100, processes=64), Plan(10**9, 10_000, processes=64)])
def test_twice_the_regions_halve_the_writes_on_each_item(plan: Plan) -> None:
    """Twice as many regions halve the writes per item: exactly in the formula, approximately in the simulation."""
    doubled = replace(plan, regions=2 * plan.regions)
    assert doubled.peak_writes == pytest.approx(plan.peak_writes / 2)
    assert simulated(doubled).busiest == pytest.approx(simulated(plan).busiest / 2, rel=0.15, abs=2)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.processes])
def test_a_process_that_ends_leaves_less_than_two_blocks(plan: Plan) -> None:
    """The numbers that the processes of a region leave are below the bound that ``Lease`` guarantees."""
    assert 0 < simulated(plan).left < 2 * plan.block * plan.processes // plan.regions


def test_blocks_of_a_slow_process_are_small() -> None:
    """After the first block of 10,000, a block has the tickets of one minute, and at least 100."""
    plan = Plan(10**6, 10_000, processes=4)
    assert plan.block_at(14.5) == 870
    assert (plan.block_at(0.1), plan.block_at(1_000)) == (100, 10_000)
    assert plan.block_at(plan.each_process * scale.PEAK) < simulated(plan).size < 2_000


def test_the_leases_are_the_librarys() -> None:
    """The simulation uses the defaults of ``TicketClient.lease``."""
    defaults = {name: parameter.default for name, parameter in signature(TicketClient.lease).parameters.items()}
    assert defaults["min_block"] == scale.MIN_BLOCK
    assert defaults["seconds"] == scale.LEASE_SECONDS
    assert defaults["block_size"] == max(plan.block for plan in PLANS)


def test_the_cost_is_that_of_a_line_by_hand() -> None:
    """10^8 mints cost $20 for requests, $3.33 for GB-seconds and $62.50 for writes."""
    assert cost(10**8) == pytest.approx(20 + 3.3334 + 62.5, abs=0.001)


def test_a_sequence_lasts_for_its_numbers() -> None:
    """2^53 - 1 numbers last 28.5 years with 1,000 blocks of 10,000 per second; gaps and a share shorten that."""
    assert years(10_000 * 1_000 * 86_400) == pytest.approx(28.54, abs=0.01)
    assert years(10**9) == pytest.approx(24_660, abs=1)
    assert years(10**9, gaps=10**9) == pytest.approx(years(10**9, share=0.5)) == pytest.approx(years(10**9) / 2)


def test_a_plan_beyond_the_limit_has_no_price() -> None:
    """A plan that exceeds the limit of its items is only in the first table."""
    text = tables([(Plan(10**8), Load(2_000, 0.5, 0.1, 9.0, 1.0, 0)), (Plan(10**3), Load(2, 0.0, 0.0, 0.02, 1.0, 0))])
    load, price = text.split("**Cost and time**")
    assert ("10^8" in load, "10^8" in price) == (True, False)
    assert ("10^3" in load, "10^3" in price) == (True, True)

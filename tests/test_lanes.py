"""``lanes``: the arithmetic of residue classes."""

import itertools

import pytest

from ticketctl.lanes import at_or_after


@pytest.mark.parametrize("increment", range(1, 8))
def test_every_small_lane(increment: int) -> None:
    """It is the first number of the residue class, found by counting up."""
    for offset, number in itertools.product(range(-10, 16), range(-20, 30)):
        counted = next(n for n in itertools.count(number) if (n - offset) % increment == 0)
        assert at_or_after(number, offset=offset, increment=increment) == counted


@pytest.mark.parametrize(
    ("number", "offset", "increment", "nearest"),
    [
        (2**53 - 1, 1, 1, 2**53 - 1),
        (2**53 - 1, 1, 2, 2**53 - 1),
        (2**53 - 1, 2, 2, 2**53),
        (2**53 - 10, 3, 10**6, 9_007_199_255_000_003),
        (1, 10**6, 10**6, 10**6),
        (10**40 + 7, 7, 10**20, 10**40 + 7),
        (10**40 + 8, 7, 10**20, 10**40 + 10**20 + 7),
    ],
)
def test_large_lanes(number: int, offset: int, increment: int, nearest: int) -> None:
    """No number is too large to be exact."""
    assert at_or_after(number, offset=offset, increment=increment) == nearest


@pytest.mark.parametrize(("offset", "increment"), [(1, 1), (1, 2), (2, 2), (3, 7), (7, 7)])
def test_a_lane_is_walked_in_its_own_steps(offset: int, increment: int) -> None:
    """From each number of a lane the next one is an increment away, and none lies between."""
    lane = [offset + increment * n for n in range(5)]
    assert [at_or_after(n, offset=offset, increment=increment) for n in lane] == lane
    assert [at_or_after(n + 1, offset=offset, increment=increment) for n in lane] == [n + increment for n in lane]

"""``lanes``: small lanes compared with a list of their numbers, and large lanes checked with general laws."""

import itertools
from fractions import Fraction
from math import gcd, lcm

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import DERANDOMIZED, times
from ticketctl.counters.lanes import Lane

LAST = 400  # the lists of numbers end here
SMALL = [Lane(offset, increment) for offset in range(-5, 13) for increment in range(1, 9)]

NUMBERS = st.integers(-(2**60), 2**60)
LANES = st.builds(Lane, NUMBERS, st.integers(1, 2**60))
NARROW = st.builds(Lane, NUMBERS, st.integers(1, 60))  # narrow enough that lanes often overlap
LARGE = settings(max_examples=times(100), derandomize=DERANDOMIZED, deadline=None)


def counted(lane: Lane) -> list[int]:
    """Return the numbers of a lane up to ``LAST``, counted one by one."""
    numbers = [lane.offset]
    while numbers[-1] + lane.increment <= LAST:
        numbers.append(numbers[-1] + lane.increment)
    return numbers


# --- small lanes -----------------------------------------------------------------------------------


def test_a_small_lane_has_exactly_the_numbers_that_are_counted() -> None:
    """A number is in a lane if counting from the offset in steps of the increment reaches it."""
    for lane in SMALL:
        assert [number for number in range(-30, LAST + 1) if number in lane] == counted(lane)


def test_the_next_number_of_a_small_lane_is_the_first_that_is_counted() -> None:
    """``at_or_after`` is the smallest number of the lane that is not below a number, ``after`` the smallest above."""
    for lane in SMALL:
        numbers = counted(lane)
        for number in range(-30, 60):
            assert lane.at_or_after(number) == min(n for n in numbers if n >= number)
            assert lane.after(number) == min(n for n in numbers if n > number)


def test_the_residue_of_a_small_lane_is_its_smallest_positive_number_if_it_began_there() -> None:
    """The residue is between 1 and the increment, and a whole number of steps from the offset."""
    for lane in SMALL:
        steps = itertools.count(lane.offset % lane.increment - lane.increment, lane.increment)
        assert lane.residue == next(number for number in steps if number >= 1)
        assert 1 <= lane.residue <= lane.increment


def test_the_share_of_a_small_lane_is_how_many_numbers_it_has() -> None:
    """Among as many consecutive numbers as the common multiple of the increments, a lane has its share."""
    for lane in SMALL:
        stretch = range(20, 20 + lcm(*range(1, 9)))
        assert Fraction(sum(number in lane for number in stretch), len(stretch)) == lane.share


def test_two_small_lanes_are_disjoint_if_no_counted_number_is_in_both() -> None:
    """Above both offsets the lanes repeat after the common multiple of their increments, so that far is enough."""
    numbers = {lane: frozenset(counted(lane)) for lane in SMALL}
    for one, other in itertools.product(SMALL, repeat=2):
        assert max(one.offset, other.offset) + lcm(one.increment, other.increment) <= LAST
        assert one.is_disjoint(other) == numbers[one].isdisjoint(numbers[other])


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_the_parts_of_a_small_lane_are_the_lane_and_do_not_meet(parts: int) -> None:
    """Each number of a lane is in exactly one of its parts, no other number is in any, and each has the same share."""
    for lane in SMALL:
        pieces = lane.split(parts)
        assert sorted(itertools.chain.from_iterable(map(counted, pieces))) == counted(lane)
        assert [piece.share for piece in pieces] == [lane.share / parts] * parts
        assert all(one.is_disjoint(other) for one, other in itertools.combinations(pieces, 2))


# --- large lanes -----------------------------------------------------------------------------------


@LARGE
@given(LANES, st.integers(0, 2**60))
def test_every_step_from_the_offset_is_in_the_lane(lane: Lane, steps: int) -> None:
    """``offset + k·increment`` is in the lane for any k; the number after it only if the increment is 1."""
    number = lane.offset + steps * lane.increment
    assert number in lane
    assert (number + 1 in lane) == (lane.increment == 1)
    assert lane.offset - lane.increment not in lane


@LARGE
@given(LANES, NUMBERS)
def test_the_next_number_is_less_than_a_step_away(lane: Lane, number: int) -> None:
    """``at_or_after`` is in the lane and not below the number; it is the offset or less than one step above."""
    found = lane.at_or_after(number)
    assert found in lane
    assert found >= number
    assert found == lane.offset or found - number < lane.increment
    assert lane.at_or_after(found) == found
    assert lane.after(found) == found + lane.increment
    assert lane.after(number) > number


@LARGE
@given(LANES)
def test_the_residue_names_the_class(lane: Lane) -> None:
    """The lane that starts at the residue contains every number of the lane."""
    assert 1 <= lane.residue <= lane.increment
    whole = Lane(min(lane.residue, lane.offset), lane.increment)
    assert lane.offset in whole
    assert lane.residue in whole


@LARGE
@given(NARROW, NARROW)
def test_lanes_that_are_not_disjoint_meet_within_one_common_multiple(one: Lane, other: Lane) -> None:
    """Comparing all numbers over a common multiple of the increments gives the same result as ``is_disjoint``."""
    start = max(one.offset, other.offset)
    steps = lcm(one.increment, other.increment) // one.increment
    first = one.at_or_after(start)
    meets = any(first + k * one.increment in other for k in range(steps))
    assert one.is_disjoint(other) == other.is_disjoint(one) == (not meets)


@LARGE
@given(LANES, st.integers(1, 2**60), st.integers(0, 2**60), st.integers(1, 2**30))
def test_lanes_through_one_number_are_never_disjoint(one: Lane, increment: int, steps: int, more: int) -> None:
    """Two lanes with a common number are not disjoint, whatever their increments and offsets are."""
    common = one.offset + steps * one.increment
    assert not one.is_disjoint(Lane(common - more * increment, increment))


@LARGE
@given(LANES, st.integers(2, 50), NUMBERS)
def test_each_number_is_in_exactly_one_part_of_a_large_lane(lane: Lane, parts: int, number: int) -> None:
    """Each number of a lane is in exactly one of its parts, and no part has another number."""
    pieces = lane.split(parts)
    assert len(pieces) == parts
    assert sum(number in piece for piece in pieces) == (number in lane)
    beyond = lane.at_or_after(number)
    assert sum(beyond in piece for piece in pieces) == 1
    assert all(one.is_disjoint(other) for one, other in itertools.combinations(pieces, 2))


@LARGE
@given(LANES, st.integers(2, 9), st.integers(2, 9), st.data())
def test_a_part_of_a_part_stays_away_from_the_other_parts(lane: Lane, k: int, m: int, data: st.DataObject) -> None:
    """If a part is split again, its parts are disjoint from all other parts."""
    first, *others = data.draw(st.permutations(lane.split(k)))
    assert all(piece.is_disjoint(other) for piece in first.split(m) for other in others)


# --- examples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "meeting"),
    [
        (Lane(1, 2), Lane(1, 3), 1),
        (Lane(1, 2), Lane(2, 3), 5),
        (Lane(5, 6), Lane(2, 9), 11),
        (Lane(2, 4), Lane(6, 10), 6),
    ],
)
def test_different_increments_are_not_enough(one: Lane, other: Lane, meeting: int) -> None:
    """Lanes with different increments overlap if their offsets agree modulo the greatest common divisor."""
    assert (one.offset - other.offset) % gcd(one.increment, other.increment) == 0
    assert not one.is_disjoint(other)
    assert meeting in one
    assert meeting in other


@pytest.mark.parametrize(
    ("one", "other"), [(Lane(1, 2), Lane(2, 2)), (Lane(1, 2), Lane(4, 6)), (Lane(3, 6), Lane(5, 9))]
)
def test_lanes_of_different_residues_never_meet(one: Lane, other: Lane) -> None:
    """Lanes whose offsets differ modulo the greatest common divisor of their increments have no common number."""
    assert one.is_disjoint(other)


def test_hilberts_hotel() -> None:
    """The two parts of all positive integers are the odd and the even numbers."""
    assert Lane(1, 1).split() == (Lane(1, 2), Lane(2, 2))
    assert Lane(5, 3).split(3) == (Lane(5, 9), Lane(8, 9), Lane(11, 9))


@pytest.mark.parametrize("increment", [0, -1, -(2**60)])
def test_the_increment_is_positive(increment: int) -> None:
    """An increment below 1 is an error."""
    with pytest.raises(ValueError, match=f"^the increment of a lane is 1 or more, not {increment}$"):
        Lane(1, increment)


def test_a_lane_in_words() -> None:
    """The text of a lane is its first three numbers."""
    assert str(Lane(2, 3)) == "2, 5, 8, …"

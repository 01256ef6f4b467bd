"""``deadline``: what is left of it, and parts of it."""

from ticketctl.deadline import Deadline


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_left() -> None:
    """The seconds that are left shrink with the clock, and never below zero."""
    clock = Clock()
    deadline = Deadline(5, clock)
    assert deadline.left() == 5
    clock.now += 3
    assert deadline.left() == 2
    clock.now += 3
    assert deadline.left() == 0


def test_within() -> None:
    """A part ends before the whole, and never after it."""
    clock = Clock()
    deadline = Deadline(5, clock)
    assert deadline.within(2).left() == 2
    assert deadline.within(9).left() == 5
    clock.now += 4
    assert deadline.within(2).left() == 1

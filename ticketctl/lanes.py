"""The arithmetic of residue classes: a lane is ``offset, offset + increment, offset + 2·increment, …``."""


def at_or_after(number: int, *, offset: int, increment: int) -> int:
    """The smallest number of the lane that is not below ``number``."""
    return number + (offset - number) % increment

"""The arithmetic of lanes.

A lane is the arithmetic progression ``offset, offset + increment, offset + 2·increment, …``, the upper part of a
residue class. The names are MySQL's ``auto_increment_offset`` and ``auto_increment_increment``; the rules are the
elementary ones of congruences (Hardy and Wright, "An Introduction to the Theory of Numbers", chapters V and VIII).
"""

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True)
class Lane:
    """The numbers ``offset + k·increment`` with k = 0, 1, 2, …; raises ``ValueError`` if ``increment`` is below 1."""

    offset: int
    increment: int

    def __post_init__(self) -> None:
        if self.increment < 1:
            raise ValueError(f"the increment of a lane is 1 or more, not {self.increment}")

    def __str__(self) -> str:
        return f"{self.offset}, {self.offset + self.increment}, {self.offset + 2 * self.increment}, …"

    def __contains__(self, number: int) -> bool:
        """Whether ``number ≡ offset (mod increment)`` and not below ``offset``."""
        return number >= self.offset and (number - self.offset) % self.increment == 0

    def at_or_after(self, number: int) -> int:
        """The smallest number of the lane not below ``number``: ``number + (offset - number) mod increment``."""
        return max(self.offset, number + (self.offset - number) % self.increment)

    def after(self, number: int) -> int:
        """The smallest number of the lane above ``number``."""
        return self.at_or_after(number + 1)

    @property
    def residue(self) -> int:
        """The smallest positive number of the residue class: 1 to ``increment``."""
        return (self.offset - 1) % self.increment + 1

    @property
    def share(self) -> "Fraction":
        """The part of all integers that it has: ``1 / increment``."""
        from fractions import Fraction

        return Fraction(1, self.increment)

    def is_disjoint(self, other: "Lane") -> bool:
        """Whether the two lanes have no number in common, nor would if they began earlier.

        ``x ≡ a (mod m)`` and ``x ≡ b (mod n)`` have a common solution if and only if ``a ≡ b (mod gcd(m, n))``
        (Chinese remainder theorem). Different increments are not enough: 1, 3, 5, … and 1, 4, 7, … have 1 and 7 in
        common.
        """
        return (self.offset - other.offset) % gcd(self.increment, other.increment) != 0

    def split(self, parts: int = 2) -> tuple["Lane", ...]:
        """Split it into equal lanes of increment ``parts·increment`` that are disjoint and together have its numbers.

        The i-th one has the offset ``offset + i·increment``, with ``i = 0 … parts - 1``. Two parts are the odd and the
        even rooms of Hilbert's hotel.
        """
        return tuple(Lane(self.offset + i * self.increment, parts * self.increment) for i in range(parts))

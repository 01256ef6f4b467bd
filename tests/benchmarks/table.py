"""A row of the table: two figures, their ratio, and its target."""

from dataclasses import dataclass

HEADER = ("what", "ours", "theirs", "ratio", "target", "")
WIDTHS = (44, 14, 14, 7, 8, 6)


@dataclass(frozen=True)
class Row:
    """Two figures in one ``unit``. ``target`` is the largest allowed ratio, or with ``at_least`` the smallest."""

    what: str
    ours: float
    theirs: float
    unit: str
    target: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """Return ticketctl's figure divided by the alternative's."""
        return self.ours / self.theirs

    @property
    def met(self) -> bool:
        """Return whether the ratio meets the target."""
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of ``HEADER``."""
        figures = (f"{figure:,.4g} {self.unit}" for figure in (self.ours, self.theirs))
        bound = f"{'≥' if self.at_least else '≤'} {self.target:g}"
        return (self.what, *figures, f"{self.ratio:.2f}", bound, "met" if self.met else "MISSED")


def line(cells: tuple[str, ...]) -> str:
    """Format a line of the table: the first column is left-aligned, the others are right-aligned."""
    first, *others = zip(cells, WIDTHS, strict=True)
    return " ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

"""One row of the table: two figures, their ratio, and what it should be."""

from dataclasses import dataclass

HEADER = ("what", "ours", "theirs", "ratio", "target", "")
WIDTHS = (44, 14, 14, 7, 8, 6)


@dataclass(frozen=True)
class Row:
    """Two figures in one ``unit``. ``target`` bounds ours / theirs: from above, or with ``at_least`` from below."""

    what: str
    ours: float
    theirs: float
    unit: str
    target: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        """Ours as a multiple of theirs."""
        return self.ours / self.theirs

    @property
    def met(self) -> bool:
        """Whether the ratio is what it should be."""
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of ``HEADER``."""
        figures = (f"{figure:,.4g} {self.unit}" for figure in (self.ours, self.theirs))
        bound = f"{'≥' if self.at_least else '≤'} {self.target:g}"
        return (self.what, *figures, f"{self.ratio:.2f}", bound, "met" if self.met else "MISSED")


def line(cells: tuple[str, ...]) -> str:
    """A line of the table; only the first column is words, the others stand to the right."""
    first, *others = zip(cells, WIDTHS, strict=True)
    return " ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

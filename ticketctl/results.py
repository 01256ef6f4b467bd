"""What a command prints, and how a terminal draws it."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

STYLES = {
    "ok": "green",
    "warning": "yellow",
    "failure": "bold red",
    "WARNING": "yellow",
    "ERROR": "bold red",
    "CRITICAL": "bold red",
}
"""The colors of cells on a terminal."""
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Column(NamedTuple):
    """A column of a table: its heading, if its cells are numbers, which are aligned to the right, and if they wrap."""

    heading: str
    is_number: bool = False
    wraps: bool = True


class Result(NamedTuple):
    """What a command prints, in every format: ``document`` as JSON, ``rows`` of cells for people and in pipes.

    With ``columns`` the rows are a table on a terminal. A cell beyond the last column is shown only in a pipe.
    With ``widths`` they are lines on a terminal, whose cells are padded to these widths; a color marks an error or a
    warning, and the lines of the last cell are kept. ``shown`` are the rows as a terminal shows them, if they differ.
    """

    document: Any
    rows: Sequence[Sequence[str]] = ()
    columns: Sequence[Column] = ()
    title: str = ""
    widths: Sequence[int] = ()
    shown: Sequence[Sequence[str]] = ()


def printable(text: str, *, keep: str = "") -> str:
    """Escape what can steer a terminal, break a column or reorder a line: controls, newlines, direction marks."""
    if not CONTROLS.search(text):
        return text
    return CONTROLS.sub(lambda m: m[0] if m[0] in keep else m[0].encode("unicode_escape").decode(), text)


def padded_lines(result: Result) -> "Text":
    """The rows as aligned lines. A further line of the last cell, such as one of a trace, is indented."""
    from rich.text import Text

    drawn = Text()
    for row in _shown(result):
        *cells, last = row
        for cell, width in zip(cells, result.widths, strict=True):
            drawn.append(printable(cell).ljust(width), style=STYLES.get(cell, ""))
            drawn.append("  ")
        drawn.append("\n    ".join(map(printable, last.splitlines() or [""])) + "\n")
    drawn.right_crop(1)
    return drawn


def fitting(result: Result, width: int) -> "Table | Text":
    """A result as a table, or if a terminal is too narrow for it, as one line per cell: no number is cut."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    drawn = table(result)
    ruler = Console(file=io.StringIO(), width=10_000)
    if Measurement.get(ruler, ruler.options, drawn).minimum <= width:
        return drawn
    names = [column.heading for column in result.columns]
    blocks = [
        "".join(f"{name}: {printable(cell)}\n" for name, cell in zip(names, row, strict=False))
        for row in _shown(result)
    ]
    return Text("\n".join(blocks).rstrip("\n"), overflow="fold")


def _shown(result: Result) -> Sequence[Sequence[str]]:
    return result.shown or result.rows


def table(result: Result) -> "Table":
    """A result as a table for a terminal. Its cells are text, never markup, and no number is cut."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(printable(result.title)), title_justify="left")
    for column in result.columns:
        right = column.is_number
        drawn.add_column(column.heading, justify="right" if right else "left", no_wrap=right or not column.wraps)
    for row in _shown(result):
        drawn.add_row(*(Text(printable(cell), overflow="fold") for cell in row[: len(result.columns)]))
    return drawn

"""The only writer: answers to stdout (tickets, tables, JSON), everything else to stderr."""

import errno
import io
import json
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from ticketctl.errors import ClosedPipeError, InterruptedRunError, PartialError, TicketctlError
from ticketctl.models import Block, Counter

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

PLAIN_PROGRESS_SECONDS = 10.0
PORTION = 4096  # what a pipe that has room takes without blocking (PIPE_BUF)


class UndeliveredError(Exception):
    """stdout took only the first ``lines`` lines of what it was given; without a ``cause`` it was Ctrl-C."""

    def __init__(self, lines: int, cause: OSError | None) -> None:
        super().__init__(str(cause))
        self.lines = lines
        self.cause = cause


Advance = Callable[[int], None]
"""Told how much of a long work is done, in all."""


class Output:
    """Where a command writes. ``stdout`` is unbuffered, so that what it took is known to the byte."""

    def __init__(
        self,
        *,
        stdout: BinaryIO,
        stderr: TextIO,
        environ: Mapping[str, str],
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._environ = environ
        self.as_json = as_json
        self._quiet = quiet
        self._verbose = verbose
        self._clock = clock
        self._bar: Progress | None = None

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the answers."""
        return self._stdout.isatty()

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines to stdout; ``UndeliveredError`` says how many arrived where it takes no more."""
        self._write("".join([f"{line}\n" for line in lines]))

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8", errors="backslashreplace"))
        whole = rest
        try:
            with self._bar_aside():
                while rest:
                    self._await_room()
                    rest = rest[self._stdout.write(rest[:PORTION]) or 0 :]
        except (OSError, KeyboardInterrupt) as error:
            taken = bytes(whole[: len(whole) - len(rest)]).count(b"\n")
            raise UndeliveredError(taken, error if isinstance(error, OSError) else None) from error

    def _await_room(self) -> None:
        """Wait where a signal loses nothing: a write that is cut short by one does not say how far it came."""
        if isinstance(self._stdout, io.FileIO):
            select.select([], [self._stdout], [])

    def line(self, text: str) -> None:
        """Write one line of an answer that can be asked for again."""
        self._answer(f"{text}\n")

    def _answer(self, text: str) -> None:
        try:
            self._write(text)
        except UndeliveredError as failure:
            raise stdout_error(failure.cause) from failure

    def document(self, document: Any) -> None:
        """Write one JSON document on one line."""
        self.line(json.dumps(document, ensure_ascii=False))

    def counters(self, pages: Iterable[Sequence[Counter]], *, title: str) -> None:
        """Write counters as their pages come: tables on a terminal, tab-separated in a pipe, JSON where asked."""
        if self.as_json:
            begin = '{"counters": ['
            for page in pages:
                documents = (json.dumps(counter.as_dict(), ensure_ascii=False) for counter in page)
                self._answer(begin + ", ".join(documents))
                begin = ", "
            self._answer(f"{begin if begin != ', ' else ''}]}}\n")
        elif self.on_terminal:
            from rich.console import Console

            for page in pages:
                Console().print(counter_table(title, page))
        else:
            for page in pages:
                self._answer("".join([_counter_line(counter) for counter in page]))

    def lanes(self, rows: Sequence[Sequence[str]], *, title: str) -> None:
        """Write who has which lane: counter, region, offset, increment, share, next ticket, state."""
        if not self.on_terminal:
            self._answer("".join("\t".join(row) + "\n" for row in rows))
            return
        from rich.console import Console
        from rich.table import Table

        names = ("counter", "region", "offset", "step", "share", "next ticket", "state")
        table = Table(*names, title=title, title_justify="left")
        for column in table.columns[2:6]:
            column.justify, column.no_wrap = "right", True
        for row in rows:
            table.add_row(*row)
        Console().print(table)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Write names and values, tab-separated, one a line."""
        for name, value in facts.items():
            self.line(f"{name}\t{json.dumps(value)}")

    def note(self, text: str) -> None:
        """Tell a person something on stderr, unless ``--quiet`` or ``--json``."""
        if not self._quiet and not self.as_json:
            self._say(text)

    def warn(self, text: str) -> None:
        """Say on stderr what the user must know, even with ``--quiet``."""
        self._say(json.dumps({"warning": text}, ensure_ascii=False) if self.as_json else f"warning: {text}")

    def ask(self, question: str) -> None:
        """Put a question on stderr and leave the cursor behind it."""
        self._stderr.write(question)
        self._stderr.flush()

    def detail(self, text: str) -> None:
        """Say something on stderr with ``--verbose``."""
        if self._verbose:
            self._say(json.dumps({"detail": text}, ensure_ascii=False) if self.as_json else text)

    def error(self, error: TicketctlError) -> None:
        """Report an error: JSON where asked, else what happened and the line that helps last."""
        if self.as_json:
            self._say(json.dumps(error.as_dict(), ensure_ascii=False))
            return
        if error.message:
            self._say(f"error: {error.message}")
        if error.hint:
            self._say(f"hint: {error.hint}")

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """A bar on stderr where it is a terminal; elsewhere a line now and then if it takes long."""
        if self._quiet or self.as_json:
            yield lambda done: None
        elif self._moves:
            with self._shown_bar(what, total) as advance:
                yield advance
        else:
            yield self._plain_progress(what, total)

    @contextmanager
    def side_by_side(self, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
        """Tell of work that goes on in several places: ``(name, what)``. On a terminal each has a line that changes."""
        if len(names) < 2:
            yield lambda name, what: self.note(what)
        elif self._moves:
            with self._shown_lines(names) as tell:
                yield tell
        else:
            yield lambda name, what: self.note(f"{name}: {what.strip()}")

    @contextmanager
    def _shown_lines(self, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn

        columns = (SpinnerColumn(finished_text="-"), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=Console(file=self._stderr)) as lines:
            tasks = {name: lines.add_task(name, total=None) for name in names}
            yield lambda name, what: lines.update(tasks[name], description=f"{name}: {what.strip()}")
            for task in tasks.values():
                lines.update(task, total=1, completed=1)

    @property
    def _moves(self) -> bool:
        silent = self._quiet or self.as_json or bool(self._environ.get("CI"))
        return self._stderr.isatty() and not silent

    def _say(self, text: str) -> None:
        try:
            self._stderr.write(f"{text}\n")
            self._stderr.flush()
        except (OSError, UnicodeEncodeError):
            return  # nobody listens; the exit code still speaks

    @contextmanager
    def _shown_bar(self, what: str, total: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=self._stderr), transient=True) as self._bar:
            task = self._bar.add_task(what, total=total)
            bar = self._bar
            try:
                yield lambda done: bar.update(task, completed=done)
            finally:
                self._bar = None

    @contextmanager
    def _bar_aside(self) -> Iterator[None]:
        """Take the bar away while answers are written to the same terminal."""
        if self._bar is None or not self.on_terminal:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def _plain_progress(self, what: str, total: int) -> Advance:
        last = self._clock()

        def advance(done: int) -> None:
            nonlocal last
            if self._clock() - last >= PLAIN_PROGRESS_SECONDS:
                last = self._clock()
                self._say(f"{what}: {done} of {total}")

        return advance

    def watch(
        self,
        look: Callable[[], Sequence[Counter]],
        *,
        title: str,
        every: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Show counters again and again: a live table on a terminal, else each counter when it has changed."""
        if self.on_terminal and not self.as_json:
            self._watch_live(look, title, every, sleep)
        shown: dict[tuple[str | None, str], Counter] = {}
        while True:
            for counter in look():
                place = (counter.region, counter.partition)
                if shown.get(place) != counter:
                    shown[place] = counter
                    self._counter(counter)
            sleep(every)

    def _counter(self, counter: Counter) -> None:
        if self.as_json:
            self.document(counter.as_dict())
        else:
            self._answer(_counter_line(counter))

    def _watch_live(
        self, look: Callable[[], Sequence[Counter]], title: str, every: float, sleep: Callable[[float], None]
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(), auto_refresh=False) as live:
            while True:
                live.update(counter_table(title, look()), refresh=True)
                sleep(every)


def counter_table(title: str, counters: Iterable[Counter]) -> "Table":
    """Counters for a person's eyes; their lanes and regions where there is more than one."""
    from rich.table import Table
    from rich.text import Text

    rows = [(counter, counter_row(counter)) for counter in counters]
    shown = ["counter", "last ticket", "step", "left", "last minted", "state"]
    if len({counter.region for counter, _ in rows}) > 1:
        shown += ["offset", "region"]
    table = Table(*shown, title=title, title_justify="left")
    for column in [*table.columns[1:4], *table.columns[6:7]]:
        column.justify, column.no_wrap = "right", True
    for _, row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row[: len(shown)]))
    return table


def counter_row(counter: Counter) -> Sequence[str]:
    """A counter's cells: name, last ticket, step, how many are left, last mint (UTC), state, offset, region."""
    numbers = (counter.last, counter.increment, counter.remaining)
    state = "frozen" if counter.frozen else "mints"
    where = (str(counter.offset), counter.region or "-")
    return [counter.partition, *map(str, numbers), _utc(counter.minted_at), state, *where]


def _counter_line(counter: Counter) -> str:
    return "\t".join(counter_row(counter)) + "\n"


def _utc(epoch_ms: int | None) -> str:
    if epoch_ms is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_ms / 1000))
    except (OverflowError, ValueError, OSError):  # an item can hold any number
        return str(epoch_ms)


def block_lines(block: Block, *, as_json: bool, ranges: bool) -> list[str]:
    """A block's lines: one a ticket, or one in all (JSON; or first, last and step, tab-separated)."""
    if as_json:
        return [json.dumps(block.as_dict(), ensure_ascii=False)]
    if ranges:
        return [f"{block.first}\t{block.last}\t{block.increment}"]
    return [str(ticket) for ticket in block.tickets]


def stdout_error(cause: OSError | None, story: str = "") -> TicketctlError:
    """What it means that stdout takes no more: Ctrl-C, a reader that has closed the pipe, else a failure.

    ``story`` says what was lost; without one the answer can be asked for again.
    """
    if cause is None:
        return InterruptedRunError(f"interrupted; {story}" if story else "interrupted")
    if cause.errno == errno.EPIPE:
        return ClosedPipeError(story)
    hint = "free some space" if cause.errno == errno.ENOSPC else "give it a stdout that takes what is written"
    message = f"{story} ({cause.strerror})" if story else f"the answer could not be written: {cause.strerror}"
    return PartialError(message, hint=hint)


def standard_output() -> BinaryIO:
    """This process's stdout without a buffer of Python's."""
    return open(1, "wb", buffering=0, closefd=False)

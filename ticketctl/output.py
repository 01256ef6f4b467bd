"""The only writer of results. stdout gets results (tickets, tables, JSON), stderr everything else."""

import errno
import io
import json
import re
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TextIO

from ticketctl.errors import ClosedPipeError, InterruptedRunError, PartialError, TicketctlError
from ticketctl.models import Block, Counter
from ticketctl.results import CONTROLS, Result, fitting, padded_lines, printable

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_PROGRESS_SECONDS = 10.0
PORTION = 4096  # what a pipe that has room takes without blocking (PIPE_BUF)
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


class ShortWriteError(Exception):
    """stdout accepted only the first ``lines`` lines. Without a ``cause`` it was Ctrl-C."""

    def __init__(self, lines: int, cause: OSError | None) -> None:
        super().__init__(str(cause))
        self.lines = lines
        self.cause = cause


Advance = Callable[[int], None]
"""Called with how much of a long task is done, in total."""


class Format(Protocol):
    """How results and messages are written. To add a format, add a class, and choose it in ``choose_format``."""

    is_for_people: bool
    """Whether a person reads stderr: then notes and progress are shown."""

    def block(self, block: Block, *, ranges: bool, texts: Sequence[str] | None) -> list[str]:
        """Return a block's lines: one per ticket (its text, if there are ``texts``), or one for all of them."""
        ...

    def warnings(self, block: Block) -> list[str]:
        """Return what the user must know of a block and its lines do not say."""
        ...

    def result(self, result: Result) -> str:
        """Return a result as it is printed."""
        ...

    def pages(self, name: str, pages: Iterable[Result]) -> Iterator[str]:
        """Yield one result of many pages, whose documents are lists of what ``name`` says."""
        ...

    def message(self, kind: str, text: str) -> str:
        """Return a warning or a detail."""
        ...

    def error(self, error: TicketctlError) -> str:
        """Return an error; empty if there is nothing to say."""
        ...


class PlainText:
    """Cells separated by tabs, one line per row: for pipes."""

    is_for_people = True

    def block(self, block: Block, *, ranges: bool, texts: Sequence[str] | None) -> list[str]:
        """Return the tickets or their ``texts``, or with ``ranges`` the first, the last and the step."""
        if texts is not None:
            return [printable(text, keep="\t") for text in texts]
        if ranges:
            return [f"{block.first}\t{block.last}\t{block.increment}"]
        return [str(ticket) for ticket in block.tickets]

    def warnings(self, block: Block) -> list[str]:
        """Return a warning if the receipt is missing."""
        missing = f"the receipt of {block.first} to {block.last} is missing: the same key may mint other tickets"
        return [missing] * block.receipt_missing

    def result(self, result: Result) -> str:
        """Return the rows."""
        return "".join("\t".join(map(printable, row)) + "\n" for row in result.rows)

    def pages(self, name: str, pages: Iterable[Result]) -> Iterator[str]:  # noqa: ARG002 - only JSON names them
        """Yield the rows of each page."""
        return map(self.result, pages)

    def message(self, kind: str, text: str) -> str:
        """Return the text; a warning says that it is one."""
        return f"{kind}: {text}" if kind == "warning" else text

    def error(self, error: TicketctlError) -> str:
        """Return what happened, and the hint on the last line."""
        lines = {"error": error.message, "hint": error.hint}
        return "\n".join(f"{kind}: {_safe(text)}" for kind, text in lines.items() if text)


class TerminalTables(PlainText):
    """Aligned tables and lines for a terminal."""

    def result(self, result: Result) -> str:
        """Return the rows as a table if they have columns, or as lines if they have widths."""
        if not result.columns and not result.widths:
            return super().result(result)
        from rich.console import Console

        drawn = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        with drawn.capture() as captured:
            if result.widths:
                drawn.print(padded_lines(result), soft_wrap=True)
            else:
                drawn.print(fitting(result, drawn.width))
        return captured.get()


class Json:
    """JSON documents, one per line."""

    is_for_people = False

    def block(self, block: Block, *, ranges: bool, texts: Sequence[str] | None) -> list[str]:  # noqa: ARG002 - a block is a range already
        """Return the block's document, with the ``texts`` of its tickets."""
        return [_json(block.as_dict() | ({} if texts is None else {"formatted": texts}))]

    def warnings(self, block: Block) -> list[str]:  # noqa: ARG002 - its document says all
        """Return nothing."""
        return []

    def result(self, result: Result) -> str:
        """Return the document."""
        return f"{_json(result.document)}\n"

    def pages(self, name: str, pages: Iterable[Result]) -> Iterator[str]:
        """Yield one document with the list of all pages."""
        before = f'{{"{name}": ['
        for page in pages:
            if page.document:
                yield before + ", ".join(map(_json, page.document))
                before = ", "
        yield f"{before if before != ', ' else ''}]}}\n"

    def message(self, kind: str, text: str) -> str:
        """Return an object with one member."""
        return _json({kind: text})

    def error(self, error: TicketctlError) -> str:
        """Return the error's document."""
        document = error.as_dict()
        texts = {name: without_userinfo(document["error"][name]) for name in ("message", "hint")}
        return _json({"error": {**document["error"], **texts}})


def choose_format(*, as_json: bool, on_terminal: bool) -> Format:
    """Choose how results are written."""
    if as_json:
        return Json()
    return TerminalTables() if on_terminal else PlainText()


def without_userinfo(text: str) -> str:
    """Remove the names and passwords from the URLs in a text."""
    return _USERINFO.sub("***@", text)


def _safe(text: str) -> str:
    """A text for stderr on one line. Tabs separate the cells of a row there, too."""
    return printable(without_userinfo(text), keep="\t")


def _json(document: Any) -> str:
    """A document on one line; what can steer a terminal is escaped as JSON does it."""
    return CONTROLS.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(document, ensure_ascii=False))


class Output:
    """The streams of a command. ``stdout`` is unbuffered, so that every byte it accepted is known."""

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
        self._format = choose_format(as_json=as_json, on_terminal=stdout.isatty())
        self._quiet = quiet
        self._verbose = verbose
        self._clock = clock
        self._bar: Progress | None = None

    @property
    def _on_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._stdout.isatty()

    def block(self, block: Block, *, ranges: bool, texts: Sequence[str] | None = None) -> None:
        """Write a block, its tickets as ``texts`` if there are any.

        If stdout does not accept all of it, the error names the tickets that were not delivered.
        """
        lines = self._format.block(block, ranges=ranges, texts=texts)
        try:
            self._write("".join([f"{line}\n" for line in lines]))
        except ShortWriteError as failure:
            left = block.tickets[failure.lines * block.count // len(lines) :]
            if not left:
                raise KeyboardInterrupt from failure
            span = f"{left[0]} to {left[-1]}, {len(left)} tickets" if len(left) > 1 else str(left[0])
            raise delivery_error(failure.cause, f"minted but not delivered: {span}") from failure
        for text in self._format.warnings(block):
            self.warn(text)

    def _write(self, text: str) -> None:
        whole, begin = text.encode("utf-8", errors="backslashreplace"), 0
        accepted: list[int | None] = []
        try:
            with self._bar_aside():
                while begin < len(whole):
                    # Whole lines, in case that no more is written: a part of a number is another number.
                    end = whole.rfind(b"\n", begin, begin + PORTION) + 1 or begin + PORTION
                    self._await_room()
                    # Python raises Ctrl-C when a call returns, and an assignment would then not know how much was
                    # written. ``extend`` is one call that has kept the number by then.
                    accepted.extend(map(self._stdout.write, [whole[begin:end]]))
                    begin += accepted[-1] or 0
        except (OSError, KeyboardInterrupt) as error:
            taken = whole[: sum(filter(None, accepted))].count(b"\n")
            raise ShortWriteError(taken, error if isinstance(error, OSError) else None) from error

    def _await_room(self) -> None:
        """Wait until stdout accepts data, since a write that a signal interrupts does not say how much it wrote."""
        if isinstance(self._stdout, io.FileIO):
            select.select([], [self._stdout], [])

    def line(self, text: str) -> None:
        """Write one line of text as it is."""
        self._answer(f"{text}\n")

    def _answer(self, text: str) -> None:
        try:
            self._write(text)
        except ShortWriteError as failure:
            if failure.cause is None:
                raise KeyboardInterrupt from failure
            raise delivery_error(failure.cause) from failure

    def show(self, result: Result) -> None:
        """Write a result."""
        self._answer(self._format.result(result))

    def pages(self, name: str, pages: Iterable[Result]) -> None:
        """Write one long result page by page; ``name`` says what its pages list."""
        for text in self._format.pages(name, pages):
            self._answer(text)

    def note(self, text: str) -> None:
        """Tell a person something on stderr, unless ``--quiet`` or ``--json``."""
        if not self._quiet and self._format.is_for_people:
            self._say(_safe(text))

    def warn(self, text: str) -> None:
        """Say on stderr what the user must know, even with ``--quiet``."""
        self._message("warning", text)

    def detail(self, text: str) -> None:
        """Say something on stderr with ``--verbose``."""
        if self._verbose:
            self._message("detail", text)

    def _message(self, kind: str, text: str) -> None:
        shown = without_userinfo(text)
        self._say(self._format.message(kind, printable(shown, keep="\t") if self._format.is_for_people else shown))

    def ask(self, question: str) -> None:
        """Write a question to stderr, without a newline."""
        self._stderr.write(printable(question, keep="\n"))
        self._stderr.flush()

    def error(self, error: TicketctlError, *, traceback: str = "") -> None:
        """Report an error on stderr, after its traceback if there is one."""
        if traceback:
            self._say(printable(without_userinfo(traceback.rstrip()), keep="\n\t"))
        if text := self._format.error(error):
            self._say(text)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """Show a bar on stderr if it is a terminal, else a line every ten seconds."""
        if self._quiet or not self._format.is_for_people:
            yield lambda done: None
        elif self._moves:
            with self._shown_bar(what, total) as advance:
                yield advance
        else:
            yield self._plain_progress(what, total)

    @contextmanager
    def side_by_side(self, names: Sequence[str]) -> Iterator[Callable[[str, str], None]]:
        """Show work in several regions, told with ``(region, text)``. On a terminal each has a line that changes."""
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
            yield lambda name, what: lines.update(tasks[name], description=_safe(f"{name}: {what.strip()}"))
            for task in tasks.values():
                lines.update(task, total=1, completed=1)

    @property
    def _moves(self) -> bool:
        silent = self._quiet or not self._format.is_for_people or bool(self._environ.get("CI"))
        return self._stderr.isatty() and not silent

    def _say(self, text: str) -> None:
        try:
            self._stderr.write(f"{text}\n")
            self._stderr.flush()
        except (OSError, UnicodeEncodeError):
            return  # nobody reads it; the exit code still says what happened

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
        """Hide the bar while results are written to the same terminal."""
        if self._bar is None or not self._on_terminal:
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
        from ticketctl.readable import one_counter

        if isinstance(self._format, TerminalTables):
            self._watch_live(look, title, every, sleep)
        shown: dict[tuple[str | None, str], Counter] = {}
        while True:
            for counter in look():
                place = (counter.region, counter.partition)
                if shown.get(place) != counter:
                    shown[place] = counter
                    self.show(one_counter(counter, title=title))
            sleep(every)

    def _watch_live(
        self, look: Callable[[], Sequence[Counter]], title: str, every: float, sleep: Callable[[float], None]
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        from ticketctl.readable import Rates, counter_list

        console = Console()
        rates = Rates(self._clock, encoding=console.encoding)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                counters = look()
                rates.look(counters)
                live.update(fitting(counter_list(counters, title=title, rates=rates), console.width), refresh=True)
                sleep(every)


def delivery_error(cause: OSError | None, story: str = "") -> TicketctlError:
    """Return the error for a failed write to stdout: Ctrl-C (no ``cause``), a closed pipe, or any other failure.

    ``story`` says what was lost; without it, running the command again gives the same result.
    """
    if cause is None:
        return InterruptedRunError(f"interrupted; {story}" if story else "interrupted")
    if cause.errno == errno.EPIPE:
        return ClosedPipeError(story)
    hint = "free some space" if cause.errno == errno.ENOSPC else "redirect stdout to a file or pipe that can be written"
    message = f"{story} ({cause.strerror})" if story else f"the result could not be written: {cause.strerror}"
    return PartialError(message, hint=hint)


def standard_output() -> BinaryIO:
    """Open this process's stdout without Python's buffer."""
    return open(1, "wb", buffering=0, closefd=False)

"""``output``: what goes to stdout and to stderr, and what was delivered."""

import errno
import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from ticketctl.errors import ClosedPipeError, PartialError, TicketctlError
from ticketctl.models import Block, Counter
from ticketctl.output import PORTION, Output, without_userinfo
from ticketctl.readable import Rates, counter_list, counter_row, one_counter
from ticketctl.results import Column, Result, fitting, printable, table

ORDERS = Counter(
    partition="größe 1",
    last=17,
    increment=3,
    ceiling=100,
    remaining=27,
    minted_at=1_700_000_000_000,
    region="eu-west-1",
)
TENS = Block(partition="orders", first=10, last=12, count=3, increment=1)
NEW = Counter(partition="new", last=0, increment=1, ceiling=100, remaining=100, minted_at=None)


class Streams:
    """An ``Output`` on streams in memory."""

    def __init__(self, *, stdout: io.BytesIO | None = None, stderr: io.StringIO | None = None, **options: Any) -> None:
        self.stdout = stdout or io.BytesIO()
        self.stderr = stderr or io.StringIO()
        self.output = Output(stdout=self.stdout, stderr=self.stderr, **{"environ": {}, **options})

    @property
    def written(self) -> tuple[str, str]:
        return self.stdout.getvalue().decode(), self.stderr.getvalue()


class Narrow(io.BytesIO):
    """A stream that accepts ``room`` bytes, a few at a time, and then fails."""

    def __init__(self, room: int, failure: int) -> None:
        super().__init__()
        self.room = room
        self.failure = failure

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(self.failure, os.strerror(self.failure))
        taken = super().write(bytes(data[: min(self.room, 3)]))
        self.room -= taken
        return taken


class TerminalBytes(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines() -> None:
    """Rows go to stdout as UTF-8, and nothing to stderr."""
    streams = Streams()
    streams.output.show(Result(None, [["1"], ["größe", "2"]]))
    assert streams.written == ("1\ngröße\t2\n", "")


def test_no_lines() -> None:
    """A result without rows prints nothing."""
    streams = Streams()
    streams.output.show(Result({"stopped": True}))
    assert streams.written == ("", "")


def test_lone_surrogate() -> None:
    """A character that cannot be encoded as UTF-8 is escaped, and is no error."""
    streams = Streams()
    streams.output.line("caf\udce9")
    assert streams.written == ("caf\\udce9\n", "")


def test_writes_in_pieces() -> None:
    """If a stream accepts only a few bytes at a time, everything is still written."""
    streams = Streams(stdout=Narrow(100, errno.EPIPE))
    streams.output.block(TENS, ranges=False)
    assert streams.written == ("10\n11\n12\n", "")


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EPIPE])
@pytest.mark.parametrize(
    ("room", "delivered"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2)]
)
def test_undelivered(room: int, delivered: int, failure: int) -> None:
    """A ticket is delivered once its newline was written; the error names the tickets that were not delivered."""
    with pytest.raises(ClosedPipeError if failure == errno.EPIPE else PartialError) as caught:
        Streams(stdout=Narrow(room, failure)).output.block(TENS, ranges=False)
    lost = ["10 to 12, 3 tickets", "11 to 12, 2 tickets", "12"][delivered]
    assert re.fullmatch(rf"minted but not delivered: {lost}( \(.*\))?", caught.value.message)


def test_interrupt_while_stdout_accepts() -> None:
    """If a signal arrives during a write that succeeds, the written tickets count as delivered."""
    taking, giving = os.pipe()
    filled = fill(giving)

    def interrupt_and_drain() -> None:
        time.sleep(0.3)  # by then, the main thread is waiting in its write
        signal.raise_signal(signal.SIGINT)
        os.read(taking, filled)

    stdout = cast(io.BytesIO, SimpleNamespace(write=partial(os.write, giving), isatty=lambda: False))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    thread = threading.Thread(target=interrupt_and_drain)
    try:
        thread.start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # so that only the other thread sees the signal
        with pytest.raises(KeyboardInterrupt):
            Streams(stdout=stdout).output.block(TENS, ranges=False)
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert os.read(taking, filled) == b"10\n11\n12\n"
    os.close(taking)
    os.close(giving)


def fill(pipe: int) -> int:
    """Write to a pipe until it is full; return the number of bytes."""
    os.set_blocking(pipe, False)
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += os.write(pipe, bytes(PORTION))
    os.set_blocking(pipe, True)
    return written


def test_closed_pipe() -> None:
    """If the reader closes the pipe during an answer that can be repeated, the error has no message."""
    with pytest.raises(ClosedPipeError) as caught:
        Streams(stdout=Narrow(3, errno.EPIPE)).output.line("https://tickets.example")
    assert (caught.value.message, caught.value.hint) == ("", "")


def test_interrupted_answer() -> None:
    """If Ctrl-C arrives during an answer that spent nothing, it is raised unchanged."""

    class Interrupted(io.BytesIO):
        def write(self, data: Any) -> int:
            raise KeyboardInterrupt(data)

    with pytest.raises(KeyboardInterrupt):
        Streams(stdout=Interrupted()).output.show(Result(None, [["1"]]))


def test_full_disk() -> None:
    """If the disk is full, the command fails and says so."""
    with pytest.raises(PartialError) as caught:
        Streams(stdout=Narrow(3, errno.ENOSPC)).output.line("https://tickets.example")
    assert (caught.value.message, caught.value.hint) == (
        f"the result could not be written: {os.strerror(errno.ENOSPC)}",
        "free some space",
    )


def test_document() -> None:
    """A JSON document is one line."""
    streams = Streams(as_json=True)
    streams.output.show(Result({"partition": "größe", "count": 1}, [["größe"]]))
    assert streams.written == ('{"partition": "größe", "count": 1}\n', "")


def test_counters_in_a_pipe() -> None:
    """If stdout is a pipe, counters are tab-separated, one per line, without a heading."""
    streams = Streams()
    streams.output.pages("counters", [counter_list([counter], title="Tickets") for counter in (ORDERS, NEW)])
    assert streams.written == (
        "größe 1\t17\t3\t27\t2023-11-14T22:13:20Z\tmints\t2\teu-west-1\nnew\t0\t1\t100\t-\tmints\t1\t-\n",
        "",
    )


def test_counters_as_json() -> None:
    """With --json, counters are one document with all fields."""
    streams = Streams(as_json=True)
    streams.output.pages("counters", [counter_list(page, title="Tickets") for page in ([], [NEW], [ORDERS])])
    assert json.loads(streams.written[0]) == {
        "counters": [
            {
                "partition": "new",
                "last": 0,
                "increment": 1,
                "ceiling": 100,
                "remaining": 100,
                "minted_at": None,
                "frozen": False,
                "region": None,
                "offset": 1,
                "gapless": False,
            },
            ORDERS.as_dict(),
        ]
    }


def test_no_counters_as_json() -> None:
    """With --json, no counters are an empty list."""
    streams = Streams(as_json=True)
    streams.output.pages("counters", [])
    assert streams.written == ('{"counters": []}\n', "")


def test_one_counter() -> None:
    """With --json, a single counter is one document."""
    streams = Streams(as_json=True)
    streams.output.show(one_counter(NEW, title="Tickets"))
    assert json.loads(streams.written[0]) == NEW.as_dict()


def test_table() -> None:
    """On a terminal, counters are a table, and names are not interpreted as markup."""
    console = Console(file=io.StringIO(), width=100)
    odd = replace(NEW, partition="[red]odd", increment=2, frozen=True, region="eu-west-1")
    large = replace(ORDERS, partition="large", last=1_234_567, ceiling=2_000_000, remaining=765_433, increment=1)
    now = 1_700_000_000 + 3 * 60
    console.print(table(counter_list([ORDERS, odd, large], title="Tickets", now=now)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert cells == [
        ["größe 1", "17", "3", "27", "17%", "3 minutes ago", "mints"],
        ["[red]odd", "0", "2", "100", "0%", "-", "frozen"],
        ["large", "1,234,567", "1", "765,433", "61%", "3 minutes ago", "mints"],
    ]


def test_table_of_regions() -> None:
    """If counters are in several regions, the table shows lanes and regions."""
    there = replace(ORDERS, region="us-east-1", last=18)
    drawn = table(counter_list([ORDERS, there], title="Tickets"))
    cells = [[str(cell) for cell in column.cells] for column in drawn.columns]
    assert cells[7:] == [["2", "3"], ["eu-west-1", "us-east-1"]]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\tb\nc", "a\\tb\\nc"),
        ("\x1b]0;title\x07\x9b31m\x7f", "\\x1b]0;title\\x07\\x9b31m\\x7f"),
        ("\u202egnp.exe\u2066\u2028", "\\u202egnp.exe\\u2066\\u2028"),
        ("größe 1 日本", "größe 1 日本"),
    ],
)
def test_controls_in_names(name: str, shown: str) -> None:
    """Control characters in a name are escaped in a pipe, in a table and in messages."""
    odd, title = replace(NEW, partition=name), f"Tickets {name}"
    streams, terminal = Streams(), Streams(stdout=TerminalBytes())
    for written in (streams, terminal):
        written.output.show(counter_list([odd], title=title))
        written.output.note(name.replace("\t", ""))
        written.output.warn(name.replace("\t", ""))
        written.output.ask(name.replace("\n", ""))
        written.output.error(PartialError(name.replace("\t", ""), hint=name.replace("\t", "")))
    assert streams.written[0] == f"{shown}\t0\t1\t100\t-\tmints\t1\t-\n"
    assert printable(name) == shown
    table_text = re.sub("\x1b\\[[0-9;]*m", "", terminal.written[0])
    for text in (streams.written[1], terminal.written[1], table_text):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\u2066]", text)
    assert streams.written[1].count("\n") == 4


@pytest.mark.parametrize("width", [1, 30, 200])
def test_controls_in_any_result(width: int) -> None:
    """Control characters of any cell or formatted ticket are escaped, in a pipe and on a terminal of any width."""
    name = "a\t\x1b]0;title\x07\x9b31mb"
    row = [name, "eu-west-1", "2", "4", "1/4", "14", name]
    result = Result(None, [row], [Column(number) for number in "1234567"], name)
    streams, console = Streams(), Console(file=io.StringIO(), width=width)
    streams.output.show(result)
    streams.output.block(Block("orders", 7, 7, 1, 1), ranges=False, texts=[name.replace("\t", "")])
    console.print(fitting(result, width))
    shown = printable(name)
    text = f"{shown.replace(chr(92) + 't', '')}\n"
    assert streams.written == (f"{shown}\teu-west-1\t2\t4\t1/4\t14\t{shown}\n{text}", "")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", console.file.getvalue())  # type: ignore[attr-defined]


def test_controls_as_json() -> None:
    """With --json, names are unchanged, because JSON escapes control characters."""
    streams = Streams(as_json=True)
    streams.output.show(one_counter(replace(NEW, partition="a\tb\x1b"), title="Tickets"))
    streams.output.warn("a\x1b")
    assert json.loads(streams.written[0])["partition"] == "a\tb\x1b"
    assert json.loads(streams.written[1]) == {"warning": "a\x1b"}


@pytest.mark.parametrize("as_json", [False, True])
def test_no_passwords(as_json: bool) -> None:
    """User and password of a URL are removed from everything on stderr."""
    streams = Streams(as_json=as_json, verbose=True)
    text = "https://me:secret@tickets.example/path?q=a@b (proxies: http://me:sec@ret@proxy:8080)"
    streams.output.note(text)
    streams.output.warn(text)
    streams.output.detail(text)
    streams.output.error(PartialError(text, hint=f"ticketctl next --url {text}"), traceback=text)
    shown = "https://***@tickets.example/path?q=a@b (proxies: http://***@proxy:8080)"
    assert without_userinfo(text) == shown
    assert (streams.written[1].count(shown), "sec" in streams.written[1]) == (5 if as_json else 6, False)


def test_impossible_time() -> None:
    """A counter with a time outside the calendar, edited by hand, is still shown."""
    edited = Counter(partition="orders", last=17, increment=3, ceiling=100, remaining=27, minted_at=10**30)
    assert list(counter_row(edited))[:4] == ["orders", "17", "3", "27"]


@pytest.mark.parametrize(
    ("as_json", "ranges", "lines"),
    [
        (False, False, ["8", "11", "14", "17"]),
        (False, True, ["8\t17\t3"]),
        (
            True,
            False,
            [
                '{"partition": "größe", "first": 8, "last": 17, "count": 4, "increment": 3, '
                '"replayed": false, "region": null, "possible_gaps": [], "receipt_missing": false}',
            ],
        ),
    ],
)
def test_block(as_json: bool, ranges: bool, lines: list[str]) -> None:
    """A block is printed as one line per ticket, or as one line."""
    streams = Streams(as_json=as_json)
    streams.output.block(Block(partition="größe", first=8, last=17, count=4, increment=3), ranges=ranges)
    assert streams.written[0].splitlines() == lines


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "note\nwarning: warn\nerror: broke\nhint: fix\n"),
        ({"quiet": True}, "warning: warn\nerror: broke\nhint: fix\n"),
        ({"verbose": True}, "note\nwarning: warn\ndetail\nerror: broke\nhint: fix\n"),
    ],
)
def test_messages(options: dict[str, Any], said: str) -> None:
    """Messages go to stderr; warnings and errors even with --quiet, details only with --verbose."""
    streams = Streams(**options)
    streams.output.note("note")
    streams.output.warn("warn")
    streams.output.detail("detail")
    streams.output.error(TicketctlError("broke", hint="fix"))
    assert streams.written == ("", said)


def test_messages_as_json() -> None:
    """With --json, notes are omitted, and each warning or detail is one object per line."""
    streams = Streams(as_json=True, verbose=True)
    streams.output.note("note")
    streams.output.warn("größe")
    streams.output.detail("detail")
    assert streams.written == ("", '{"warning": "größe"}\n{"detail": "detail"}\n')


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TicketctlError("broke"), "error: broke\n"),
        (ClosedPipeError(""), ""),
        (PartialError("größe", hint="fix"), "error: größe\nhint: fix\n"),
    ],
)
def test_error(error: TicketctlError, said: str) -> None:
    """An error is printed as its message and its hint, if it has them."""
    streams = Streams()
    streams.output.error(error)
    assert streams.written == ("", said)


def test_error_as_json() -> None:
    """With --json, an error is one object on one line of stderr."""
    streams = Streams(as_json=True)
    streams.output.error(PartialError("größe", hint="fix"))
    assert streams.written == (
        "",
        '{"error": {"code": "partial", "message": "größe", "hint": "fix", "exit_code": 8}}\n',
    )


def test_question() -> None:
    """A question goes to stderr without a newline."""
    streams = Streams()
    streams.output.ask("Delete it? [y/N] ")
    assert streams.written == ("", "Delete it? [y/N] ")


def test_stderr_cannot_be_written() -> None:
    """If stderr cannot be written, that is no error."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, text)

    Streams(stderr=Broken()).output.error(TicketctlError("broke"))


def test_narrow_encoding() -> None:
    """If stderr cannot encode a character, that is no error."""
    stderr = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Output(stdout=io.BytesIO(), stderr=stderr, environ={}).note("größe")


def test_plain_progress_is_silent_at_first() -> None:
    """If stderr is not a terminal, short work prints no progress."""
    streams = Streams()
    with streams.output.progress("minting", 3) as advance:
        for done in (1, 2, 3):
            advance(done)
    assert streams.written == ("", "")


def test_plain_progress() -> None:
    """Long work prints one line every ten seconds."""
    times = [0.0]
    streams = Streams(clock=lambda: times[-1])
    with streams.output.progress("minting", 6) as advance:
        for done, time in enumerate([4.0, 9.9, 10.0, 19.9, 25.0, 26.0], start=1):
            times.append(time)
            advance(done)
    assert streams.written == ("", "minting: 3 of 6\nminting: 5 of 6\n")


@pytest.mark.parametrize("option", ["quiet", "as_json"])
def test_quiet_progress(option: str) -> None:
    """With --quiet or --json, no progress is shown, even on a terminal."""
    options: dict[str, Any] = {option: True}
    streams = Streams(stderr=Terminal(), **options)
    with streams.output.progress("minting", 3) as advance:
        advance(3)
    assert streams.written == ("", "")


def test_no_bar_in_ci() -> None:
    """In CI, no progress bar is shown, even if stderr is a terminal."""
    streams = Streams(stderr=Terminal(), environ={"CI": "true"})
    with streams.output.progress("minting", 3) as advance:
        advance(3)
    assert streams.written == ("", "")


def test_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, progress is a bar on stderr."""
    monkeypatch.setenv("TERM", "xterm")
    streams = Streams(stderr=Terminal())
    with streams.output.progress("minting", 3) as advance:
        advance(3)
    stdout, stderr = streams.written
    assert (stdout, "minting" in stderr, "3/3" in stderr) == ("", True, True)


def looks(*answers: list[Counter]) -> Callable[[], list[Counter]]:
    left = list(answers)
    return lambda: left.pop(0)


@pytest.mark.parametrize(
    ("as_json", "name"), [(False, lambda line: line.split("\t")[0]), (True, lambda line: json.loads(line)["partition"])]
)
def test_watch(as_json: bool, name: Callable[[str], str]) -> None:
    """If stdout is a pipe, --watch prints a counter at the start and whenever it changes."""
    moved = replace(ORDERS, last=20, remaining=26)
    streams = Streams(as_json=as_json)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streams.output.watch(looks([ORDERS, NEW], [ORDERS, NEW], [moved, NEW]), title="Tickets", every=2.0, sleep=sleep)
    shown = [name(line) for line in streams.written[0].splitlines()]
    assert (shown, slept) == (["größe 1", "new", "größe 1"], [2.0, 2.0, 2.0])


def test_a_missing_receipt_is_a_warning() -> None:
    """A missing receipt is a warning on stderr; with --json it is a field."""
    block = replace(TENS, receipt_missing=True)
    plain, as_json = Streams(), Streams(as_json=True)
    for streams in (plain, as_json):
        streams.output.block(block, ranges=False)
    assert plain.written == (
        "10\n11\n12\n",
        "warning: the receipt of 10 to 12 is missing: the same key may mint other tickets\n",
    )
    assert as_json.stderr.getvalue() == ""
    assert json.loads(as_json.stdout.getvalue())["receipt_missing"] is True


def test_controls_in_json() -> None:
    """A JSON document has no control characters and can be read back unchanged."""
    streams = Streams(as_json=True)
    name = "a\x7f\x9b31m\u202eb"
    streams.output.show(one_counter(replace(ORDERS, partition=name), title="Tickets"))
    text = streams.written[0]
    assert (text.isprintable(), text.rstrip("\n").isprintable()) == (False, True)
    assert json.loads(text)["partition"] == name


def test_pipes_and_json_stay_exact() -> None:
    """In pipes and JSON, numbers and times are exact; only a terminal shows them rounded."""
    plain, as_json = Streams(), Streams(as_json=True)
    for streams in (plain, as_json):
        streams.output.show(counter_list([replace(ORDERS, last=1_234_567), NEW], title="Tickets", now=1_700_000_060))
    assert plain.written[0] == (
        "größe 1\t1234567\t3\t27\t2023-11-14T22:13:20Z\tmints\t1\teu-west-1\nnew\t0\t1\t100\t-\tmints\t1\t-\n"
    )
    assert as_json.written[0] == (
        '[{"partition": "größe 1", "last": 1234567, "increment": 3, "ceiling": 100, "remaining": 27, '
        '"minted_at": 1700000000000, "frozen": false, "region": "eu-west-1", "gapless": false, "offset": 1}, '
        '{"partition": "new", "last": 0, "increment": 1, "ceiling": 100, "remaining": 100, '
        '"minted_at": null, "frozen": false, "region": null, "gapless": false, "offset": 1}]\n'
    )


@pytest.mark.parametrize("width", [1, 10, 30, 60, 79])
def test_a_narrow_terminal_cuts_nothing(width: int) -> None:
    """If the table does not fit, each cell has its own line, and each number is complete."""
    there = replace(ORDERS, last=123_456_789_012, remaining=900_719_925_474_991, region="us-east-1")
    result = counter_list([ORDERS, there], title="Tickets", now=1_700_000_060)
    console = Console(file=io.StringIO(), width=width)
    console.print(fitting(result, width))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "123,456,789,012" in shown.replace("\n", "")
    assert "900,719,925,474,991" in shown.replace("\n", "")
    assert "…" not in shown
    assert all(len(line) <= width for line in shown.splitlines())


def test_a_usual_terminal_has_a_table() -> None:
    """In 80 columns the table has one line per counter, also with rates; a step of 1 is omitted."""
    times = iter([0.0, *[float(n) for n in range(1, 20)]])
    rates = Rates(lambda: next(times))
    counter = replace(NEW, partition="us-east-1", last=302, ceiling=2**53 - 1, remaining=2**53 - 303, minted_at=0)
    for number in range(15):
        rates.look([replace(counter, last=1_000 * number)])
    for moving in (None, rates):
        console = Console(file=io.StringIO(), width=80)
        console.print(fitting(counter_list([counter], title="Tickets", now=48, rates=moving), 80))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        (row,) = [line for line in lines if "302" in line]
        assert "48 seconds ago" in row
        assert ("9,007 trillion" in row, "██████████" in row) == (moving is None, moving is not None)
        assert len(lines) == 6


def test_lines_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are aligned, states are colored unless NO_COLOR is set, and long lines are not truncated."""
    result = Result({}, [["ok", "a", "x" * 300, ""]], widths=(7, 3), shown=[["ok", "a", "x" * 300 + "\nfix: y\x1b"]])
    colored, plain, piped = Streams(stdout=TerminalBytes()), Streams(stdout=TerminalBytes()), Streams()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored.output.show(result)
    monkeypatch.setenv("NO_COLOR", "1")
    plain.output.show(result)
    piped.output.show(result)
    expected = f"ok       a    {'x' * 300}\n    fix: y\\x1b\n"
    assert plain.written[0] == expected
    assert colored.written[0] == expected.replace("ok     ", "\x1b[32mok     \x1b[0m")
    assert piped.written[0] == f"ok\ta\t{'x' * 300}\t\n"

"""``logs``: how lines are printed, and the effect of a failing region on the others."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.memory_aws import EU, US, Account, regions_of
from ticketctl.aws.logs import LogEvent
from ticketctl.commands import logs as commands
from ticketctl.commands.options import Run
from ticketctl.deployments.logs import Logs, NoFunctionError
from ticketctl.deployments.outcomes import Outcomes
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.errors import AccessError, ThrottledError, TicketctlError
from ticketctl.output import Output

T = 1_800_000_000_123
Answer = list[LogEvent] | TicketctlError


class ScriptedLogs(Logs):
    """Returns the answers of each region in order."""

    def __init__(self, home: Path, answers: dict[str, list[Answer]]) -> None:
        super().__init__(regions_of(Account(), home, *answers), 0)
        self._answers = answers

    def _poll(self, stack: RegionalStack) -> list[LogEvent]:
        answer = self._answers[stack.region].pop(0)
        if isinstance(answer, TicketctlError):
            raise answer
        self._followers[stack.region] = None  # type: ignore[assignment] # it has answered
        return answer


class TerminalBytes(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def show(tmp_path: Path) -> Callable[..., str]:
    """Print events as the command does; return what was written to stdout."""

    def show(*events: LogEvent, terminal: bool = False, as_json: bool = False) -> str:
        stdout = TerminalBytes() if terminal else io.BytesIO()
        output = Output(stdout=stdout, stderr=io.StringIO(), environ={}, as_json=as_json)
        logs = ScriptedLogs(tmp_path, {US: [list(events)]})
        regions = regions_of(Account(), tmp_path, US)
        run = Run({}, regions.home.settings, regions.home, regions, output)
        commands._show(run, logs.read()[0], len(US))
        return stdout.getvalue().decode()

    return show


def event(time: int, line: str) -> LogEvent:
    return LogEvent(time, "stream", line)


ERROR = json.dumps(
    {"level": "ERROR", "errorType": "E", "errorMessage": "m", "requestId": "r", "stackTrace": ["t1", "t2"]}
)


def test_a_pipe_gets_one_line_per_event(show: Callable[..., str]) -> None:
    """Columns are separated by tabs; the trace stays on its line, so that grep finds all of it."""
    assert show(event(T, ERROR)) == f"2027-01-15T08:00:00.123Z\t{US}\tERROR\tE: m [r]\\nt1\\nt2\n"


def test_a_terminal_gets_the_trace_on_lines(show: Callable[..., str]) -> None:
    """The type and message of an error come first; the trace is indented below."""
    text = show(event(T, ERROR), terminal=True)
    assert text.startswith(f"2027-01-15T08:00:00.123Z  {US}  ")
    assert text.endswith("E: m [r]\n    t1\n    t2\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_controls_never_reach_a_terminal(show: Callable[..., str], terminal: bool) -> None:
    """Control characters in a log line, which any caller of the URL can write, do not reach the terminal."""
    hostile = "\x1b]0;owned\x07\x9b2J\u202e[red]"
    for line in (
        hostile,
        json.dumps({"level": f"\x1b{hostile}", "code": hostile, "errorType": "", "requestId": hostile}),
    ):
        text = show(event(T, line), terminal=terminal)
        assert not any(control in text for control in ("\x1b]", "\x07", "\x9b", "\u202e"))
        assert "owned" in text
        assert "[red]" in text


def test_json_lines(show: Callable[..., str]) -> None:
    """With --json, each event is one document with its original line."""
    shown = show(event(T, "hello\x1b"), event(T + 1, ERROR), as_json=True).splitlines()
    assert json.loads(shown[0]) == {
        "time": "2027-01-15T08:00:00.123Z",
        "region": US,
        "level": None,
        "message": "hello\x1b",
        "request_id": None,
        "stream": "stream",
        "line": "hello\x1b",
    }
    assert json.loads(shown[1])["request_id"] == "r"
    assert len(shown) == 2


def test_lines_of_all_regions_by_time(tmp_path: Path) -> None:
    """The lines of all regions are merged, oldest first."""
    logs = ScriptedLogs(tmp_path, {US: [[event(1, "a"), event(4, "d")]], EU: [[event(2, "b"), event(3, "c")]]})
    assert "".join(line.event.line for line in logs.read()[0]) == "abcd"


def test_a_region_that_fails_does_not_hide_the_other(tmp_path: Path) -> None:
    """The lines of the other regions are returned, together with the error of the failing region."""
    error = AccessError("no")
    logs = ScriptedLogs(tmp_path, {US: [error], EU: [[event(2, "b")]]})
    lines, outcomes = logs.read()
    found: Outcomes[Any] = {US: error, EU: [event(2, "b")]}
    assert ([line.region for line in lines], outcomes) == ([EU], found)


def test_a_region_without_a_function_is_skipped(tmp_path: Path) -> None:
    """A region without a function is skipped; that is an error only if no region has a function."""
    none = NoFunctionError("no function")
    logs = ScriptedLogs(tmp_path, {US: [none, none], EU: [[event(2, "b")], none]})
    assert logs.read()[1] == {EU: [event(2, "b")]}
    assert logs.read()[1] == {US: none, EU: none}


def test_follow_continues_without_a_region(tmp_path: Path) -> None:
    """A failing region is named once and read again; temporary failures of all regions do not end --follow."""
    slow = ThrottledError("slow")
    no = AccessError("no")
    answers: dict[str, list[Answer]] = {US: [no, no, [event(1, "a")], slow], EU: [[], [], [], slow]}
    said: list[str] = []
    followed = ScriptedLogs(tmp_path, answers).follow(said.append, sleep=lambda seconds: None)
    assert [[line.event.line for line in next(followed)] for _ in range(4)] == [[], [], ["a"], []]
    assert said == [f"{US} cannot be read: no", f"{US} cannot be read: slow", f"{EU} cannot be read: slow"]


@pytest.mark.parametrize("answers", [[AccessError("no")], [ThrottledError("slow")], [[], AccessError("no")]])
def test_follow_ends_if_nothing_can_be_read(tmp_path: Path, answers: list[Answer]) -> None:
    """If the only region never answers or denies access, the command fails with its error."""
    followed = ScriptedLogs(tmp_path, {US: answers}).follow(lambda line: None, sleep=lambda seconds: None)
    with pytest.raises(TicketctlError, match=r"^(no|slow)$"):
        list(followed)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400), ("0s", 0)])
def test_durations(text: str, seconds: int) -> None:
    """A duration is a whole number and a unit."""
    assert commands.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "1.5h", "-1m", "1w", "10 m", "٣m", "1m\n", "9999999d"])
def test_invalid_durations(text: str) -> None:
    """Any other text is wrong usage."""
    with pytest.raises(typer.BadParameter, match="is not a duration"):
        commands.duration(text)


@pytest.mark.parametrize("time", [-(10**30), 10**30])
def test_impossible_times(time: int) -> None:
    """A time outside the calendar is shown as a number."""
    assert commands.utc(time) == str(time)

"""``aws.logs``: reading a log group without losing or repeating a line, and formatting the lines."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from botocore.stub import Stubber

from ticketctl.aws.account import Aws
from ticketctl.aws.logs import OVERLAP_MS, Follower, LogGroup, LogLine, read_line
from ticketctl.errors import AccessError, NotDeployedError

ID = "589031e3-8652-4687-ae88-b54431ccca0b"
T = 1_800_000_000_000


@pytest.fixture
def client() -> Iterator[Any]:
    with closing(Aws("us-east-1", endpoint_url="http://127.0.0.1:9", embedded=("test", "test"))) as aws:
        yield aws.client("logs", retries=0)


@pytest.fixture
def script(client: Any) -> Iterator[Stubber]:
    with Stubber(client) as script:
        yield script
        script.assert_no_pending_responses()


def answer(script: Stubber, start: int, *events: tuple[int, str, str], token: str = "", after: str = "") -> None:
    """Expect a request from ``start`` and answer with events, which have no id, as in the embedded AWS."""
    found = [{"timestamp": time, "logStreamName": stream, "message": text} for time, stream, text in events]
    expected = {"logGroupName": "group", "startTime": start} | ({"nextToken": after} if after else {})
    script.add_response("filter_log_events", {"events": found} | ({"nextToken": token} if token else {}), expected)


def lines(follower: Follower) -> list[str]:
    return [event.line for event in follower.poll()]


def test_every_page_is_read(client: Any, script: Stubber) -> None:
    """If an empty page names a next page, that page is read too; the lines are sorted by time."""
    answer(script, T, (T + 9, "a", "third"), (T + 1, "b", "first\n"), token="2")
    answer(script, T, token="3", after="2")
    answer(script, T, (T + 5, "a", "second"), after="3")
    assert [event.line for event in LogGroup(client, "group").since(T)] == ["first", "second", "third"]


def test_no_time_before_1970(client: Any, script: Stubber) -> None:
    """A span never starts before 1970, because CloudWatch Logs rejects negative times."""
    answer(script, 0)
    assert LogGroup(client, "group").since(-5) == []


def test_a_late_line_is_not_lost(client: Any, script: Stubber) -> None:
    """A line that arrives late, after lines with a later time, is shown; no line is shown twice."""
    begin = T - OVERLAP_MS  # from the first poll on, the window starts some time before the newest line
    answer(script, begin - 50_000, (T - 5, "a", "one"), (T, "a", "two"))
    answer(script, begin, (T - 5, "a", "one"), (T - 3, "b", "late"), (T, "a", "two"))
    answer(script, begin, (T - 5, "a", "one"), (T - 3, "b", "late"), (T, "a", "two"))
    follower = Follower(LogGroup(client, "group"), begin - 50_000)
    assert [lines(follower), lines(follower), lines(follower)] == [["one", "two"], ["late"], []]


def test_equal_lines_of_one_millisecond(client: Any, script: Stubber) -> None:
    """Two equal lines in one millisecond are both shown, even if the second arrives later."""
    answer(script, T, (T, "a", "same"), (T, "a", "same"))
    answer(script, T, (T, "a", "same"), (T, "a", "same"), (T, "a", "same"), (T, "b", "same"))
    follower = Follower(LogGroup(client, "group"), T)
    assert [lines(follower), lines(follower)] == [["same", "same"], ["same", "same"]]


@pytest.mark.parametrize(
    ("code", "kind"), [("ResourceNotFoundException", NotDeployedError), ("AccessDeniedException", AccessError)]
)
def test_errors_name_the_log_group(client: Any, script: Stubber, code: str, kind: type[Exception]) -> None:
    """An error of the SDK becomes an error of ticketctl that names the log group."""
    script.add_client_error("filter_log_events", code, "no", 400)
    with pytest.raises(kind, match="the log group group in us-east-1"):
        LogGroup(client, "group").since(T)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"level": "ERROR", "code": "unavailable", "status": 503, "detail": "No.", "cause": "", "request_id": ID},
            LogLine("ERROR", "unavailable: No. (status 503)", ID),
        ),
        (
            {
                "timestamp": "2026-11-24T22:00:00Z",
                "level": "ERROR",
                "message": "boom",
                "errorMessage": "boom",
                "errorType": "ValueError",
                "requestId": ID,
                "stackTrace": ['  File "index.py", line 1\n', "    raise"],
            },
            LogLine("ERROR", 'ValueError: boom\n  File "index.py", line 1\n    raise', ID),
        ),
        (
            {"time": "x", "type": "platform.report", "record": {"requestId": ID, "status": "timeout"}},
            LogLine("ERROR", "platform.report: status timeout", ID),
        ),
        ({"log_level": "warn", "message": "slow"}, LogLine("WARNING", "slow", None)),
        ({"record": 7, "a": [1]}, LogLine(None, "record 7, a [1]", None)),
    ],
    ids=["handler", "exception", "platform", "library", "foreign"],
)
def test_json_lines(line: dict[str, Any], expected: LogLine) -> None:
    """A line shows what happened, then the details, then the trace; the request ID may have several names."""
    assert read_line(json.dumps(line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"START RequestId: {ID} Version: 1", LogLine(None, f"START RequestId: {ID} Version: 1", ID)),
        ("[ERROR] KeyError: 'a'\nTraceback", LogLine("ERROR", "KeyError: 'a'\nTraceback", None)),
        (
            "Traceback (most recent call last):\n  File 1\nKeyError: 'a'",
            LogLine(None, "KeyError: 'a'\nTraceback (most recent call last):\n  File 1", None),
        ),
        ("ERRORS are fine", LogLine(None, "ERRORS are fine", None)),
        ("[1, 2]", LogLine(None, "[1, 2]", None)),
        ('{"cut": ', LogLine(None, '{"cut": ', None)),
        ("[" * 100_000, LogLine(None, "[" * 100_000, None)),
        ("", LogLine(None, "", None)),
    ],
    ids=["start", "level", "trace", "word", "list", "damaged", "deep", "empty"],
)
def test_text_lines(line: str, expected: LogLine) -> None:
    """A line that is not a JSON object is shown as text; an exception is shown before its trace."""
    assert read_line(line) == expected

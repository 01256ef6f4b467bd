"""The log lines of a stack's function: reading them from CloudWatch Logs, and parsing them."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketctl.aws.sdk_errors import translated_errors

OVERLAP_MS = 120_000
"""How far each poll reads back: CloudWatch Logs can deliver a line after lines with a later time."""
_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}
_PLAIN_LEVEL = re.compile(r"\[?(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL)\b\]?[:\s]*")
_REQUEST = re.compile(r"\b(?:RequestId:\s*|requestId=)([0-9a-f-]{36})")
_REQUEST_MEMBERS = ("request_id", "requestId", "AWSRequestId")
_ORDER = ("code", "detail", "message", "cause")  # of a line of the handler; the other members follow


@dataclass(frozen=True)
class LogEvent:
    """One event of a log group; ``time`` is in epoch milliseconds, ``id`` is empty in the embedded AWS."""

    time: int
    stream: str
    line: str
    id: str = ""


@dataclass(frozen=True)
class LogLine:
    """A parsed log line. ``level`` and ``request_id`` are ``None`` if the line has none."""

    level: str | None
    message: str
    request_id: str | None


class LogGroup:
    """A log group in the region of a botocore client."""

    def __init__(self, client: Any, name: str, *, profile: str | None = None) -> None:
        self._client = client
        self._name = name
        self._profile = profile
        self._target = f"the log group {name} in {client.meta.region_name}"

    def since(self, start: int) -> list[LogEvent]:
        """Every event from ``start`` (epoch milliseconds), oldest first."""
        pages = self._client.get_paginator("filter_log_events").paginate(
            logGroupName=self._name, startTime=max(0, start)
        )
        with translated_errors(self._target, profile=self._profile):
            found = [_event(event) for page in pages for event in page.get("events", [])]
        return sorted(found, key=lambda event: event.time)


def _event(event: Mapping[str, Any]) -> LogEvent:
    return LogEvent(
        int(event.get("timestamp", 0)),
        str(event.get("logStreamName", "")),
        str(event.get("message", "")).rstrip("\r\n"),
        str(event.get("eventId", "")),
    )


class Follower:
    """Polls a log group and returns each event once, including events that arrive late."""

    def __init__(self, group: LogGroup, start: int) -> None:
        self._group = group
        self._start = start
        self._seen: Counter[LogEvent] = Counter()

    def poll(self) -> list[LogEvent]:
        """The events that no earlier poll gave, oldest first.

        Two equal lines in the same millisecond are two events, so events are counted, not only compared.
        """
        events = self._group.since(self._start)
        new = list((Counter(events) - self._seen).elements())
        if events:
            self._start = max(self._start, events[-1].time - OVERLAP_MS)
        self._seen = Counter(event for event in events if event.time >= self._start)
        return sorted(new, key=lambda event: event.time)


def read_line(line: str) -> LogLine:
    """Parse a line: a JSON object of the handler or of Lambda, or text.

    The message begins with what happened; an exception's trace follows on separate lines.
    """
    document = _document(line)
    if document is None:
        return _text(line)
    request_id = next((str(document[name]) for name in _REQUEST_MEMBERS if document.get(name)), None)
    if isinstance(record := document.get("record"), dict) and "type" in document:
        return _platform(document, record)
    level = document.get("level") or document.get("log_level")
    return LogLine(_level(level), _message(document), request_id)


def _document(line: str) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _level(level: Any) -> str | None:
    name = str(level).upper() if level else None
    return None if name is None else _LEVELS.get(name, name)


def _message(document: Mapping[str, Any]) -> str:
    """What happened first, the remaining members in parentheses, then the trace."""
    if document.get("errorType") or document.get("errorMessage"):
        parts = [document.get("errorType"), document.get("errorMessage")]
        told = {"errorType", "errorMessage"}
        if document.get("message") == document.get("errorMessage"):
            told.add("message")
    else:
        told = {name for name in _ORDER if document.get(name)}
        parts = [document[name] for name in _ORDER if name in told]
    known = told | {"level", "log_level", "timestamp", "stackTrace", *_REQUEST_MEMBERS}
    others = [f"{name} {_value(value)}" for name, value in document.items() if name not in known and _says(value)]
    head = ": ".join(_value(part) for part in parts if _says(part))
    more = ", ".join(others)
    message = f"{head} ({more})" if head and more else head or more
    return "\n".join([message, *_trace(document.get("stackTrace"))])


def _says(value: Any) -> bool:
    return value is not None and value != ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _trace(trace: Any) -> Sequence[str]:
    if isinstance(trace, str):
        return trace.rstrip().splitlines()
    return [line for part in trace for line in _value(part).rstrip().splitlines()] if isinstance(trace, list) else []


def _platform(document: Mapping[str, Any], record: Mapping[str, Any]) -> LogLine:
    """A line of the Lambda service about a call, such as ``platform.report``."""
    request_id = record.get("requestId")
    others = ", ".join(f"{name} {_value(value)}" for name, value in record.items() if name != "requestId")
    failed = record.get("status") in ("timeout", "error", "failure")
    message = f"{document['type']}: {others}" if others else str(document["type"])
    return LogLine("ERROR" if failed else "INFO", message, str(request_id) if request_id else None)


def _text(line: str) -> LogLine:
    """A line of text, such as a trace: the exception, which Python puts last, comes first."""
    level = _PLAIN_LEVEL.match(line)
    request = _REQUEST.search(line)
    text = line[level.end() :] if level else line
    if text.startswith("Traceback (most recent call last):") and (lines := text.rstrip().splitlines())[1:]:
        text = "\n".join([lines[-1], *lines[:-1]])
    return LogLine(_level(level[1]) if level else None, text, request[1] if request else None)

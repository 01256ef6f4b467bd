"""SIGINT, SIGTERM and SIGHUP at chosen moments of a mint: a ticket that was spent is printed, or the command says so.

The server counts what it has spent. ``TICKETCTL_TEST_EFFORT=10`` tries ten times as many moments.
"""

import json
import os
import random
import re
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.effort import times
from tests.support.faulty_proxy import SEED
from tests.support.function_server import Event, serving
from tests.support.interruptible import SIGNALS, interruptible
from tests.support.signal_moments import Outcome, Runs

MOMENTS = times(60)
SECONDS = 60.0  # after which a test stops waiting
MINTS = {
    "next": ("next",),
    "next in a format": ("next", "--format", "T-{ticket}"),
    "fetch": ("fetch", "5", "--block", "2"),
    "fetch, several at once": ("fetch", "5", "--block", "2", "--concurrency", "3"),
}


class Function:
    """A Function URL that mints, from a counter for each name; the same key gets the same tickets."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.answers = threading.Event()
        self.answers.set()
        self._keys: dict[str, int] = {}
        self._lock = threading.Lock()

    def respond(self, event: Event) -> dict[str, Any]:
        asked = json.loads(event.get("body") or "{}")
        name, count, key = asked["partition"], asked.get("count", 1), event["headers"]["idempotency-key"]
        with self._lock:
            first = self._keys.setdefault(key, self.spent[name] + 1)
            self.spent[name] = max(self.spent[name], first + count - 1)
        self.answers.wait(SECONDS)
        block = {"partition": name, "first": first, "last": first + count - 1, "count": count, "increment": 1}
        body = json.dumps({**block, "hand_crafted_int": first + count - 1})
        return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": body}


@pytest.fixture
def function() -> Function:
    return Function()


@pytest.fixture
def url(function: Function) -> Iterator[str]:
    with serving(function.respond) as address:
        yield address
        function.answers.set()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    home = str(tmp_path)
    return {"PATH": os.environ["PATH"], "HOME": home, "TICKETCTL_HOME": home, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def runs(environ: dict[str, str]) -> Iterator[Runs]:
    runs = Runs(environ)
    yield runs
    runs.close()


def not_covered(outcome: Outcome, spent: int) -> str:
    """Return what is wrong with the outcome of a run that spent the tickets 1 to ``spent``; "" if nothing is."""
    lines = outcome.stdout.splitlines()
    if "".join(f"{line}\n" for line in lines) != outcome.stdout:
        return "half a line"
    printed = {int(line.removeprefix("T-")) for line in lines}
    lost = set(range(1, spent + 1)) - printed
    if "Traceback" in outcome.stderr and "Exception ignored" not in outcome.stderr:
        return "a traceback"
    if outcome.returncode != 130:
        return "" if outcome.returncode == 0 and not lost else "the exit code"
    told = re.search(r"(\d+)(?: or (\d+))? of \d+ tickets were printed", outcome.stderr)
    if told and str(len(printed)) not in told.groups():
        return "how many were printed"
    if named := re.search(r"not delivered: (\d+)(?: to (\d+), \d+ tickets)?", outcome.stderr):
        undelivered = set(range(int(named[1]), int(named[2] or named[1]) + 1))
        if undelivered & printed:
            return "a ticket that was printed is named"
        lost -= undelivered
    more = re.search(r"up to (\d+) more may be spent", outcome.stderr)
    may_be_spent = int(more[1]) if more else "a ticket may have been spent" in outcome.stderr
    return "" if len(lost) <= may_be_spent else f"{sorted(lost)} are lost"


@pytest.mark.parametrize("mint", MINTS)
def test_a_signal_at_any_moment(runs: Runs, function: Function, url: str, mint: str) -> None:
    """From the first request to the end, each ticket is printed, or named, or covered by what may be spent."""
    arguments = (*MINTS[mint], "--url", url, "--region", "us-east-1", "--partition")
    whole = runs.run(*arguments, "whole")
    assert (whole.returncode, whole.stderr, function.spent["whole"]) == (0, "", whole.stdout.count("\n"))
    chance = random.Random(SEED)  # noqa: S311 - it chooses moments
    span = range(whole.sent - 20, whole.moments + 1)
    moments = chance.sample(span, min(MOMENTS, len(span)))
    outcomes = {m: runs.run(*arguments, f"at {m}", number=SIGNALS[m % len(SIGNALS)], moment=m) for m in moments}
    found = {m: not_covered(outcome, function.spent[f"at {m}"]) for m, outcome in outcomes.items()}
    assert {m: (wrong, outcomes[m], function.spent[f"at {m}"]) for m, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("mint", "told"),
    [
        (("next",), "a ticket may have been spent"),
        (("fetch", "5"), "0 of 5 tickets were printed, up to 5 more may be spent"),
    ],
    ids=["next", "fetch"],
)
def test_a_signal_before_the_answer(
    environ: dict[str, str], function: Function, url: str, mint: tuple[str, ...], told: str, number: signal.Signals
) -> None:
    """If the server has spent a ticket but not answered, the command says that it may be spent."""
    function.answers.clear()
    options = ("--block", "5") if mint[0] == "fetch" else ()
    process = interruptible(environ, *mint, *options, "--url", url, "--region", "us-east-1", "--partition", "a")
    while not function.spent["a"]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert (process.returncode, stdout, stderr) == (130, "", f"error: interrupted; {told}\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_pipe_is_full(
    environ: dict[str, str], function: Function, url: str, number: signal.Signals
) -> None:
    """The pipe has whole lines only, because a part of a number is another number; the other tickets are named."""
    arguments = ("fetch", "10000", "--block", "10000", "--format", "T-{ticket:060d}")  # more than a pipe takes
    process = interruptible(environ, *arguments, "--url", url, "--region", "us-east-1", "--partition", "a")
    assert process.stdout
    assert select.select([process.stdout], [], [], SECONDS)[0]
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=SECONDS)
    printed = stdout.splitlines()
    assert stdout == "".join(f"T-{ticket:060d}\n" for ticket in range(1, len(printed) + 1))
    left = f"{len(printed) + 1} to 10000, {10_000 - len(printed)} tickets"
    assert (process.returncode, stderr) == (130, f"error: interrupted; minted but not delivered: {left}\n")
    assert function.spent["a"] == 10_000

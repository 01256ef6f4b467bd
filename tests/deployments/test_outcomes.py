"""``outcomes``: calls to several regions at the same time, and how their answers and errors are combined."""

import subprocess
import sys
import threading

import pytest

from ticketctl.deployments.outcomes import (
    Outcomes,
    failures,
    raise_failures,
    raise_first_failure,
    side_by_side,
    succeeded,
)
from ticketctl.errors import AccessError, PartialError, UnreachableError

SECONDS = 30.0  # seconds to wait for something that must happen, so that a bug fails the test instead of blocking it
DOWN = UnreachableError("no way there")
CLOSED = AccessError("not for you", hint="aws sso login")
SHUT = AccessError("nor for you", hint="aws configure")
MIXED: Outcomes[int] = {"a": 1, "b": DOWN, "c": 3, "d": CLOSED, "e": SHUT}


def test_all_are_asked_at_the_same_time() -> None:
    """Five calls that each wait for the other four all return, because each has its own thread."""
    together = threading.Barrier(5)

    def call(meeting: threading.Barrier) -> int:
        meeting.wait(SECONDS)
        return threading.get_ident()

    threads = set(side_by_side(dict.fromkeys("abcde", together), call).values())
    assert len(threads) == 5
    assert threading.get_ident() not in threads


def test_the_order_is_that_of_the_names() -> None:
    """The outcomes are in the order of the names, not in the order of the answers."""
    has_answered = {name: threading.Event() for name in ("b", "c", "a")}
    waits_for = {"b": "c", "c": "a"}

    def call(name: str) -> str:
        if name in waits_for:
            assert has_answered[waits_for[name]].wait(SECONDS)
        has_answered[name].set()
        return name.upper()

    assert list(side_by_side({name: name for name in has_answered}, call).items()) == [
        ("b", "B"),
        ("c", "C"),
        ("a", "A"),
    ]


def test_an_error_of_one_is_its_outcome() -> None:
    """If a region fails, its error is its outcome, next to the answers of the others."""

    def call(asked: int) -> int:
        if asked == 2:
            raise DOWN
        return 10 * asked

    assert side_by_side({"a": 1, "b": 2, "c": 3}, call) == {"a": 10, "b": DOWN, "c": 30}
    assert side_by_side({"b": 2}, call) == {"b": DOWN}


def test_one_alone_is_asked_in_the_callers_thread() -> None:
    """For a single region no thread is started."""
    assert side_by_side({"a": 1}, lambda asked: threading.get_ident()) == {"a": threading.get_ident()}


def test_no_regions_have_no_outcomes() -> None:
    """Without regions nothing is called, and there are no outcomes."""
    assert side_by_side({}, lambda asked: pytest.fail("called")) == {}


@pytest.mark.parametrize("names", ["a", "abc"])
def test_a_bug_is_raised(names: str) -> None:
    """A bug is raised unchanged, whether one region was called or several."""

    def call(name: str) -> str:
        if name == "a":
            raise ZeroDivisionError("of a")
        return name

    with pytest.raises(ZeroDivisionError, match="of a"):
        side_by_side({name: name for name in names}, call)


def test_a_bug_is_raised_after_all_calls() -> None:
    """A bug is raised only after all calls have returned, so that nothing continues in the background."""
    may_land, landed = threading.Event(), threading.Event()

    def call(name: str) -> None:
        if name == "a":
            may_land.set()
            raise ZeroDivisionError
        assert may_land.wait(SECONDS)
        landed.set()

    with pytest.raises(ZeroDivisionError):
        side_by_side({"a": "a", "b": "b"}, call)
    assert landed.is_set()


def test_a_caller_that_waits_can_be_interrupted() -> None:
    """Ctrl-C interrupts a caller whose regions never answer, and the process ends."""
    script = (
        "import os, signal, threading\n"
        "from ticketctl.deployments.outcomes import side_by_side\n"
        "def call(name):\n"
        "    if name == 'b':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait()\n"
        "try:\n"
        "    side_by_side({'a': 'a', 'b': 'b'}, call)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=2 * SECONDS, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "interrupted\n", "")


def test_each_outcome_is_a_success_or_a_failure() -> None:
    """Each outcome is a success or a failure, in the order of the names; an answer may be ``None``."""
    assert list(succeeded(MIXED).items()) == [("a", 1), ("c", 3)]
    assert list(failures(MIXED).items()) == [("b", DOWN), ("d", CLOSED), ("e", SHUT)]
    assert succeeded({"a": None, "b": DOWN}) == {"a": None}
    assert (succeeded({}), failures({}), failures({"a": None})) == ({}, {}, {})


def test_raise_first_failure_gives_the_answers_or_raises_the_first_error() -> None:
    """If one or more regions failed, the first error in the order of the names is raised."""
    assert raise_first_failure({"a": 1, "c": 3}) == {"a": 1, "c": 3}
    with pytest.raises(UnreachableError) as caught:
        raise_first_failure(MIXED)
    assert caught.value is DOWN


def test_no_failure_is_not_raised() -> None:
    """If every region answered, or there are none, nothing is raised."""
    raise_failures({"a": 1, "c": None}, "shown")
    raise_failures({}, "shown")


def test_some_failures_are_partial() -> None:
    """The message names the regions that succeeded and those that failed, with reasons; the hint is the first one."""
    with pytest.raises(PartialError) as caught:
        raise_failures(MIXED, "deployed")
    error = caught.value
    assert error.message == "deployed in a, c, but not in b: no way there; d: not for you; e: nor for you"
    assert (error.hint, error.exit_code) == ("aws sso login", 8)


def test_a_partial_failure_without_a_hint_has_none() -> None:
    """If no error has a hint, a partial failure has none either."""
    with pytest.raises(PartialError) as caught:
        raise_failures({"a": 1, "b": DOWN}, "shown")
    assert (caught.value.message, caught.value.hint) == ("shown in a, but not in b: no way there", "")


def test_if_all_failed_the_first_error_is_raised_itself() -> None:
    """If all regions failed, the first error is raised with its own exit code, not as partial."""
    for outcomes, expected in (({"a": CLOSED, "b": DOWN}, CLOSED), ({"a": DOWN}, DOWN)):
        with pytest.raises(type(expected)) as caught:
            raise_failures(outcomes, "shown")
        assert caught.value is expected

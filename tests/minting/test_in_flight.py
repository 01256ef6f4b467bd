"""``in_flight``: how many jobs run at the same time, their answers, and what happens if the caller stops."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest

from ticketctl.errors import PartialError, TicketctlError, UnreachableError
from ticketctl.minting.in_flight import as_they_arrive

SECONDS = 30.0  # seconds to wait for something that must happen, so that a bug fails the test instead of blocking it
WIDTHS = pytest.mark.parametrize("at_once", [1, 2, 3, 64])


def double(job: int) -> int:
    return 2 * job


def numbers(answers: Iterable[int | TicketctlError]) -> list[int]:
    """Return the answers, sorted; raise an error if there is one among them."""
    found = []
    for answer in answers:
        if isinstance(answer, TicketctlError):
            raise answer
        found.append(answer)
    return sorted(found)


class Pulled:
    """An endless iterator of jobs that counts how many were taken."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for job in itertools.count():
            self.count += 1
            yield job


def run_alone(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a separate process, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=2 * SECONDS, check=False
    )


@WIDTHS
@pytest.mark.parametrize("jobs", [0, 1, 2, 3, 10])
def test_every_job_is_done_once(at_once: int, jobs: int) -> None:
    """Every job gives one answer, for any number of jobs and any number in flight."""
    assert numbers(as_they_arrive(double, range(jobs), at_once=at_once)) == [2 * job for job in range(jobs)]


def test_answers_are_in_the_order_of_arrival() -> None:
    """Answers are yielded in the order in which the jobs end."""
    may_land = {job: threading.Event() for job in ("first", "second", "third")}

    def work(job: str) -> str:
        assert may_land[job].wait(SECONDS)
        return job

    answers = as_they_arrive(work, may_land, at_once=3)
    for job in ("third", "first", "second"):
        may_land[job].set()
        assert next(answers) == job
    assert list(answers) == []


def test_as_many_are_in_flight_as_was_asked_and_never_more() -> None:
    """With 40 jobs, four at a time, exactly four meet at each barrier."""
    meeting, lock = threading.Barrier(4), threading.Lock()
    flying, most = 0, 0

    def work(job: int) -> int:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        meeting.wait(SECONDS)
        with lock:
            flying -= 1
        return job

    assert numbers(as_they_arrive(work, range(40), at_once=4)) == list(range(40))
    assert most == 4


@WIDTHS
def test_a_slow_caller_starts_no_more_jobs(at_once: int) -> None:
    """If the caller takes answers slowly, no more than the requested number of jobs is started."""
    jobs = Pulled()
    answers = as_they_arrive(double, jobs, at_once=at_once)
    assert jobs.count == 0
    for taken in range(100):
        assert jobs.count <= max(0, taken - 1) + at_once
        assert not isinstance(next(answers), TicketctlError)


def test_one_at_once_is_the_callers_own_thread() -> None:
    """With one job at a time no thread starts, and each job starts after the previous answer was taken."""
    begun: list[int] = []

    def work(job: int) -> int:
        begun.append(job)
        return threading.get_ident()

    answers = as_they_arrive(work, itertools.count(), at_once=1)
    for taken in range(1, 4):
        assert next(answers) == threading.get_ident()
        assert begun == list(range(taken))


def test_several_at_once_are_not_the_callers_thread() -> None:
    """With several jobs in flight the caller's thread only waits, so Ctrl-C interrupts it."""
    threads = set(as_they_arrive(lambda job: threading.get_ident(), range(6), at_once=2))
    assert threading.get_ident() not in threads


def test_after_an_error_only_jobs_in_flight_end() -> None:
    """An error is yielded like an answer, then the answers of the jobs in flight; then the iterator ends."""
    begun, may_land, failure = [], threading.Event(), UnreachableError("gone")

    def work(job: int) -> int:
        begun.append(job)
        if job == 1:
            raise failure
        assert may_land.wait(SECONDS)
        return job

    answers = as_they_arrive(work, itertools.count(), at_once=3)
    assert next(answers) is failure
    may_land.set()
    assert numbers(answers) == [0, 2]
    assert sorted(begun) == [0, 1, 2]


def test_every_error_that_was_in_flight_arrives() -> None:
    """If all jobs in flight fail, each error is yielded, and no job follows."""
    begun, together = [], threading.Barrier(3)

    def work(job: int) -> int:
        begun.append(job)
        together.wait(SECONDS)
        raise PartialError(str(job))

    answers = list(as_they_arrive(work, itertools.count(), at_once=3))
    assert sorted(answer.message for answer in answers if isinstance(answer, TicketctlError)) == ["0", "1", "2"]
    assert sorted(begun) == [0, 1, 2]


def test_one_by_one_ends_with_the_first_error() -> None:
    """With one job at a time, the answers before an error and the error are yielded, and no job follows."""
    begun, failure = [], UnreachableError("gone")

    def work(job: int) -> int:
        begun.append(job)
        if job == 2:
            raise failure
        return job

    assert list(as_they_arrive(work, itertools.count(), at_once=1)) == [0, 1, failure]
    assert begun == [0, 1, 2]


@WIDTHS
def test_a_bug_is_raised(at_once: int) -> None:
    """A bug in a job is raised in the caller's loop."""

    def work(job: int) -> int:
        raise ZeroDivisionError(f"job {job}")

    with pytest.raises(ZeroDivisionError, match=r"^job \d+$"):
        next(as_they_arrive(work, itertools.count(), at_once=at_once))


@WIDTHS
def test_an_error_of_the_jobs_themselves_is_raised(at_once: int) -> None:
    """If the iterator of jobs fails, its error is raised in the caller's loop."""

    def jobs() -> Iterator[int]:
        yield 1
        raise EOFError("no more of them")

    with pytest.raises(EOFError, match="no more of them"):
        list(as_they_arrive(double, jobs(), at_once=at_once))


def test_a_caller_that_leaves_is_not_held() -> None:
    """If the caller stops taking answers, the process can end even if some jobs never do."""
    left = run_alone(
        "import itertools, threading\n"
        "from ticketctl.minting.in_flight import as_they_arrive\n"
        "work = lambda job: job if job == 0 else threading.Event().wait()\n"
        "print(next(as_they_arrive(work, itertools.count(), at_once=8)))\n"
    )
    assert (left.returncode, left.stdout, left.stderr) == (0, "0\n", "")


def test_a_caller_that_waits_can_be_interrupted() -> None:
    """Ctrl-C reaches a caller whose jobs never end, and the process ends."""
    interrupted = run_alone(
        "import os, signal, threading\n"
        "from ticketctl.minting.in_flight import as_they_arrive\n"
        "def work(job):\n"
        "    if job == 3:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait()\n"
        "try:\n"
        "    list(as_they_arrive(work, range(4), at_once=4))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    assert (interrupted.returncode, interrupted.stdout, interrupted.stderr) == (0, "interrupted\n", "")

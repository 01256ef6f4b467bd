"""Makes several calls at the same time and yields their answers as they arrive."""

import _thread
import queue
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from ticketctl.errors import TicketctlError

Job = TypeVar("Job")
Answer = TypeVar("Answer")
SIGNAL_SECONDS = 0.5


def as_they_arrive(
    work: Callable[[Job], Answer], jobs: Iterable[Job], *, at_once: int
) -> Iterator[Answer | TicketctlError]:
    """Do the jobs, ``at_once`` of them at the same time; yield each answer or error in order of arrival.

    After a failure no other job starts, but the answers of those in flight are still yielded. If the caller stops
    iterating, they continue in daemon threads.
    """
    if at_once == 1:
        yield from _one_by_one(work, jobs)
        return
    arrived: queue.SimpleQueue[Answer | TicketctlError | Exception] = queue.SimpleQueue()

    def fly(job: Job) -> None:
        try:
            arrived.put(work(job))
        except Exception as error:  # the caller's thread yields it, or raises it if it is no ``TicketctlError``
            arrived.put(error)

    waiting, flying, failed = iter(jobs), 0, False
    while True:
        for job in islice(waiting, 0 if failed else at_once - flying):
            # ``Thread.start`` waits until the thread runs; Ctrl-C at that moment raises ``RuntimeError`` in its lock.
            _thread.start_new_thread(fly, (job,))
            flying += 1
        if not flying:
            return
        answer = _wait_for(arrived)
        flying -= 1
        if isinstance(answer, Exception) and not isinstance(answer, TicketctlError):
            raise answer
        failed = failed or isinstance(answer, TicketctlError)
        yield answer


def _wait_for(arrived: "queue.SimpleQueue[Answer]") -> Answer:
    """The next answer. A signal that comes just before Python blocks does not wake it, so it looks again and again."""
    while True:
        with suppress(queue.Empty):
            return arrived.get(timeout=SIGNAL_SECONDS)


def _one_by_one(work: Callable[[Job], Answer], jobs: Iterable[Job]) -> Iterator[Answer | TicketctlError]:
    for job in jobs:
        try:
            yield work(job)
        except TicketctlError as error:
            yield error
            return

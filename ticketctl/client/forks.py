"""Forks: what a forked child must drop, and code that a fork must not cut in two."""

import concurrent.futures.thread  # noqa: F401 - its own fork hook must be registered before ours, so that ours runs first
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_forgetful: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
LONGEST_WAIT = 30.0
"""Seconds that a fork waits for other threads. Then it goes ahead: a program must not hang because a mint does."""


def forget_in_child(thing: T, forget: Callable[[T], None]) -> None:
    """Call ``forget(thing)`` in every child that is forked while ``thing`` is alive."""
    _forgetful[thing] = forget


class ForkGate:
    """Lets a fork wait while other threads do what must not be copied half done, such as an import.

    A child has only the thread that forked. If another thread held a lock, for example that of a module which it
    imported, it stays locked in the child for ever. Any number of threads may be inside at once.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._inside: set[tuple[int, object]] = set()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While this is entered, forks by other threads wait."""
        visit = (threading.get_ident(), object())
        try:
            with self._changed:
                self._inside.add(visit)
            yield
        finally:
            with self._changed:
                self._inside.discard(visit)
                self._changed.notify_all()

    def before(self) -> None:
        """Wait for the other threads, and let none enter before the fork is over."""
        self._changed.acquire()
        self._changed.wait_for(self._is_free, LONGEST_WAIT)

    def after_in_parent(self) -> None:
        """Let threads enter again."""
        self._changed.release()

    def after_in_child(self) -> None:
        """Start anew: no other thread is here."""
        self._reset()
        for thing, forget in list(_forgetful.items()):
            forget(thing)

    def _is_free(self) -> bool:
        me = threading.get_ident()
        return all(thread == me for thread, _ in self._inside)


fork_gate = ForkGate()
os.register_at_fork(
    before=fork_gate.before, after_in_parent=fork_gate.after_in_parent, after_in_child=fork_gate.after_in_child
)

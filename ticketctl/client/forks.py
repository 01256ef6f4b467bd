"""Forks: what a forked child must drop, and code during which other threads must not fork."""

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
"""Seconds that a fork waits for other threads. Then it happens anyway: a program must not hang because a mint hangs."""


def forget_in_child(thing: T, forget: Callable[[T], None]) -> None:
    """Call ``forget(thing)`` in every child that is forked while ``thing`` is alive."""
    _forgetful[thing] = forget


class ForkGate:
    """Delays a fork while other threads do work that must not be copied unfinished, such as an import.

    A child has only the thread that forked. If another thread held a lock, for example the lock of a module that it
    was importing, the lock is never released in the child. Several threads may be inside at the same time.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._inside: set[tuple[int, object]] = set()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Within this context, forks by other threads wait."""
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
        """Wait for the other threads, and keep new ones out until the fork is complete."""
        self._changed.acquire()
        self._changed.wait_for(self._is_free, LONGEST_WAIT)

    def after_in_parent(self) -> None:
        """Let threads enter again."""
        self._changed.release()

    def after_in_child(self) -> None:
        """Reset the gate, because no other thread exists in the child, and let every registered object forget."""
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

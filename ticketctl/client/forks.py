"""What a process that was forked must forget: its parent's connections and the numbers that its parent holds."""

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_forgetful: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def forget_in_child(thing: T, forget: Callable[[T], None]) -> None:
    """Call ``forget(thing)`` in every child that is forked while ``thing`` is alive."""
    _forgetful[thing] = forget


def _forget_all() -> None:
    for thing, forget in list(_forgetful.items()):
        forget(thing)


os.register_at_fork(after_in_child=_forget_all)

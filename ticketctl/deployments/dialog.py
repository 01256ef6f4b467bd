"""How the core asks and tells the user, while the command decides on prompts and output."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from ticketctl.errors import InterruptedRunError

Tell = Callable[[str, str], None]
"""Is called with a region and a line about it."""


@dataclass(frozen=True)
class Dialog:
    """``confirm`` raises an error unless the user agrees; ``progress`` shows what happens in several regions.

    ``note`` tells the user something, ``warn`` what the user must know, even with ``--quiet``.
    """

    note: Callable[[str], None]
    warn: Callable[[str], None]
    confirm: Callable[[str], None]
    progress: Callable[[Sequence[str]], AbstractContextManager[Tell]]


@contextmanager
def interruptible(what: str, again: str) -> Iterator[None]:
    """Turn Ctrl-C into an error that says that AWS continues, and which command follows it."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; the {what} continues in AWS", hint=again) from None

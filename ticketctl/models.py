"""What the sources and CloudFormation answer with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """Tickets taken in one write: ``first, first + increment, …, last``, ``count`` of them."""

    partition: str
    first: int
    last: int
    count: int
    increment: int

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> "Block":
        """Read what the Function URL and the atomic write give; ``ValueError`` where it is not that."""
        try:
            block = cls(
                partition=str(answer["partition"]),
                **{name: int(answer[name]) for name in ("first", "last", "count", "increment")},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a block: {error!r}") from None
        if len(block.tickets) != block.count or block.tickets[-1] != block.last:
            raise ValueError("not a block: its numbers contradict each other")
        return block

    @property
    def tickets(self) -> range:
        """The tickets in ascending order."""
        return range(self.first, self.last + 1, self.increment)

    def as_dict(self) -> dict[str, Any]:
        """The block as ``--json`` prints it, with the names of the HTTP contract."""
        return {**asdict(self), "hand_crafted_int": self.last}


@dataclass(frozen=True)
class Counter:
    """Where a counter stands. ``minted_at`` is in epoch milliseconds, ``None`` before the first mint."""

    partition: str
    hand_crafted_int: int
    increment: int
    ceiling: int
    remaining: int
    minted_at: int | None

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> "Counter":
        """Read what ``/status`` and the table give; ``ValueError`` where it is not that."""
        try:
            minted_at = answer["minted_at"]
            return cls(
                partition=str(answer["partition"]),
                minted_at=None if minted_at is None else int(minted_at),
                **{name: int(answer[name]) for name in ("hand_crafted_int", "increment", "ceiling", "remaining")},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a counter: {error!r}") from None

    def as_dict(self) -> dict[str, Any]:
        """The counter as ``--json`` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class StackOutputs:
    """A deployed stack: where it is, what to call, and the lane in which its default counter starts."""

    account: str
    region: str
    stack: str
    url: str
    auth: str
    table: str
    offset: int
    increment: int
    max_count: int

"""What a source is asked for, and what sources and CloudFormation answer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")
MAX_TICKET = 2**53 - 1


@dataclass(frozen=True)
class MintRequest:
    """A request for ``count`` tickets; ``partition`` ``None`` is the default counter.

    ``key`` makes a retry safe. It is typed by the user (``is_typed``) or a random retry key; see
    ``ticketctl.minting.source``.
    """

    partition: str | None
    count: int
    key: str
    is_typed: bool


@dataclass(frozen=True)
class Block:
    """Tickets taken in one write: ``first, first + increment, …, last``, ``count`` of them.

    ``replayed``: an earlier request with the same idempotency key took them. ``region`` is where they were taken.
    ``possible_gaps`` names each region (or host of a typed URL) that may have spent as many tickets more: it gave no
    answer, and no replay of the request. ``receipt_missing``: the receipt of a typed key could not be written, so the
    same key may mint other tickets.
    """

    partition: str
    first: int
    last: int
    count: int
    increment: int
    replayed: bool = False
    region: str | None = None
    possible_gaps: tuple[str, ...] = ()
    receipt_missing: bool = False

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], place: str) -> "Block":
        """Read the answer of the Function URL or of the atomic write; raises ``ValueError`` if it is no block.

        ``place`` is the region or the host that answers: the name of the possible gap that an answer may report.
        """
        partition = _member(answer, "partition", str)
        numbers = {name: _member(answer, name, int) for name in ("first", "last", "count", "increment")}
        gaps = (place,) if answer.get("possible_gap") is True else ()
        replayed = answer.get("replayed") is True
        missing = answer.get("receipt") is False
        block = cls(partition, **numbers, replayed=replayed, possible_gaps=gaps, receipt_missing=missing)  # type: ignore[arg-type]
        if block.increment < 1 or block.count < 1 or block.last != block.first + (block.count - 1) * block.increment:
            raise ValueError("not a block: its numbers contradict each other")
        if block.first < 1 or block.last > MAX_TICKET:
            raise ValueError(
                f"not a block: its numbers are {block.first} to {block.last}; a ticket is from 1 to 2^53 - 1"
            )
        return block

    @property
    def tickets(self) -> range:
        """The tickets in ascending order."""
        return range(self.first, self.last + 1, self.increment)

    def as_dict(self) -> dict[str, Any]:
        """The block as ``--json`` prints it, with the field names of the HTTP API."""
        return {**asdict(self), "possible_gaps": list(self.possible_gaps)}


@dataclass(frozen=True)
class Counter:
    """The state of a counter. ``minted_at`` is in epoch milliseconds, ``None`` before the first mint.

    ``region`` is ``None`` if the counter was read through a URL that does not name a region. ``gapless``: its numbers
    are taken by claims only, see ``ticketctl.minting.claim``.
    """

    partition: str
    last: int
    increment: int
    ceiling: int
    remaining: int
    minted_at: int | None
    frozen: bool = False
    region: str | None = None
    gapless: bool = False

    @property
    def state(self) -> str:
        """What it does: ``mints``, ``frozen``, ``gapless`` (only claims take its numbers) or ``gapless, frozen``."""
        return ", ".join(["gapless"] * self.gapless + ["frozen"] * self.frozen) or "mints"

    @property
    def offset(self) -> int:
        """The residue of its lane, from 1 to ``increment``."""
        return (self.last - 1) % self.increment + 1

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> "Counter":
        """Read the answer of ``/status`` or of the table; ``ValueError`` if it is not one."""
        partition = _member(answer, "partition", str)
        minted_at = None if answer.get("minted_at", ...) is None else _member(answer, "minted_at", int)
        numbers = {name: _member(answer, name, int) for name in ("increment", "ceiling", "remaining")}
        last = _member(answer, "hand_crafted_int", int)
        state = {name: answer.get(name) is True for name in ("frozen", "gapless")}
        return cls(partition=partition, last=last, minted_at=minted_at, **state, **numbers)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """The counter as ``--json`` prints it."""
        return {**asdict(self), "offset": self.offset}


def _member(answer: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = answer.get(name)
    if type(value) is not kind:
        raise ValueError(f"not a ticket server's answer: {name} is {value!r}")
    return value


@dataclass(frozen=True)
class StackOutputs:
    """A deployed stack: its place, its URL and table, and the lane in which new counters start.

    ``url`` is ``None`` for a table-only stack: it has no function, and ``max_count`` then limits nothing.
    """

    account: str
    region: str
    stack: str
    url: str | None
    auth: str
    table: str
    offset: int
    increment: int
    max_count: int

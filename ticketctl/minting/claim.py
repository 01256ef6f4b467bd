"""Claims: a number of a gapless counter is taken in one transaction with the caller's own writes.

A claim is one TransactWriteItems: the counter's conditional update, and the writes that contain the number. Either all
of them are made, or none. What keeps the numbers without gaps and duplicates:

- The update needs the counter's last number to be the one that the claim knows (``:seen``).
- A request that may have been received is sent again unchanged, with the same client request token. DynamoDB keeps
  tokens for 10 minutes: if it has made the writes, it answers with success and does not make them again.
- Only if the counter has moved on is another number tried: then the earlier request can no longer succeed.
"""

import copy
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.dynamodb import Send, SendUntil, TransactionCanceledError, table_name
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    ClaimRefusedError,
    CounterInvalidError,
    NotMintedError,
    OutcomeUnknownError,
    Refusal,
    RefusedError,
    TicketctlError,
    UsageError,
)
from ticketctl.minting.dynamodb import translated_problems
from ticketctl.minting.retry import LEAST_SECONDS, uniform
from ticketctl.minting.source import problem_error, unknown_counter

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
MOST_WRITES = 99
"""DynamoDB takes 100 in one transaction; one is the counter's."""
LONGEST_CLAIM = 300.0
"""Seconds; DynamoDB forgets a client request token after 600."""
BUSY = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
"""The reasons of a cancellation after which the same request may succeed."""

Item = Mapping[str, Any]
Writes = Callable[[int], Sequence[Mapping[str, Any]]]
"""Builds the caller's writes for a number: DynamoDB's ``TransactItems``, for example ``[{"Put": {…}}]``."""


class Claims:
    """Takes numbers of the gapless counters of a table. Threads may share it; in one process, use only one.

    Claims of one counter wait for each other, in their order, and each knows the number that the one before it has
    taken. So as long as no other process claims, a claim is one request.
    """

    def __init__(
        self,
        send_until: SendUntil,
        table: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = uniform,
    ) -> None:
        self._send_until = send_until
        self._table = table
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def claim(self, name: str, writes: Writes, deadline: Deadline) -> int:
        """Take the next number of a counter, together with ``writes(number)``.

        ``writes`` is called once for each number that is tried, and may be called with a number that is then not
        taken. Raises ``ClaimRefusedError`` if a condition of the caller's own writes does not hold,
        ``OutcomeUnknownError`` with the ``number`` if it may have been taken, and ``NotMintedError`` if it was not.
        """
        with translated_problems(name):
            bundle.handler.check_name(name)
        deadline = deadline.within(LONGEST_CLAIM)
        with self._lock:
            queue = self._queues.setdefault(name, _Queue())
        with queue.turn(deadline):
            return self._claim(queue, name, writes, _Patience(deadline, self._sleep, self._jitter))

    def _claim(self, queue: "_Queue", name: str, writes: Writes, patience: "_Patience") -> int:
        send = self._send_until(patience.deadline)
        item, queue.known = queue.known or self._read(send, name, patience), None
        while True:
            if not patience.deadline.left():
                raise NotMintedError(f"no number of {name!r} was taken in time: others were faster", hint="try again")
            attempt = self._attempt(item, name, writes)
            try:
                lost_to = _taken(attempt, send, patience)
            except ClaimRefusedError:
                queue.known = item
                raise
            if lost_to is None:
                queue.known = {**item, "hand_crafted_int": {"N": str(attempt.number)}}
                return attempt.number
            item = lost_to

    def _read(self, send: Send, name: str, patience: "_Patience") -> Item:
        """Read the counter's item, with retries."""
        request = bundle.handler.read_request(self._table, name)
        while True:
            try:
                item: Item | None = send("GetItem", request).get("Item")
            except NotMintedError as error:
                patience.wait_after(error)
                continue
            if item is None:
                raise unknown_counter(name)
            return item

    def _attempt(self, item: Item, name: str, writes: Writes) -> "_Attempt":
        """Everything that is sent for the next number, built once."""
        number = next_number(item, name)
        own = counter_update(self._table, item, number, int(self._clock() * 1000))
        others = checked_writes(writes(number), self._table)
        request = {"TransactItems": [{"Update": own}, *others], "ClientRequestToken": os.urandom(16).hex()}
        return _Attempt(name, number, request)


def next_number(item: Item, name: str) -> int:
    """The number after the last one of a gapless counter; raises ``RefusedError`` if it has none to take."""
    with translated_problems(name):
        counter = bundle.handler.read_counter(item)
    if not counter["gapless"]:
        raise RefusedError(
            f"the counter {name!r} is not gapless; nothing was taken",
            hint="mint from it with next(), or claim from one made by: ticketctl counter create NAME --gapless",
        )
    if counter["frozen"]:
        raise problem_error("counter_frozen", f"the counter {name!r} is frozen", name)
    if "increment" in item:
        raise CounterInvalidError(f"the gapless counter {name!r} has an increment; it must have none")
    if not counter["remaining"]:
        detail = f"the counter {name!r} has no number left below its ceiling {counter['ceiling']}"
        raise problem_error("counter_exhausted", detail, name)
    if (number := int(counter["hand_crafted_int"]) + 1) < 1:
        raise CounterInvalidError(f"the gapless counter {name!r} is below 0: its next number would be {number}")
    return number


def counter_update(table: str, item: Item, number: int, now_ms: int) -> dict[str, Any]:
    """Build the update that moves a gapless counter from ``item`` to ``number``, and only from there."""
    names = ("#last", "#frozen", "#increment", "#ceiling", "#minted_at")
    ceiling = {":ceiling": item["ceiling"]} if "ceiling" in item else {}
    conditions = [
        "#last = :seen",
        "#frozen = :gapless",
        "attribute_not_exists(#increment)",
        "#ceiling = :ceiling" if ceiling else "attribute_not_exists(#ceiling)",
    ]
    return {
        "TableName": table,
        "Key": {"partition": item["partition"]},
        "UpdateExpression": "SET #last = :new, #minted_at = :now",
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": {name: bundle.handler.NAMES[name] for name in names},
        "ExpressionAttributeValues": {
            ":seen": item["hand_crafted_int"],
            ":new": {"N": str(number)},
            ":gapless": {"S": bundle.handler.GAPLESS},
            ":now": {"N": str(now_ms)},
            **ceiling,
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def checked_writes(writes: object, table: str) -> list[dict[str, Any]]:
    """Copy the caller's writes, so that a retry sends the same; raises ``UsageError`` if they cannot carry a number.

    ``table`` is the counters' table, which they must not write to: a counter would move back or lose its mark.
    """
    if not isinstance(writes, Sequence) or not 1 <= len(writes) <= MOST_WRITES:
        raise UsageError(f"a claim needs a list of 1 to {MOST_WRITES} writes")
    copies = [_checked_write(write, index, table) for index, write in enumerate(writes)]
    if not any(kind in write for write in copies for kind in ("Put", "Update")):
        raise UsageError("a claim must write the number: none of its writes is a Put or an Update")
    if not any(write[kind].get("ConditionExpression") for write in copies for kind in write):
        raise UsageError(
            "a claim needs a condition in one of its writes: without one, it may overwrite a record",
            hint='"ConditionExpression": "attribute_not_exists(…)"',
        )
    return copies


def _checked_write(write: object, index: int, table: str) -> dict[str, Any]:
    kinds = ("Put", "Update", "Delete", "ConditionCheck")
    if not isinstance(write, Mapping) or len(write) != 1 or (kind := next(iter(write))) not in kinds:
        raise UsageError(f"write {index} of the claim must be a dictionary with one key: {', '.join(kinds)}")
    fields = write[kind]
    key = fields.get("Item" if kind == "Put" else "Key") if isinstance(fields, Mapping) else None
    if not isinstance(key, Mapping):
        raise UsageError(f"write {index} of the claim does not name its item")
    if table_name(str(fields.get("TableName"))) == table:
        raise UsageError(
            f"write {index} of the claim is to the counters' own table {table}",
            hint="keep the records in another table",
        )
    if _has_surrogate(fields):  # DynamoDB may not answer such a request, and then its outcome is unknown
        raise UsageError(f"write {index} of the claim has text that is not Unicode")
    return copy.deepcopy(dict(write))


def _has_surrogate(value: object) -> bool:
    match value:
        case str():
            return re.search("[\ud800-\udfff]", value) is not None
        case Mapping():
            return any(_has_surrogate(part) for pair in value.items() for part in pair)
        case list() | tuple() | set() | frozenset():
            return any(map(_has_surrogate, value))
    return False


@dataclass(frozen=True)
class _Attempt:
    """One number and the request that takes it, which is sent unchanged until its outcome is known."""

    name: str
    number: int
    request: Mapping[str, Any]

    @property
    def what(self) -> str:
        """The number and its counter, for messages."""
        return f"{self.number} of {self.name!r}"

    def unknown(self, error: TicketctlError) -> OutcomeUnknownError:
        """The error if the number may have been taken; ``error`` is the last failure."""
        return OutcomeUnknownError(
            f"it is unknown if {self.what} was taken: {error.message}",
            hint="look for the record of this number before you claim again",
            number=self.number,
        )

    def refused_counter(self, reasons: Sequence[Mapping[str, Any]]) -> Item | None:
        """The counter's item if its update was refused because the item is not as the attempt knows it."""
        return (reasons[0].get("Item") or None) if _code(reasons[0]) == "ConditionalCheckFailed" else None

    def is_passed(self, item: Item) -> bool:
        """Whether another claim has taken the number."""
        return int(item["hand_crafted_int"]["N"]) >= self.number

    def failure(self, reasons: Sequence[Mapping[str, Any]]) -> TicketctlError:
        """The error of a canceled transaction whose number was not taken by another claim."""
        own, *others = [_code(reason) for reason in reasons]
        if own == "ConditionalCheckFailed":
            is_there = self.refused_counter(reasons) is not None
            return RefusedError("the counter was changed in the meantime") if is_there else unknown_counter(self.name)
        if BUSY & {own, *others}:
            return NotMintedError(f"{self.what} was not taken: its items are busy", hint="try again")
        if own != "None":
            return RefusedError(f"DynamoDB refused the update of the counter {self.name!r}: {own}")
        return self._refused(reasons[1:])

    def _refused(self, reasons: Sequence[Mapping[str, Any]]) -> ClaimRefusedError:
        """The error if writes of the caller's own refused."""
        refusals = tuple(
            Refusal(index, _code(reason), str(reason.get("Message") or ""), reason.get("Item") or None)
            for index, reason in enumerate(reasons)
            if _code(reason) != "None"
        )
        told = ", ".join(f"write {refusal.index} ({_told(refusal)})" for refusal in refusals)
        return ClaimRefusedError(
            f"{told} refused {self.what}; nothing was written and no number was taken",
            hint="the indexes count the list that the claim was given, from 0",
            refusals=refusals,
        )


def _taken(attempt: _Attempt, send: Send, patience: "_Patience") -> Item | None:
    """Send the request until its outcome is known: ``None`` if the number was taken, else the item as another left it.

    After an attempt with an unknown outcome, the number is only given up if the counter has moved on.
    """
    unknown = False
    while True:
        try:
            send("TransactWriteItems", dict(attempt.request))
        except TransactionCanceledError as canceled:
            item = attempt.refused_counter(canceled.reasons)
            if item is not None and (not unknown or attempt.is_passed(item)):
                return item
            failure = attempt.failure(canceled.reasons)
        except TicketctlError as error:
            failure = error
        else:
            return None
        unknown = unknown or isinstance(failure, OutcomeUnknownError)
        try:
            patience.wait_after(failure, least=0.0 if unknown else LEAST_SECONDS)
        except TicketctlError as error:
            if unknown:
                raise attempt.unknown(error) from error
            raise


def _told(refusal: Refusal) -> str:
    """Why a write was refused; what AWS adds to a condition that does not hold says no more."""
    needs_message = refusal.message and refusal.reason != "ConditionalCheckFailed"
    return f"{refusal.reason}: {refusal.message}" if needs_message else refusal.reason


def _code(reason: Mapping[str, Any]) -> str:
    return str(reason.get("Code") or "None")


class _Patience:
    """The pauses of one claim, which are "full jitter" as in ``ticketctl.minting.retry``."""

    def __init__(
        self,
        deadline: Deadline,
        sleep: Callable[[float], None],
        jitter: Callable[[float, float], float],
    ) -> None:
        self.deadline = deadline
        self._sleep = sleep
        self._jitter = jitter
        self._bound = FIRST_PAUSE

    def wait_after(self, failure: TicketctlError, *, least: float = LEAST_SECONDS) -> None:
        """Pause before an attempt; raise ``failure`` if none can help or fewer than ``least`` seconds are left."""
        if not isinstance(failure, NotMintedError | OutcomeUnknownError):
            raise failure
        pause = self._jitter(0.0, self._bound)
        if pause >= self.deadline.left() - least:
            raise failure
        self._bound = min(self._bound * 2, LONGEST_PAUSE)
        self._sleep(pause)


class _Queue:
    """The claims of one counter: one at a time, in the order in which they came.

    ``known`` is the counter's item as the last claim left it; ``None`` if that is not known.
    """

    def __init__(self) -> None:
        self.known: Item | None = None
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()
        self._owner: int | None = None

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Wait for the claims that came before; ``NotMintedError`` if the deadline passes first."""
        if self._owner == threading.get_ident():
            raise UsageError("a claim of the same counter cannot be made while building the writes of another")
        mine = threading.Event()
        try:
            with self._lock:
                self._line.append(mine)
                self._line[0].set()
            if not mine.wait(deadline.left()):
                raise NotMintedError("other claims of this counter took all of the time; no number was taken")
            self._owner = threading.get_ident()
            yield
        finally:
            self._leave(mine)

    def _leave(self, mine: threading.Event) -> None:
        with self._lock:
            if self._owner == threading.get_ident():
                self._owner = None
            with suppress(ValueError):  # a signal's exception came before it was in the line
                self._line.remove(mine)
            if self._line:
                self._line[0].set()

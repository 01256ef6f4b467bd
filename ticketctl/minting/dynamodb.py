"""Mints directly from the table, with the handler's own atomic write."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.dynamodb import SendUntil
from ticketctl.deadline import Deadline
from ticketctl.errors import OutcomeUnknownError
from ticketctl.minting.source import problem_error, quoted_key
from ticketctl.models import Block, Counter, MintRequest


class DynamoDBSource:
    """The table of a stack; its default counter has the region's name.

    ``send_until`` returns what sends DynamoDB operations until a deadline. ``increment`` and ``offset`` are the
    default counter's step and first ticket. If ``offset`` is ``None``, the counter must exist: a first mint must use
    the stack's current lane, not a cached one.
    """

    def __init__(
        self,
        send_until: SendUntil,
        table: str,
        *,
        region: str,
        increment: int = 1,
        offset: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._send_until = send_until
        self._table = table
        self._region = region
        self._increment = increment
        self._offset = offset
        self._clock = clock
        self._fences: dict[str, Any] = {}

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets in one conditional write; a typed key also reads and writes its receipt."""
        handler = bundle.handler
        name = self._region if request.partition is None else request.partition
        offset = self._offset if name == self._region and name not in self._fences else None
        with translated_problems(name):
            fence = self._fences.get(handler.check_name(name), handler.Fence(self._increment))
            handler.check_count(request.count, handler.MAX_COUNT)
            answer, fence = handler.mint_with_key(
                self._send_until(deadline),
                self._table,
                name,
                request.count,
                key=handler.check_key(quoted_key(request.key)),
                fence=fence,
                offset=offset,
                now_ms=int(self._clock() * 1000),
            )
        try:
            block = Block.from_answer(answer, self._region)
        except ValueError as error:  # the write was made
            raise OutcomeUnknownError(f"the table {self._table} gave no tickets: {error}; they are spent") from None
        if not block.replayed:
            self._fences[name] = fence
        return block

    def counter(self, partition: str | None, deadline: Deadline) -> Counter:
        """Read a counter."""
        handler = bundle.handler
        name = self._region if partition is None else partition
        with translated_problems(name):
            request = handler.read_request(self._table, handler.check_name(name))
            item = self._send_until(deadline)("GetItem", request)
            if "Item" not in item:
                raise handler.unknown_counter(name)
            return Counter.from_answer(handler.read_counter(item["Item"]))


@contextmanager
def translated_problems(partition: str | None) -> Iterator[None]:
    """Turn the handler's ``ProblemError`` into an error of ``ticketctl.errors``."""
    try:
        yield
    except bundle.handler.ProblemError as problem:
        raise problem_error(problem.code, problem.detail, partition) from None

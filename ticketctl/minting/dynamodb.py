"""Minting straight from the table, with the handler's own atomic write."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.dynamodb import SendUntil
from ticketctl.deadline import Deadline
from ticketctl.minting.source import problem_error, quoted_key
from ticketctl.models import Block, Counter


class DynamoDBSource:
    """The table of a stack; its default counter has the region's name.

    ``increment`` is the step of the default counter and ``offset`` its first ticket, for its birth. With
    ``None`` it must exist: a counter begins once, in the lane that its stack has now and not in a remembered
    one. ``timeout`` (seconds) bounds each look at a counter.
    """

    def __init__(
        self,
        send_until: SendUntil,
        table: str,
        *,
        region: str,
        increment: int = 1,
        offset: int | None = None,
        timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._send_until = send_until
        self._timeout = timeout
        self._table = table
        self._region = region
        self._increment = increment
        self._offset = offset
        self._clock = clock
        self._fences: dict[str, Any] = {}

    def mint(self, partition: str | None, count: int, *, key: str | None, within: float) -> Block:
        """Take ``count`` tickets in one conditional write; with a ``key`` also read and write its receipt."""
        handler = bundle.handler
        send = self._send_until(Deadline(within))
        name = self._region if partition is None else partition
        offset = self._offset if name == self._region and name not in self._fences else None
        with translated_problems(name):
            fence = self._fences.get(handler.check_name(name), handler.Fence(self._increment))
            handler.check_count(count, handler.MAX_COUNT)
            now_ms = int(self._clock() * 1000)
            if key is None:
                answer, fence = handler.mint(send, self._table, name, count, fence=fence, offset=offset, now_ms=now_ms)
            else:
                key = handler.check_key(quoted_key(key))
                answer, fence = handler.mint_with_key(
                    send, self._table, name, count, key=key, fence=fence, offset=offset, now_ms=now_ms
                )
        block = Block.from_answer(answer)
        if not block.replayed:
            self._fences[name] = fence
        return block

    def counter(self, partition: str | None) -> Counter:
        """Where a counter stands."""
        name = self._region if partition is None else partition
        with translated_problems(name):
            send = self._send_until(Deadline(self._timeout))
            item = send("GetItem", bundle.handler.read_request(self._table, bundle.handler.check_name(name)))
            if "Item" not in item:
                raise bundle.handler.unknown_counter(name)
            return Counter.from_answer(bundle.handler.read_counter(item["Item"]))


@contextmanager
def translated_problems(partition: str | None) -> Iterator[None]:
    """Turn the handler's ``ProblemError`` into an error of ours."""
    try:
        yield
    except bundle.handler.ProblemError as problem:
        raise problem_error(problem.code, problem.detail, partition) from None

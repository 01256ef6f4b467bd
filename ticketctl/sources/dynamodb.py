"""Minting straight from the table, with the handler's own atomic write."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ticketctl import bundle
from ticketctl.aws import errors_in_our_words
from ticketctl.errors import OutcomeUnknownError
from ticketctl.models import Block, Counter
from ticketctl.sources import refusal


class DynamoDBSource:
    """The table of a stack; its default counter has the region's name.

    ``increment`` is the step of counters that begin here and ``offset`` their first ticket. With ``None``
    none may begin: a counter begins once, in the lane that its stack has now and not in a remembered one.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        region: str,
        increment: int = 1,
        offset: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._region = region
        self._increment = increment
        self._offset = offset
        self._clock = clock
        self._lanes: dict[str, Any] = {}

    def mint(self, partition: str | None, count: int) -> Block:
        """Take ``count`` tickets in one conditional write."""
        handler = bundle.handler
        name = self._name(partition)
        may_begin = name == self._region and name not in self._lanes
        with _problems(name):
            answer, self._lanes[name] = handler.mint(
                self._update,
                self._table,
                name,
                handler.check_count(count, handler.MAX_COUNT),
                lane=self._lanes.get(name, handler.Lane(self._increment)),
                offset=self._offset if may_begin else None,
                now_ms=int(self._clock() * 1000),
            )
        return Block.from_answer(answer)

    def counter(self, partition: str | None) -> Counter:
        """Where a counter stands."""
        name = self._name(partition)
        with _problems(name), self._errors(spends=False):
            item = self._client.get_item(**bundle.handler.read_request(self._table, name)).get("Item")
            if item is None:
                raise bundle.handler.unknown_counter(name)
            return Counter.from_answer(bundle.handler.read_counter(item))

    def counters(self) -> Iterator[Counter]:
        """Every counter of the table, a page at a time, in DynamoDB's order."""
        with _problems(None), self._errors(spends=False):
            for page in self._client.get_paginator("scan").paginate(TableName=self._table, ConsistentRead=True):
                for item in page["Items"]:
                    yield Counter.from_answer(bundle.handler.read_counter(item))

    def create(self, partition: str) -> tuple[Counter, bool]:
        """Make a counter in the stack's lane; the counter, and whether it was made now or was there already."""
        handler = bundle.handler
        if self._offset is None:
            raise ValueError("the lane of this stack is not known for sure")
        name, lane = self._name(partition), handler.Lane(self._increment)
        request = handler.create_request(self._table, name, lane, offset=self._offset)
        with _problems(name):
            try:
                item, created = self._update(request)["Attributes"], True
            except handler.ConditionFailedError as refusal:
                item, created = refusal.item or {}, False
            return Counter.from_answer(handler.read_counter(item)), created

    def _name(self, partition: str | None) -> str:
        with _problems(partition):
            return bundle.handler.check_name(self._region if partition is None else partition)

    def _update(self, request: dict[str, Any]) -> Mapping[str, Any]:
        from botocore.exceptions import ClientError

        with self._errors(spends=True):
            try:
                answer: Mapping[str, Any] = self._client.update_item(**request)
            except ClientError as error:
                if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                    raise bundle.handler.ConditionFailedError(error.response.get("Item") or None) from None
                raise
        if "Attributes" not in answer:
            raise OutcomeUnknownError(f"the table {self._table} gave no usable answer; a ticket may have been spent")
        return answer

    def _errors(self, *, spends: bool) -> AbstractContextManager[None]:
        return errors_in_our_words(f"the table {self._table} in {self._region}", spends=spends)


@contextmanager
def _problems(partition: str | None) -> Iterator[None]:
    """Turn the handler's ``ProblemError`` into an error of ours."""
    try:
        yield
    except bundle.handler.ProblemError as problem:
        raise refusal(problem.code, problem.detail, partition) or AssertionError(problem.code) from None

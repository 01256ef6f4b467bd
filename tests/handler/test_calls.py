"""The table of calls in ``docs/performance.md`` is what the handler sends, call by call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.function_url import SETTINGS, event
from tests.support.model_table import ModelTable, item_size
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def keyed(key: str) -> dict[str, Any]:
    return event(method="POST", query="count=100", headers={"idempotency-key": key})


REQUESTS = {
    "`next`, a block of `fetch` or of a lease (retry key)": [keyed("once:1")],
    "HTTP without a key": [event(method="POST")],
    "retry key again, after a lost answer": [keyed("once:1"), keyed("once:1")],
    "typed key, first time": [keyed("a")],
    "typed key again": [keyed("a"), keyed("a")],
    "`/status`": [keyed("once:1"), event("/status")],
}


@pytest.fixture(autouse=True)
def _nothing_learned() -> None:
    handler.FENCES.clear()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_table_of_calls(name: str) -> None:
    """A row counts the calls of its last request; a write unit is 1 KB of the item, a read unit 4 KB."""
    table, calls = ModelTable(SETTINGS.table), list[tuple[str, int]]()
    send = sdk_sender(table, "the table")

    def counted(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        try:
            return send(operation, request)
        finally:
            item = table.rows.get(request["Key"]["partition"]["S"], {})
            calls.append((operation, -(-item_size(item) // (1024 if operation == "UpdateItem" else 4096)) or 1))

    for asked in REQUESTS[name]:
        calls.clear()
        assert handler.respond(asked, SETTINGS, counted)["statusCode"] == 200
    operations = ", ".join(operation for operation, _ in calls)
    writes, reads = (
        sum(units for operation, units in calls if operation == kind) for kind in ("UpdateItem", "GetItem")
    )
    assert f"| {name} | {operations} | {writes} | {reads} |\n" in PAGE.read_text()

"""schemathesis against the real handler over HTTP: nothing that the document does not have, and no ticket twice."""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import openapi
from tests.support.effort import times
from tests.support.function_server import serving
from tests.support.function_url import SETTINGS
from tests.support.model_table import ModelTable
from tests.support.schemathesis_run import schemathesis
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler

Exchange = tuple[dict[str, Any], dict[str, Any]]
"""An event and its answer."""
DEFAULT = "us-east-1"


class Function:
    """The handler with a table in memory; it keeps every exchange. Its counters are the document's examples.

    Most requests have the document's example of a key. So that not all of them end in a conflict, every other conflict
    makes the table forget its keys, as it does in time, and the request is answered anew.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        items = {
            name: {"partition": {"S": name}, "hand_crafted_int": {"N": "7"}} for name in (DEFAULT, "orders", "invoices")
        }
        self._table = ModelTable(SETTINGS.table, rows=items)
        self._send = sdk_sender(self._table, "the table")
        self._forgets = itertools.cycle([True, False])

    def respond(self, event: dict[str, Any]) -> dict[str, Any]:
        answer = handler.respond(event, SETTINGS, self._send)
        if "idempotency_conflict" in answer["body"] and next(self._forgets):
            self._forget_keys()
            answer = handler.respond(event, SETTINGS, self._send)
        self.exchanges.append((event, answer))
        return answer

    def _forget_keys(self) -> None:
        counters = {name: item for name, item in self._table.rows.items() if not name.startswith(handler.RECEIPT)}
        register = set(handler.REGISTER_NAMES.values())
        self._table.rows = {
            name: {field: value for field, value in item.items() if field not in register}
            for name, item in counters.items()
        }


@pytest.fixture
def function() -> Iterator[Function]:
    handler.FENCES.clear()
    yield Function()
    handler.FENCES.clear()


def run(function: Function, folder: Path, *options: str) -> Counter[tuple[str, str, int]]:
    """Run schemathesis; how often each method, path and status was seen."""
    with serving(function.respond) as url:
        schemathesis(url, folder, *options)
    seen: Counter[tuple[str, str, int]] = Counter()
    for event, answer in function.exchanges:
        method, path = event["requestContext"]["http"]["method"], event["rawPath"]
        openapi.check(path, method, answer)
        seen[method, path, answer["statusCode"]] += 1
    return seen


def check_tickets(exchanges: list[Exchange]) -> None:
    """Fail if a ticket was issued twice, or if a replay is not the last mint with its key."""
    issued = defaultdict[str, list[int]](list)
    minted: dict[str, dict[str, Any]] = {}
    replays = 0
    for event, answer in exchanges:
        if event["rawPath"] != "/" or answer["statusCode"] != 200:
            continue
        block = json.loads(answer["body"])
        key = handler.check_key(event["headers"].get("idempotency-key", "none").strip())  # one key, quoted or bare
        if block.get("replayed"):
            assert block == minted[key] | {"replayed": True}
            replays += 1
        else:
            issued[block["partition"]] += range(block["first"], block["last"] + 1, block["increment"])
            minted[key] = block
    assert replays
    assert all(len(tickets) == len(set(tickets)) for tickets in issued.values())


def test_every_answer_as_text_is_documented(function: Function, tmp_path: Path) -> None:
    """A reader of plain text gets documented answers too."""
    options = ("--phases", "examples,fuzzing", "--header", "Accept: text/plain", "--max-examples", str(times(3)))
    run(function, tmp_path, *options)
    kinds = {answer["headers"]["Content-Type"] for _, answer in function.exchanges if answer["statusCode"] == 200}
    assert kinds == {"text/plain; charset=utf-8"}


@pytest.mark.heavy
def test_every_answer_is_documented(function: Function, tmp_path: Path) -> None:
    """Sound and broken requests, alone and in sequences, get only documented answers, and no ticket comes twice."""
    seen = run(function, tmp_path, "--max-examples", str(times(300)))
    assert {status for _, path, status in seen if path == "/"} == {200, 400, 404, 405, 409}
    assert {status for _, path, status in seen if path == "/status"} == {200, 400, 404, 405}
    check_tickets(function.exchanges)

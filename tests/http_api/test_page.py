"""docs/http-api.md: its programs run as they stand, and its tables say what the document says."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.function_server import serving
from tests.support.function_url import SETTINGS
from tests.support.http_api_page import PAGE, Program, programs
from tests.support.model_table import ModelTable
from tests.support.openapi import document
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler


def item(name: str, last: int, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"partition": {"S": name}, "hand_crafted_int": {"N": str(last)}, **more}}


ORDERS = item("orders", 1000, increment={"N": "2"}, ceiling={"N": "9999"})


class Function:
    """The handler with a table in memory; it keeps the keys of the requests."""

    def __init__(self, **more: dict[str, Any]) -> None:
        rows = {**item("us-east-1", 41, **more), **ORDERS, **item("invoices", 17)}
        self.table = ModelTable(SETTINGS.table, rows=rows)
        self._send = sdk_sender(self.table, "the table")
        self.keys: list[str | None] = []

    def respond(self, event: dict[str, Any]) -> dict[str, Any]:
        self.keys.append(event["headers"].get("idempotency-key"))
        return handler.respond(event, SETTINGS, self._send)


class Unreliable(Function):
    """The first request gets a 503, the answer to the second is lost."""

    def respond(self, event: dict[str, Any]) -> dict[str, Any]:
        if not self.keys:
            self.keys.append(event["headers"].get("idempotency-key"))
            return {"statusCode": 503, "headers": {}, "body": ""}
        answer = super().respond(event)
        return answer if len(self.keys) > 2 else {"statusCode": 502, "headers": {}, "body": "Bad gateway"}


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """The function starts without what it has learned of counters, as in a new execution environment."""
    handler.FENCES.clear()
    yield
    handler.FENCES.clear()


OPEN = [program for program in programs() if not program.signs]
CLIENTS = [program for program in OPEN if program.language != "sh"]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_print_what_the_page_shows() -> None:
    """Run one after another, the commands print the page's output."""
    commands = [program for program in OPEN if program.language == "sh"]
    with serving(Function().respond) as url:
        printed = [program.run(url, {}).stdout for program in commands]
    shown = [re.sub(r'("minted_at": )\d+', r"\1…", program.output) for program in commands]
    assert len(commands) >= 6
    assert [re.sub(r'("minted_at": )\d+', r"\1…", text) for text in printed] == shown


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.language)
def test_a_client_retries_and_spends_one_ticket(client: Program) -> None:
    """After a 503 and a lost answer the same key gets the ticket that the lost answer had."""
    function = Unreliable()
    with serving(function.respond) as url:
        run = client.run(url, {})
    assert (run.stdout, run.stderr) == ("42\n", "")
    assert len(function.keys) == 3
    assert len(set(function.keys)) == 1
    assert function.table.rows["us-east-1"]["hand_crafted_int"] == {"N": "42"}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.language)
def test_a_client_does_not_retry_what_stays_the_same(client: Program) -> None:
    """A refusal ends the client at once."""
    function = Function(frozen={"BOOL": True})
    with serving(function.respond) as url:
        run = client.run(url, {})
    assert (run.returncode, run.stdout, len(function.keys)) == (1, "", 1)


def test_the_table_of_errors_is_the_handlers() -> None:
    """The page has every code with its status, in a row of its own."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted((code, int(status)) for status, code in rows) == sorted(handler.STATUS.items())


def test_the_page_shows_every_field() -> None:
    """The fields that the page explains are those of the document."""
    text, schemas = PAGE.read_text(encoding="utf-8"), document()["components"]["schemas"]
    fields = {name for schema in ("Block", "Counter", "MintRequest") for name in schemas[schema]["properties"]}
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []

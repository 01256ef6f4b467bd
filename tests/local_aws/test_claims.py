"""Claims against the embedded AWS: every number in exactly one record, whatever is lost or killed on the way."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.effort import times
from tests.support.embedded_aws import REGION, Connect, table_resource
from tests.support.faulty_proxy import SEED, FaultyProxy, first, proxy_to, sometimes
from ticketctl import AsyncTicketClient, TicketClient
from ticketctl.aws.account import Aws
from ticketctl.client.aio import async_minter
from ticketctl.client.sync import open_regions, resolve_client_settings
from ticketctl.deadline import Deadline
from ticketctl.embedded.engine import Engine
from ticketctl.errors import ClaimRefusedError, CounterFrozenError, CounterGaplessError, RefusedError, UsageError
from ticketctl.minting.claim import Claims, Writes
from ticketctl.aws.dynamodb import timed_sdk_sender

BILLS = "Bills"
"""The caller's own table, for the whole module: its key is ``partition``, ``<counter>/<number>``."""


@pytest.fixture(scope="module")
def stack(ticketctl: Ticketctl, aws: Aws) -> str:
    """One stack for the module, and the caller's own table."""
    properties = table_resource(BILLS)["Properties"]
    aws.client("dynamodb").create_table(**properties)
    assert ticketctl("deploy", "--local", "--stack", "claims", "--yes").code == 0
    return "claims"


@pytest.fixture
def name(stack: str, ticketctl: Ticketctl, request: pytest.FixtureRequest) -> str:
    """A new gapless counter."""
    name = request.node.name
    assert ticketctl("counter", "create", name, "--gapless", "--local", "--stack", stack).code == 0
    return name


def bill(name: str, who: str = "", table: str = BILLS) -> Writes:
    """Put one record for each number, unless there is one."""

    def writes(number: int) -> list[dict[str, Any]]:
        record = {"partition": {"S": f"{name}/{number}"}, "number": {"N": str(number)}, "who": {"S": who}}
        return [{"Put": {"TableName": table, "Item": record, "ConditionExpression": "attribute_not_exists(#p)",
                         "ExpressionAttributeNames": {"#p": "partition"}}}]

    return writes


def records(aws: Aws, name: str) -> dict[int, str]:
    """Who made the record of each number."""
    pages = aws.client("dynamodb").get_paginator("scan").paginate(TableName=BILLS, ConsistentRead=True)
    items = [item for page in pages for item in page["Items"] if item["partition"]["S"].startswith(f"{name}/")]
    return {int(item["number"]["N"]): item["who"]["S"] for item in items}


@pytest.fixture
def client(environ: dict[str, str], engine: Engine, stack: str) -> Iterator[TicketClient]:
    assert engine.port
    _, settings = resolve_client_settings({"local": True, "stack": stack, "timeout": 30}, environ)
    with TicketClient(lambda: open_regions(settings, environ), timeout=30) as tickets:
        yield tickets


def test_smoke(client, name, aws):
    assert [client.claim(bill(name, "me"), partition=name) for _ in range(3)] == [1, 2, 3]
    assert records(aws, name) == {1: "me", 2: "me", 3: "me"}
    print(client.counter(name), client.counters())
    t=time.time()
    for _ in range(100): client.claim(bill(name, "me"), partition=name)
    print("per claim ms", (time.time()-t)*10)

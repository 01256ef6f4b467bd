"""``docs/recipes/fastapi.md``: the application and its lifespan, without a socket."""

import re
import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import Run
from tests.support.recipes import copied, session

REQUESTS = """
from app import app
from concurrent.futures import ThreadPoolExecutor
from fastapi.testclient import TestClient

with TestClient(app) as client:
    def order(key=None):
        answer = client.post("/orders", headers={"Idempotency-Key": key} if key else {})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    print(order(), order("cart-17"), order("cart-17"))
    print(order("cart-17") == order("cart-17") != order("cart-18"))
    with ThreadPoolExecutor(8) as pool:
        print(len(set(pool.map(lambda _: order(), range(200)))))
    print(client.post("/orders", headers={"Idempotency-Key": "a b"}).status_code)
"""
OUTAGE = """
from app import app
from fastapi.testclient import TestClient

with TestClient(app) as client:
    for headers in ({}, {"Idempotency-Key": "cart-17"}):
        answer = client.post("/orders", headers=headers)
        print(answer.status_code, answer.headers["Retry-After"], answer.json())
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    copied("fastapi", tmp_path)


def test_requests(run: Run) -> None:
    """The ids are those of the page. Requests at the same time get different ids; the same key gets the same id."""
    shown = re.findall(r'{"id":(\d+)}', session("fastapi"))
    assert run(sys.executable, "-c", REQUESTS) == f"{' '.join(shown)}\nTrue\n200\n422\n"


def test_an_outage(run: Run) -> None:
    """If the ticket server cannot be reached, the client is told to try again."""
    nowhere = {"TICKETCTL_URL": "http://127.0.0.1:1/", "TICKETCTL_TIMEOUT": "0.2"}
    told = "503 1 {'detail': 'no id can be had at the moment'}\n"
    assert run(sys.executable, "-c", OUTAGE, **nowhere) == told * 2

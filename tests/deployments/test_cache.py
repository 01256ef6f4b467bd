"""``cache``: what is known of deployed stacks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ticketctl.deployments.cache import StackCache, key_of
from ticketctl.errors import FileError
from ticketctl.models import StackOutputs

TICKETS = StackOutputs(
    account="123456789012",
    region="us-east-1",
    stack="Tickets",
    url="https://abc.lambda-url.us-east-1.on.aws/",
    auth="AWS_IAM",
    table="Tickets",
    offset=1,
    increment=1,
    max_count=10_000,
)


@pytest.fixture
def cache(tmp_path: Path) -> StackCache:
    return StackCache(tmp_path / "stacks.json")


def test_nothing_known(cache: StackCache) -> None:
    """Without a file nothing is known, and asking writes none."""
    assert cache.path
    assert (cache.get("here"), cache.path.exists()) == (None, False)


def test_put_and_get(cache: StackCache) -> None:
    """What was put is there for the next process, under its own key alone."""
    cache.put("here", TICKETS)
    later = StackCache(cache.path)
    assert (later.get("here"), later.get("there")) == (TICKETS, None)


def test_forget(cache: StackCache) -> None:
    """Forgetting one stack keeps the others."""
    cache.put("here", TICKETS)
    cache.put("there", TICKETS)
    cache.put("here", None)
    assert (cache.get("here"), cache.get("there")) == (None, TICKETS)


def test_file(cache: StackCache) -> None:
    """The file says its version."""
    cache.put("here", TICKETS)
    assert cache.path
    assert json.loads(cache.path.read_text(encoding="utf-8")) == {
        "version": 1,
        "stacks": {
            "here": {
                "account": "123456789012",
                "region": "us-east-1",
                "stack": "Tickets",
                "url": "https://abc.lambda-url.us-east-1.on.aws/",
                "auth": "AWS_IAM",
                "table": "Tickets",
                "offset": 1,
                "increment": 1,
                "max_count": 10_000,
            }
        },
    }


@pytest.mark.parametrize(
    "document",
    [
        [],
        "stacks",
        {},
        {"version": 2, "stacks": {}},
        {"version": 1},
        {"version": 1, "stacks": ["here"]},
        {"version": 1, "stacks": {"here": []}},
        {"version": 1, "stacks": {"here": {"url": "https://tickets.example"}}},
        {"version": 1, "stacks": {"here": {"colour": "red"}}},
    ],
)
def test_another_file(cache: StackCache, document: Any) -> None:
    """A file that is no cache of this version is an error that names it and says to remove it."""
    assert cache.path
    cache.path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(FileError, match=re.escape(str(cache.path))) as caught:
        cache.get("here")
    assert caught.value.hint == "remove the file: it is a cache"


def test_broken_file(cache: StackCache) -> None:
    """A file that is not JSON is an error that names it and says to remove it."""
    assert cache.path
    cache.path.write_text("{", encoding="utf-8")
    with pytest.raises(FileError, match=re.escape(f"{cache.path} cannot be read")) as caught:
        cache.put("here", TICKETS)
    assert caught.value.hint == "remove the file: it is a cache"


def test_key() -> None:
    """A key says who asks for what and where, with the access key as a hash."""
    key = key_of(
        stack="Tickets",
        region="us-east-1",
        endpoint=None,
        profile="work",
        environ={"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"},
    )
    assert key == "aws|work|86e4b15fe47b|us-east-1|Tickets"


@pytest.mark.parametrize(
    "other",
    [
        {"stack": "orders"},
        {"region": "eu-west-1"},
        {"endpoint": "http://127.0.0.1:4566"},
        {"profile": "work"},
        {"environ": {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}},
        {"environ": {"AWS_CONFIG_FILE": "other"}},
        {"environ": {"AWS_SHARED_CREDENTIALS_FILE": "other"}},
        {"environ": {"AWS_ROLE_ARN": "other"}},
    ],
)
def test_keys_differ(other: dict[str, Any]) -> None:
    """Another stack, region, endpoint, profile or access key is another entry."""
    asked: dict[str, Any] = {
        "stack": "Tickets",
        "region": "us-east-1",
        "endpoint": None,
        "profile": None,
        "environ": {},
    }
    assert key_of(**asked) != key_of(**asked | other)


def test_no_home() -> None:
    """Without a folder nothing is known, and what is to be remembered is not."""
    cache = StackCache(None)
    cache.put("here", TICKETS)
    assert cache.get("here") is None

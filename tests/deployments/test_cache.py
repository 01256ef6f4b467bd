"""``cache``: it never raises an error, and processes do not lose each other's entries."""

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ticketctl.deployments.cache import RegionsCache, StackCache, cache_path, key_of
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
ENTRY = asdict(TICKETS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stacks.json"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(path: Path, said: list[str]) -> StackCache:
    return StackCache(path, said.append)


def test_nothing_known(cache: StackCache, path: Path, said: list[str]) -> None:
    """If there is no file, nothing is cached, and reading or forgetting does not create the file."""
    cache.put("here", None)
    assert (cache.get("here"), path.exists(), said) == (None, False, [])


def test_put_and_get(cache: StackCache, path: Path) -> None:
    """An entry is there for the next process, under its own key only."""
    cache.put("here", TICKETS)
    later = StackCache(path)
    assert (later.get("here"), later.get("there")) == (TICKETS, None)


def test_forget(cache: StackCache) -> None:
    """Forgetting one stack keeps the other entries."""
    cache.put("here", TICKETS)
    cache.put("there", TICKETS)
    cache.put("here", None)
    assert (cache.get("here"), cache.get("there")) == (None, TICKETS)


def test_file(cache: StackCache, path: Path) -> None:
    """The file contains its version, and only its owner may read it."""
    cache.put("here", TICKETS)
    assert json.loads(path.read_text(encoding="utf-8")) == {"version": 1, "stacks": {"here": ENTRY}}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b'"stacks"',
        b"{}",
        b'{"version": 2, "stacks": {}}',
        b'{"version": 1}',
        b'{"version": 1, "stacks": ["here"]}',
    ],
)
def test_damaged_file(cache: StackCache, path: Path, said: list[str], content: bytes) -> None:
    """A file that is damaged or of another version counts as empty, causes a note, and the next write replaces it."""
    path.write_bytes(content)
    assert cache.get("here") is None
    assert len(said) == 1
    assert str(path) in said[0]
    cache.put("here", TICKETS)
    assert cache.get("here") == TICKETS


@pytest.mark.parametrize(
    "entry",
    [
        [],
        5,
        {"url": "https://tickets.example"},
        {"colour": "red"},
        {**ENTRY, "url": 5},
        {**ENTRY, "max_count": "5"},
        {**ENTRY, "offset": None},
        {**ENTRY, "offset": -1},
        {**ENTRY, "increment": 0},
        {**ENTRY, "max_count": 0},
        {**ENTRY, "table": ""},
        {**ENTRY, "region": "a\x1b"},
        {**ENTRY, "url": "javascript:x"},
        {**ENTRY, "url": "https://[x"},
        {**ENTRY, "url": "https://tickets.example:99999/"},
    ],
)
def test_damaged_entry(cache: StackCache, path: Path, said: list[str], entry: Any) -> None:
    """An entry with a missing or invalid field is ignored with a note; the other entries are kept."""
    path.write_text(json.dumps({"version": 1, "stacks": {"here": entry, "there": ENTRY}}), encoding="utf-8")
    assert (cache.get("here"), cache.get("there")) == (None, TICKETS)
    assert said == [f"ignored the entry here of {path}: it is not of this version"]


@pytest.mark.parametrize("name", ["stacks.json", "stacks.json.lock"])
def test_pipe_in_place_of_a_file(cache: StackCache, path: Path, said: list[str], name: str) -> None:
    """A named pipe in place of the file does not block a mint: nothing is cached, and there is a note."""
    os.mkfifo(path.with_name(name))
    cache.put("here", TICKETS)
    assert cache.get("here") is None or name == "stacks.json"
    assert said


def test_field_of_a_later_version(cache: StackCache, path: Path, said: list[str]) -> None:
    """A field that a later version added is ignored."""
    path.write_text(json.dumps({"version": 1, "stacks": {"here": {**ENTRY, "colour": "red"}}}), encoding="utf-8")
    assert (cache.get("here"), said) == (TICKETS, [])


def test_unwritable_folder(tmp_path: Path, said: list[str]) -> None:
    """If the folder is not writable, nothing is cached; that is a note, not an error."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    cache = StackCache(tmp_path / "file" / "stacks.json", said.append)
    cache.put("here", TICKETS)
    assert cache.get("here") is None
    assert said[0].startswith("the cache was not updated: ")


def test_unreadable_file(path: Path, said: list[str]) -> None:
    """If there is a folder in place of the file, nothing is cached; that is a note, not an error."""
    path.mkdir()
    cache = StackCache(path, said.append)
    cache.put("here", TICKETS)
    assert cache.get("here") is None
    assert [line.startswith(f"ignored the cache {path}: ") for line in said] == [True, False, True]
    assert said[1].startswith("the cache was not updated: ")


def test_no_folder(said: list[str]) -> None:
    """Without a folder for the cache, nothing is cached."""
    path = cache_path("stacks.json", {"TICKETCTL_HOME": "~nobody-of-this-name/x"}, said.append)
    cache = StackCache(path, said.append)
    cache.put("here", TICKETS)
    assert (path, cache.get("here"), len(said)) == (None, None, 1)
    assert said[0].startswith("no cache: TICKETCTL_HOME")


def test_lock_held_by_a_process_that_hangs(cache: StackCache, path: Path, said: list[str]) -> None:
    """If another process never releases the lock, a mint waits only a second and succeeds."""
    with path.with_name("stacks.json.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.put("here", TICKETS)
    assert (cache.get("here"), path.exists()) == (None, False)
    assert said[0].startswith("the cache was not updated: ")


def test_processes_keep_each_others_entries(path: Path) -> None:
    """After four processes have written 25 entries each at the same time, all 100 entries are there."""
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from ticketctl.deployments import cache as module\n"
        "from ticketctl.models import StackOutputs\n"
        "module.CACHE_LOCK_SECONDS = 30.0  # on a busy machine the others take longer than a mint would wait\n"
        "tickets = StackOutputs(**json.loads(sys.argv[3]))\n"
        "cache = module.StackCache(Path(sys.argv[1]), sys.exit)\n"
        "sys.stdin.readline()\n"
        "for number in range(25):\n"
        "    cache.put(f'{sys.argv[2]}-{number}', tickets)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name, json.dumps(ENTRY)], stdin=subprocess.PIPE)
        for name in "abcd"
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 4
    stacks = json.loads(path.read_text(encoding="utf-8"))["stacks"]
    assert stacks.keys() == {f"{name}-{number}" for name in "abcd" for number in range(25)}


def test_regions(path: Path) -> None:
    """The regions of a stack keep their order; a reset of the embedded AWS forgets only its own stacks."""
    cache = RegionsCache(path)
    cache.put("embedded|Tickets", ["b", "a"])
    cache.put("aws|Tickets", ["d", "c"])
    assert cache.get("embedded|Tickets") == ("b", "a")
    cache.forget_embedded()
    assert (cache.get("embedded|Tickets"), cache.get("aws|Tickets")) == ((), ("d", "c"))


@pytest.mark.parametrize("regions", ["us-east-1", 5, ["us-east-1", 5], {"us-east-1": 1}])
def test_damaged_regions(path: Path, regions: Any) -> None:
    """If the regions in the file are not a list of names, they are ignored."""
    path.write_text(json.dumps({"version": 1, "regions": {"here": regions}}), encoding="utf-8")
    assert RegionsCache(path).get("here") == ()


def test_key() -> None:
    """A key consists of the region, the stack, and the profile or a hash of the access key."""
    environ = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}
    keys = [
        key_of(stack="Tickets", region="us-east-1", endpoint=None, profile=profile, environ=environ)
        for profile in ("work", None)
    ]
    assert keys == ["aws|work||us-east-1|Tickets", "aws||86e4b15fe47b|us-east-1|Tickets"]


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
    """A different stack, region, endpoint, profile or access key has a different entry."""
    asked: dict[str, Any] = {
        "stack": "Tickets",
        "region": "us-east-1",
        "endpoint": None,
        "profile": None,
        "environ": {},
    }
    assert key_of(**asked) != key_of(**asked | other)


def test_a_stack_without_url(cache: StackCache, path: Path) -> None:
    """A table-only stack is cached; an entry whose URL is missing or is not a string is ignored."""
    table_only = replace(TICKETS, url=None)
    cache.put("here", table_only)
    assert StackCache(path).get("here") == table_only
    without = {name: value for name, value in ENTRY.items() if name != "url"}
    for damaged in (without, {**ENTRY, "url": False}, {**ENTRY, "url": ""}, {**ENTRY, "offset": None}):
        path.write_text(json.dumps({"version": 1, "stacks": {"here": damaged}}))
        assert cache.get("here") is None

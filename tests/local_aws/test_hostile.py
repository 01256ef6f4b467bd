"""Hostile requests and command lines: each is rejected with its code, and no item of the table changes."""

import gzip
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine
from ticketctl.handler import handler
from ticketctl.settings import resolve

STACK = "hostile"
MAX = 2**53 - 1
Items = dict[str, Any]
Headers = list[tuple[str, str | bytes]]


class Server(NamedTuple):
    """The deployed function, its table, and the signer of its requests."""

    url: str
    aws: Aws
    items: Callable[[], Items]

    def ask(
        self, method: str, path: str, headers: Headers, body: bytes, *, signed: bool
    ) -> tuple[int, str | None, bytes]:
        """Send one request unchanged; return status, content type and body of the answer."""
        base = urlsplit(self.url)
        assert base.hostname
        own = self.aws.signed_headers(method, self.url.rstrip("/") + path, {}, body, Deadline(60)) if signed else {}
        with closing(http.client.HTTPConnection(base.hostname, base.port, timeout=30)) as connection:
            connection.putrequest(method, base.path.rstrip("/") + path, skip_accept_encoding=True)
            for name, value in [*own.items(), *headers]:
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type"), answer.read()


def number(value: int | str) -> dict[str, str]:
    return {"N": str(value)}


def counter(name: str, **attributes: Any) -> dict[str, Any]:
    return {"partition": {"S": name}, "hand_crafted_int": number(7), **attributes}


SEEDS = [
    counter(REGION),
    counter("frozen", frozen={"BOOL": True}),
    counter("gapless", frozen={"S": "gapless"}),
    counter("full", ceiling=number(7)),
    counter("nearly", ceiling=number(9)),
    counter("last", hand_crafted_int=number(MAX)),
    counter("beyond", hand_crafted_int=number(MAX + 10)),
    counter("no number", hand_crafted_int={"S": "7"}),
    counter("fraction", hand_crafted_int=number("7.5")),
    counter("still", increment=number(0)),
    counter("backwards", increment=number(-1)),
    counter("caf\N{REPLACEMENT CHARACTER}"),
    {
        "partition": {"S": "receipt#used"},
        "counter": {"S": REGION},
        **{name: number(7) for name in ("first", "last")},
        **{name: number(1) for name in ("count", "increment")},
        "expires_at": number(10**11),
    },
]


@pytest.fixture(scope="module")
def server(environ: dict[str, str], engine: Engine) -> Iterator[Server]:
    """One deployed stack for the module, with counters that are valid, frozen, exhausted and damaged."""
    assert engine.port
    settings = resolve({"local": True, "timeout": 60, "stack": STACK}, environ)
    with RegionalStack(Session(settings, environ=environ)) as connection:
        table = connection.locator.look_up().table
        client = connection.session.aws.client("dynamodb")
        for item in SEEDS:
            client.put_item(TableName=table, Item=item)

        def items() -> Items:
            found = client.scan(TableName=table, ConsistentRead=True)["Items"]
            return {item["partition"]["S"]: item for item in found}

        yield Server(connection.url(), connection.session.aws, items)


class Ask(NamedTuple):
    """A request and its expected answer; if ``code`` is ``None``, it is rejected before it reaches the function."""

    status: int
    code: str | None
    query: str = ""
    body: bytes = b""
    method: str = "POST"
    path: str = "/"
    headers: Headers = []  # noqa: RUF012 - never changed
    signed: bool = True


def bad(query: str = "", body: bytes = b"", **more: Any) -> Ask:
    return Ask(400, "bad_request", query, body, **more)


def unknown(name: str, **more: Any) -> Ask:
    return Ask(404, "unknown_counter", f"partition={quote(name, safe='')}", **more)


def of(name: str, status: int, code: str, **more: Any) -> Ask:
    return Ask(status, code, f"partition={quote(name)}", **more)


def keyed(*keys: str | bytes, status: int = 400, code: str | None = "bad_request", query: str = "") -> Ask:
    return Ask(status, code, query, headers=[("Idempotency-Key", key) for key in keys])


def method(name: str, path: str = "/", **more: Any) -> Ask:
    return Ask(405, "method_not_allowed", method=name, path=path, **more)


def path(name: str, **more: Any) -> Ask:
    return Ask(404, "not_found", path=name, **more)


NINES = "9" * 10_000
REQUESTS: dict[str, Ask] = {
    # counts in the query
    "no count": bad("count="),
    "count without =": bad("count"),
    "count 0": bad("count=0"),
    "count -1": bad("count=-1"),
    "count -0": bad("count=-0"),
    "count +1": bad("count=%2B1"),
    "count with spaces": bad("count=%201"),
    "count with a newline": bad("count=1%0A"),
    "count with a NUL": bad("count=1%00"),
    "count 01": bad("count=01"),
    "count 1.0": bad("count=1.0"),
    "count 1e3": bad("count=1e3"),
    "count 1_0": bad("count=1_0"),
    "count 0x1": bad("count=0x1"),
    "count NaN": bad("count=NaN"),
    "count Infinity": bad("count=Infinity"),
    "count true": bad("count=true"),
    "count null": bad("count=null"),
    "count 1;2": bad("count=1;count=2"),
    "count a list": bad("count%5B%5D=1"),
    "one too many": bad("count=10001"),
    "count 2**32 + 1": bad(f"count={2**32 + 1}"),
    "count 2**53 + 1": bad(f"count={2**53 + 1}"),
    "count 2**64 + 1": bad(f"count={2**64 + 1}"),
    "count -2**63": bad(f"count={-(2**63)}"),
    "count of 10,000 digits": bad(f"count={NINES}"),
    "Arabic digit": bad("count=" + quote("\u0661")),
    "fullwidth digit": bad("count=" + quote("\uff11")),
    "superscript digit": bad("count=" + quote("\u00b9")),
    "mathematical digit": bad("count=" + quote("\U0001d7cf")),
    # counts in the body
    "JSON count 2**53 + 1": bad(body=b'{"count": 9007199254740993}'),
    "JSON count 1e400": bad(body=b'{"count": 1e400}'),
    "JSON count 1.5": bad(body=b'{"count": 1.5}'),
    "JSON count 1e300": bad(body=b'{"count": 1e300}'),
    "JSON count true": bad(body=b'{"count": true}'),
    "JSON count as text": bad(body=b'{"count": "1"}'),
    "JSON count null": bad(body=b'{"count": null}'),
    "JSON count NaN": bad(body=b'{"count": NaN}'),
    "JSON count a list": bad(body=b'{"count": [1]}'),
    "JSON count of 10,000 digits": bad(body=f'{{"count": {NINES}}}'.encode()),
    "JSON count Arabic": bad(body='{"count": \u0661}'.encode()),
    # names
    "no name": bad("partition="),
    "NUL as a name": bad("partition=%00"),
    "NUL in a name": bad(f"partition={REGION}%00"),
    "newline in a name": bad(f"partition={REGION}%0A"),
    "escape in a name": bad("partition=%1B%5B31m"),
    "DEL in a name": bad("partition=a%7F"),
    "C1 control in a name": bad("partition=a%C2%85"),
    "256 characters": bad(f"partition={'a' * 256}"),
    "10,000 characters": bad(f"partition={'a' * 10_000}"),
    "a receipt": bad("partition=receipt%23used"),
    "a receipt's status": bad("partition=receipt%23used", path="/status", method="GET"),
    "a receipt in JSON": bad(body=b'{"partition": "receipt\\u0023used"}'),
    "Latin-1 name": bad("partition=caf%E9"),
    "overlong UTF-8": bad("partition=%C0%AF"),
    "UTF-8 of a surrogate": bad("partition=%ED%A0%80"),
    "JSON surrogate": bad(body=b'{"partition": "\\ud800"}'),
    "JSON NUL": bad(body=b'{"partition": "a\\u0000"}'),
    "a name for DynamoDB": bad(body=b'{"partition": {"S": "us-east-1"}}'),
    "a list of names": bad(body=b'{"partition": ["us-east-1"]}'),
    "number as a name": bad(body=b'{"partition": 7}'),
    "255 emoji": unknown("\U0001f600" * 255),
    "other case": unknown(REGION.upper()),
    "trailing space": unknown(f"{REGION} "),
    "soft hyphens": unknown(REGION.replace("-", "\u2011")),
    "zero-width space": unknown(f"{REGION}\u200b"),
    "fullwidth name": unknown("\uff55s-east-1"),
    "other case of a receipt": unknown("Receipt#used"),
    "path as a name": unknown("../us-east-1"),
    "expression as a name": unknown("#last = :start"),
    "shell as a name": unknown("'; ticketctl destroy --yes #"),
    "status of an unknown": unknown("nobody", path="/status", method="GET"),
    # counters
    "frozen": of("frozen", 409, "counter_frozen"),
    "gapless": of("gapless", 409, "counter_gapless"),
    "frozen with a key": Ask(409, "counter_frozen", "partition=frozen", headers=[("Idempotency-Key", "f")]),
    "full": of("full", 409, "counter_exhausted"),
    "nearly full": Ask(409, "counter_exhausted", "partition=nearly&count=3"),
    "nearly full with a key": Ask(
        409, "counter_exhausted", "partition=nearly&count=3", headers=[("Idempotency-Key", "n")]
    ),
    "at 2**53 - 1": of("last", 409, "counter_exhausted"),
    "beyond 2**53 - 1": of("beyond", 409, "counter_exhausted"),
    "no number": of("no number", 409, "counter_invalid"),
    "increment 0": of("still", 409, "counter_invalid"),
    "increment -1": of("backwards", 409, "counter_invalid"),
    # keys
    "empty key": keyed(""),
    "empty quoted key": keyed('""'),
    "key of spaces": keyed("   "),
    "open quotes": keyed('"a'),
    "text after the quotes": keyed('"a";b=1'),
    "bad escape": keyed('"\\a"'),
    "comma in a bare key": keyed("a,b"),
    "two keys": keyed("a", "b"),
    "two quoted keys": keyed('"a"', '"a"'),
    "256 characters of key": keyed("a" * 256),
    "non-ASCII key": keyed("\u00e9".encode()),
    "Latin-1 key": keyed(b"\xe9"),
    "NUL in a key": keyed("a\x00", code=None),
    "key of another count": keyed("used", status=409, code="idempotency_conflict", query="count=2"),
    "key of another counter": keyed('"used"', status=409, code="idempotency_conflict", query="partition=nearly"),
    # fields
    "count twice": bad("count=1&count=1"),
    "name twice": bad(f"partition={REGION}&partition=orders"),
    "JSON count twice": bad(body=b'{"count": 1, "count": 1}'),
    "JSON name twice, once escaped": bad(body=b'{"partition": "a", "\\u0070artition": "us-east-1"}'),
    "count in query and body": bad("count=1", b'{"count": 1}'),
    "other case of a field": bad("Count=1"),
    "mistyped field": bad("partiton=orders"),
    "nameless field": bad("=1"),
    "the attribute": bad("hand_crafted_int=1"),
    "the lane": bad(body=b'{"increment": -1}'),
    "the table": bad(body=b'{"table": "Tickets"}'),
    "the prototype": bad(body=b'{"__proto__": {"count": 1}}'),
    "half a percent": bad("%=1"),
    "no UTF-8 in a field": bad("%FF=1"),
    "field beside a signature's": bad("X-Amz-Expires=60&count=0"),
    # bodies
    "JSON list": bad(body=b"[]"),
    "JSON text": bad(body=b'"count"'),
    "JSON null": bad(body=b"null"),
    "JSON number": bad(body=b"1"),
    "half a body": bad(body=b'{"count": 1'),
    "two bodies": bad(body=b"{}{}"),
    "form": bad(body=b"count=1", headers=[("Content-Type", "application/x-www-form-urlencoded")]),
    "XML": bad(body=b"<count>1</count>", headers=[("Content-Type", "application/xml")]),
    "gzip": bad(body=gzip.compress(b"{}"), headers=[("Content-Encoding", "gzip")]),
    "UTF-16": bad(body='{"count": 1}'.encode("utf-16")),
    "byte order mark": bad(body=b"\xef\xbb\xbf{}"),
    "Latin-1": bad(body=b'{"partition": "caf\xe9"}'),
    "Latin-1 that says JSON": bad(body=b'{"partition": "caf\xe9"}', headers=[("Content-Type", "application/json")]),
    "Latin-1 that says text": bad(body=b'{"partition": "caf\xe9"}', headers=[("Content-Type", "text/plain")]),
    "NUL": bad(body=b"\x00"),
    "100,000 brackets": bad(body=b"[" * 100_000),
    "100,000 objects": bad(body=b'{"count":' * 100_000),
    # methods and paths
    "DELETE": method("DELETE"),
    "PUT": method("PUT", body=b"{}"),
    "PATCH": method("PATCH"),
    "OPTIONS": method("OPTIONS"),
    "PROPFIND": method("PROPFIND"),
    "PUT that says POST": method("PUT", headers=[("X-HTTP-Method-Override", "POST")]),
    "POST to the status": method("POST", "/status"),
    "favicon": path("/favicon.ico", method="GET"),
    "robots": path("/robots.txt", method="GET"),
    "two slashes": path("//"),
    "escaped slash": path("/%2F"),
    "dots": path("/../"),
    "escaped dots": path("/%2e%2e/"),
    "NUL in the path": path("/%00"),
    "status with a slash": path("/status/", method="GET"),
    "other case of the status": path("/STATUS", method="GET"),
    "path that says /": path("/x", headers=[("X-Original-URL", "/"), ("X-Rewrite-URL", "/")]),
    # signatures
    "unsigned": Ask(403, None, signed=False),
    "invented signature": Ask(403, None, signed=False, headers=[("Authorization", "AWS4-HMAC-SHA256 Credential=a")]),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_request_is_refused_and_changes_nothing(server: Server, name: str) -> None:
    """The answer has exactly the expected status and code, and every item of the table is unchanged."""
    asked, before = REQUESTS[name], server.items()
    target = asked.path + (f"?{asked.query}" if asked.query else "")
    status, content_type, body = server.ask(asked.method, target, asked.headers, asked.body, signed=asked.signed)
    told = None
    if content_type == "application/problem+json":
        document = json.loads(body)
        assert (document["status"], list(document)) == (status, ["type", "title", "status", "code", "detail"])
        told = document["code"]
    assert (status, told) == (asked.status, asked.code)
    assert server.items() == before


def test_a_replay_changes_nothing_and_the_next_number_follows(server: Server) -> None:
    """After all hostile requests, a used key still replays its block, and a mint returns the next number."""
    before = server.items()
    replay = server.ask("POST", "/", [("Idempotency-Key", "used")], b"", signed=True)
    block = {"partition": REGION, "hand_crafted_int": 7, "first": 7, "last": 7, "count": 1, "increment": 1}
    assert (replay[0], json.loads(replay[2])) == (200, block | {"replayed": True, "receipt": True})
    assert server.items() == before
    nearly = server.ask("POST", "/?partition=nearly&count=2", [], b"", signed=True)
    assert json.loads(nearly[2])["first"] == 8
    changed = {name for name, item in server.items().items() if item != before.get(name)}
    assert changed == {"nearly"}


def test_a_fraction_is_never_handed_out(server: Server) -> None:
    """A write cannot detect a fraction, so that item changes, but no ticket is returned."""
    for _ in range(2):
        told = server.ask("POST", "/?partition=fraction", [], b"", signed=True)
        assert (told[0], json.loads(told[2])["code"]) == (504, "outcome_unknown")


def test_an_answer_of_a_request_with_hostile_headers_is_a_plain_one(server: Server) -> None:
    """An invalid Accept header does not change the answer to a bad request."""
    for accept in ("," * 5_000, "text/plain;q=\u0661".encode(), "*/*;q=9", ";=,/", "\xff".encode("latin-1")):
        told = server.ask("GET", "/status?partition=nobody", [("Accept", accept)], b"", signed=True)
        assert told[:2] == (404, "application/problem+json")


COMMANDS: dict[str, tuple[int, list[str]]] = {
    "no key": (2, ["next", "--idempotency-key", ""]),
    "key with a line break": (2, ["next", "--idempotency-key", "a\nX-Injected: 1"]),
    "non-ASCII key": (2, ["next", "--idempotency-key", "\u00e9", "--via", "dynamodb"]),
    "key of another counter": (6, ["next", "--idempotency-key", "used", "--partition", "nearly"]),
    "receipt as a counter": (2, ["next", "--partition", "receipt#used", "--via", "dynamodb"]),
    "name that is not UTF-8": (2, ["next", "--partition", "\udcff"]),
    "count of 10,000 digits": (2, ["fetch", NINES]),
    "Arabic digit": (2, ["fetch", "\u0661"]),
    "back": (6, ["counter", "advance", REGION, "--to", "5"]),
    "beyond 2**53 - 1": (6, ["counter", "advance", REGION, "--to", str(2**53)]),
    "Arabic target": (2, ["counter", "advance", REGION, "--to", "\u0669\u0669"]),
    "create a receipt": (2, ["counter", "create", "receipt#new"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_hostile_command_line_is_refused_and_changes_nothing(server: Server, ticketctl: Ticketctl, name: str) -> None:
    """The exit code is the expected one, stdout is empty, and every item of the table is unchanged."""
    (exit_code, arguments), before = COMMANDS[name], server.items()
    result = ticketctl(*arguments, "--local", "--stack", STACK)
    assert (result.returncode, result.stdout) == (exit_code, ""), result.stderr
    assert server.items() == before


@pytest.mark.parametrize("line", ["--5", "\u0669\u0669"], ids=["two signs", "Arabic"])
def test_a_hostile_file_is_not_adopted(server: Server, ticketctl: Ticketctl, tmp_path: Path, line: str) -> None:
    """A file with a line that is not a whole number leaves the counter unchanged."""
    before, file = server.items(), tmp_path / "numbers"
    file.write_text(f"8\n{line}\n", encoding="utf-8")
    result = ticketctl("counter", "adopt", REGION, "--from-max", str(file), "--local", "--stack", STACK)
    assert (result.returncode, result.stdout) == (6, ""), result.stderr
    assert server.items() == before


def test_the_requests_cover_every_code() -> None:
    """There are at least 60 hostile requests, and one for every code that the function returns for a caller's fault."""
    own = {code for code, status in handler.STATUS.items() if status in (400, 404, 405, 409)}
    assert len(REQUESTS) >= 60
    assert own == {asked.code for asked in REQUESTS.values()} - {None}

"""The handler with arbitrary events: every answer is documented, and every failure is the caller's.

The examples are the same in every run; ``TICKETCTL_TEST_EFFORT=60`` tries more, and new ones in each run.
"""

import base64
import json
from typing import Any
from urllib.parse import quote_plus

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import openapi
from tests.support.effort import DERANDOMIZED, times
from tests.support.function_url import SETTINGS
from tests.support.model_table import ModelTable
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler

# --- events ----------------------------------------------------------------------------------------

TEXT = st.text(max_size=30) | st.text(st.characters(codec="ascii"), max_size=300)
SURROGATES = st.text(st.characters(), max_size=10)  # lone surrogates too
COUNTS = st.sampled_from(["1", "3", "10000", "0", "-1", "10001", "1e3", "\u0661", "", "9" * 10_000]) | TEXT
NAMES = st.sampled_from(["us-east-1", "orders", "receipt#k", "", "a\0"]) | TEXT
FIELDS = st.sampled_from(["count", "partition"]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=5,
)
PAIRS = st.lists(
    st.tuples(st.just("count"), COUNTS) | st.tuples(st.just("partition"), NAMES) | st.tuples(FIELDS, TEXT), max_size=3
)
QUERIES = st.one_of(
    PAIRS.map(lambda pairs: "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)),
    TEXT,
    SURROGATES,
    st.binary(max_size=20).map(lambda raw: "partition=" + quote_plus(raw)),
)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries({}, optional={"count": st.integers(-1, 20) | JSON, "partition": NAMES | JSON}),
    st.dictionaries(FIELDS, JSON, max_size=3),
    JSON,
).map(json.dumps)
PLAIN = st.one_of(st.none(), st.just(""), DOCUMENTS, TEXT, SURROGATES, st.just("[" * 5_000))
BODIES = st.one_of(
    st.tuples(PLAIN, st.just(value=False)),
    st.tuples(DOCUMENTS.map(lambda text: base64.b64encode(text.encode()).decode()), st.just(value=True)),
    st.tuples(st.binary(max_size=50).map(lambda raw: base64.b64encode(raw).decode()), st.just(value=True)),
    st.tuples(PLAIN, st.just(value=True)),
)
KEYS = st.sampled_from(["k", '"k"', '"a b"', "", '"', "a" * 256]) | TEXT
ACCEPTS = st.sampled_from(["text/plain", "*/*", "text/plain;q=0.5,*/*;q=\u0661"]) | TEXT
HEADERS = st.none() | st.dictionaries(TEXT, TEXT, max_size=2).flatmap(
    lambda more: st.fixed_dictionaries({}, optional={"idempotency-key": KEYS, "accept": ACCEPTS}).map(
        lambda own: {**more, **own}
    )
)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """A Function URL event of the correct shape with arbitrary values; most reach the counter."""
    path = draw(st.sampled_from(["/", "/", "/", "/status", "", "//"]) | TEXT)
    http = {"method": draw(st.sampled_from(["GET", "POST", "POST", "DELETE"]) | TEXT), "path": path}
    body, encoded = draw(BODIES)
    event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": draw(st.just("") | QUERIES),
        "headers": draw(HEADERS),
        "requestContext": {"http": http},
        "body": body,
        "isBase64Encoded": encoded,
    }
    if draw(st.booleans()):
        event["queryStringParameters"] = draw(st.none() | st.dictionaries(FIELDS, TEXT | SURROGATES, max_size=2))
    left_out = draw(st.sets(st.sampled_from(["headers", "body", "isBase64Encoded", "rawQueryString"]), max_size=2))
    return {name: value for name, value in event.items() if name not in left_out}


# --- answers ---------------------------------------------------------------------------------------


def check_form(answer: dict[str, Any]) -> None:
    """Check that Lambda can turn the answer into an HTTP response that a client can read."""
    assert set(answer) == {"statusCode", "headers", "body"}
    assert type(answer["statusCode"]) is int
    assert type(answer["body"]) is str
    assert all(type(name) is type(value) is str for name, value in answer["headers"].items())
    assert answer["headers"]["Cache-Control"] == "no-store"
    json.dumps(answer).encode("ascii")
    answer["body"].encode()


@settings(
    max_examples=times(300),
    derandomize=DERANDOMIZED,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(asked=st.lists(events(), min_size=1, max_size=3))
def test_any_event_gets_a_well_formed_answer_and_no_error_of_the_servers(asked: list[dict[str, Any]]) -> None:
    """No event raises an exception, returns a 5xx, or moves a counter back."""
    handler.FENCES.clear()
    table, last = ModelTable(SETTINGS.table), 0
    send = sdk_sender(table, "the table")
    for event in asked:
        answer = handler.respond(event, SETTINGS, send)
        check_form(answer)
        openapi.check(event["rawPath"], event["requestContext"]["http"]["method"], answer)
        assert answer["statusCode"] < 500
        now = int(table.rows.get("us-east-1", {}).get("hand_crafted_int", {}).get("N", "0"))
        assert now >= last
        assert now == last or answer["statusCode"] == 200
        assert [name for name in table.rows if not name.startswith("receipt#")] in ([], ["us-east-1"])
        last = now
    handler.FENCES.clear()


def test_the_fuzz_reaches_the_counter() -> None:
    """The events are not all rejected early: some mint, some mint with a key, and some read the counter."""
    from hypothesis import find

    def ends(event: dict[str, Any], *, path: str, receipt: bool) -> bool:
        handler.FENCES.clear()
        item = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "7"}}
        table = ModelTable(SETTINGS.table, rows={"us-east-1": item})
        told = handler.respond(event, SETTINGS, sdk_sender(table, "the table"))["statusCode"]
        return told == 200 and (event["rawPath"] or "/") == path and receipt == (len(table.rows) > 1)

    for path, receipt in (("/", False), ("/", True), ("/status", False)):
        find(
            events(),
            lambda event, path=path, receipt=receipt: ends(event, path=path, receipt=receipt),  # type: ignore[misc]
            settings=settings(max_examples=2_000, derandomize=True, database=None),
        )
    handler.FENCES.clear()

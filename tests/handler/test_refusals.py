"""What the handler rejects before it sends anything: bad requests, other paths, other methods."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.function_url import SECRET, SETTINGS, encoded, event, problem
from ticketctl.handler import handler

DEEP = 100_000

COUNT = "count must be an integer from 1 to 10000."
LENGTH = "partition must be a string of 1 to 255 characters."
CONTROL = "partition must be Unicode text without control characters."
RECEIPT = "Names that begin with 'receipt#' are receipts, not counters."
UNREADABLE = "The request is not UTF-8, or its body is not JSON."
NO_OBJECT = "The body must be a JSON object."
NOT_FOUND = "Nothing is at this path. Mint at / and read a counter at /status."


def spends_nothing(operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A ``send`` for requests that must be rejected before anything is sent."""
    raise AssertionError(f"spent: {operation} {request}")


class Refusal:
    """Sends a request that must spend nothing; compares the complete answer and log."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(
        self, asked: Mapping[str, Any], detail: str, *, code: str = "bad_request", status: int = 400, **headers: str
    ) -> None:
        answer = handler.respond(asked, SETTINGS, spends_nothing, "r-1")
        assert answer == problem(code, status, detail, **headers)
        (line,) = self.capsys.readouterr().out.splitlines()
        assert json.loads(line) == {
            "level": "WARNING",
            "code": code,
            "status": status,
            "detail": detail,
            "cause": "",
            "request_id": "r-1",
            "method": asked["requestContext"]["http"]["method"],
            "path": asked["rawPath"],
        }


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(capsys)


# --- paths and methods -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/favicon.ico", "//", "/status/", "/Status", "/index.html", "/%2e%2e", "status", "/é"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_is_minted_at_any_other_path(refused: Refusal, path: str, method: str) -> None:
    """Only two paths exist, each with exactly one spelling."""
    refused(event(path, method), NOT_FOUND, code="not_found", status=404)


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        *(("/", method, "GET, POST") for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "")),
        *(("/status", method, "GET") for method in ("POST", "HEAD", "DELETE")),
    ],
)
def test_nothing_is_minted_with_any_other_method(refused: Refusal, path: str, method: str, allow: str) -> None:
    """The answer to a wrong method names the allowed methods."""
    refused(event(path, method), f"Use {allow}.", code="method_not_allowed", status=405, Allow=allow)


# --- counts and names ------------------------------------------------------------------------------

COUNTS_IN_A_QUERY = [
    "",
    "0",
    "-1",
    "-0",
    "1e3",
    "1.5",
    "1.0",
    "10001",
    "true",
    "007",
    " 5",
    "5 ",
    "5\n",
    "+5",
    "1_000",
    "0x10",
    "1,2",
    "٣",
    "1٣",
    "\uff15",
    "²",
    "NaN",
    "null",
    "9999999999",
    pytest.param("9" * 10_000, id="10,000 digits"),
]


@pytest.mark.parametrize("count", COUNTS_IN_A_QUERY)
def test_a_count_in_the_query_is_plain_digits_in_the_range(refused: Refusal, count: str) -> None:
    """A count that is not an integer from 1 to the maximum is rejected, in both forms of the query."""
    refused(event(query=urlencode({"count": count})), COUNT)
    refused(event(queryStringParameters={"count": count}), COUNT)


def test_a_plus_in_a_query_is_a_space(refused: Refusal) -> None:
    """A plus sign in front of a count, which form encoding turns into a space, is rejected."""
    refused(event(query="count=+5"), COUNT)


@pytest.mark.parametrize(
    "count",
    [
        *("0", "-1", "10001", "true", "false", '"5"', '""', "null", "NaN", "Infinity"),
        *("0.0", "-0.0", "-1.0", "1.5", "90.5", "5e-1", "10001.0", "1e5", "1e308", "1e999", "-1e999"),
        *("0.9999999999999999999999", "1.0000000000000000000001", "5000000000000000000001e-21"),
        *("[5]", '{"count": 5}', "{}"),
        pytest.param(str(10**400), id="10**400"),
    ],
)
def test_a_count_in_json_is_an_integer_in_the_range(refused: Refusal, count: str) -> None:
    """In JSON, a count that is a boolean, fraction, string or other value is rejected."""
    refused(event(method="POST", body=f'{{"count": {count}}}'), COUNT)


def test_a_deployment_may_allow_less() -> None:
    """The maximum count is a setting of the deployment."""
    asked = event(query="count=11")
    answer = handler.respond(asked, SETTINGS._replace(max_count=10), spends_nothing)
    assert json.loads(answer["body"])["detail"] == "count must be an integer from 1 to 10."


NAMES_IN_A_QUERY = [
    pytest.param("", LENGTH, id="empty"),
    pytest.param("a" * 256, LENGTH, id="256 characters"),
    pytest.param("é" * 256, LENGTH, id="256 letters of two bytes"),
    pytest.param("a" * 2_049, LENGTH, id="2,049 bytes"),
    pytest.param("receipt#", RECEIPT, id="receipt#"),
    pytest.param("receipt#orders", RECEIPT, id="a receipt"),
    *(pytest.param(f"a{c}", CONTROL, id=f"control {ord(c):#x}") for c in "\x00\t\n\r\x1b\x1f\x7f\x80\x85\x9f"),
]
NAMES_IN_JSON = [
    ('"\\ud800"', CONTROL),
    ('"a\\udfff"', CONTROL),
    ('"\\u0000"', CONTROL),
    ('"receipt\\u0023orders"', RECEIPT),
    ('""', LENGTH),
    ("null", LENGTH),
    ("5", LENGTH),
    ("true", LENGTH),
    ('["a"]', LENGTH),
    ('{"a": 1}', LENGTH),
    ("{}", LENGTH),
]


@pytest.mark.parametrize("path", ["/", "/status"])
@pytest.mark.parametrize(("name", "detail"), NAMES_IN_A_QUERY)
def test_a_name_in_the_query_is_text_that_can_be_a_key(refused: Refusal, path: str, name: str, detail: str) -> None:
    """A name is rejected if it is empty, too long, not printable, or the key of a receipt."""
    refused(event(path, query=urlencode({"partition": name})), detail)


@pytest.mark.parametrize("path", ["/", "/status"])
@pytest.mark.parametrize(("name", "detail"), NAMES_IN_JSON)
def test_a_name_in_json_is_a_string(refused: Refusal, path: str, name: str, detail: str) -> None:
    """In JSON, a name that is not valid text is rejected, and null does not mean the default."""
    refused(event(path, body=f'{{"partition": {name}}}'), detail)


# --- bodies and queries ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("[]", NO_OBJECT),
        ('[["count", 5]]', NO_OBJECT),
        ("42", NO_OBJECT),
        ('"count"', NO_OBJECT),
        ("null", NO_OBJECT),
        ("true", NO_OBJECT),
        ("{", UNREADABLE),
        ("{'count': 5}", UNREADABLE),
        ('{"count": 5} {}', UNREADABLE),
        ('{"count": 5,}', UNREADABLE),
        ("count=5&partition=orders", UNREADABLE),
        ("\ufeff{}", UNREADABLE),
        ("\xa0", UNREADABLE),  # no white space of JSON
        ("\x0c", UNREADABLE),
        pytest.param("[" * DEEP, UNREADABLE, id="deep lists"),
        pytest.param('{"count":' * DEEP, UNREADABLE, id="deep objects"),
        pytest.param('{"count": ' + "9" * 10_000 + "}", UNREADABLE, id="10,000 digits"),
        ('{"count": 5, "count": 5}', "The field 'count' is given twice."),
        ('{"partition": "a", "\\u0070artition": "b"}', "The field 'partition' is given twice."),
        ('{"Count": 5}', "Unknown field 'Count'; known here: count, partition."),
        ('{"increment": 5}', "Unknown field 'increment'; known here: count, partition."),
        ('{"X-Amz-Date": "x"}', "Unknown field 'X-Amz-Date'; known here: count, partition."),
        ('{"\\ud800": 5}', "Unknown field '\\ud800'; known here: count, partition."),
    ],
)
def test_a_body_is_one_json_object_of_known_fields(refused: Refusal, body: str, detail: str) -> None:
    """A body that is not one readable JSON object with each known field at most once is rejected, base64 or not."""
    refused(event(method="POST", body=body), detail)
    refused(encoded(body.encode()), detail)


@pytest.mark.parametrize("body", ["e30", "not base64!", "é", "====", "e3 0="])
def test_a_body_that_is_not_base64_is_refused(refused: Refusal, body: str) -> None:
    """A body that is marked as base64 but cannot be decoded is rejected."""
    refused(event(method="POST", body=body, isBase64Encoded=True), UNREADABLE)


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"partition": "\xff"}', b'{"partition": "\xed\xa0\x80"}'])
def test_a_body_that_is_not_utf_8_is_refused(refused: Refusal, body: bytes) -> None:
    """A body that is not UTF-8 is rejected; its bytes are not replaced by other characters."""
    refused(encoded(body), UNREADABLE)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("partition=%FF", UNREADABLE),
        ("partition=%ED%A0%80", UNREADABLE),
        ("%FF=1", UNREADABLE),
        ("count=1&count=1", "The field 'count' is given twice."),
        ("partition=a&partition=b", "The field 'partition' is given twice."),
        ("partiton=orders", "Unknown field 'partiton'; known here: count, partition."),
        ("=5", "Unknown field ''; known here: count, partition."),
        ("x" * 99, f"Unknown field '{'x' * 50}'; known here: count, partition."),
        ("count", COUNT),
        ("partition", LENGTH),
    ],
)
def test_a_query_is_utf_8_and_has_known_fields_once(refused: Refusal, query: str, detail: str) -> None:
    """A mistyped, repeated or unreadable field is rejected; it never mints from another counter."""
    refused(event(query=query), detail)


def test_a_query_that_is_no_valid_text_is_refused(refused: Refusal) -> None:
    """A lone surrogate in the parsed query is a bad request."""
    refused(event(queryStringParameters={"partition": "\ud800"}), UNREADABLE)


@pytest.mark.parametrize("field", ["count", "partition"])
def test_a_field_in_both_query_and_body_is_refused(refused: Refusal, field: str) -> None:
    """A field that is in both query and body is rejected."""
    value = {"count": 1, "partition": "a"}[field]
    asked = event(method="POST", query=f"{field}={value}", body=json.dumps({field: value}))
    refused(asked, f"The field {field!r} is given twice.")


def test_a_status_has_no_count(refused: Refusal) -> None:
    """On ``/status``, ``count`` is rejected as an unknown field."""
    refused(event("/status", query="count=1"), "Unknown field 'count'; known here: partition.")


def test_the_log_line_is_bounded_and_has_no_header(capsys: pytest.CaptureFixture[str]) -> None:
    """A log line is short and has no headers, whatever the request contains."""
    asked = event("/" + "\n" * 10_000, "X" * 10_000, headers={"authorization": SECRET, "x-amz-security-token": SECRET})
    handler.respond(asked, SETTINGS, spends_nothing, "r-1")
    (line,) = capsys.readouterr().out.splitlines()
    assert SECRET not in line
    assert len(line) < 1_000


@pytest.mark.parametrize("headers", ["text", ["accept"], 7, {"accept": 5}, {"accept": ["*/*"]}, {"idempotency-key": 5}])
def test_headers_that_are_not_text_are_refused_before_anything_is_sent(headers: object) -> None:
    """Headers are read first, so that a malformed event does not fail after the write."""
    sent: list[object] = []

    def send(*call: object) -> dict[str, Any]:
        sent.append(call)
        return {"Attributes": {"hand_crafted_int": {"N": "1"}}}

    answer = handler.respond(event(method="POST", headers=headers), SETTINGS, send)
    assert (answer["statusCode"], json.loads(answer["body"])["code"], sent) == (400, "bad_request", [])


@pytest.mark.parametrize(
    "fields",
    [
        {"rawQueryString": 5},
        {"rawQueryString": ["count=1"]},
        {"queryStringParameters": 5},
        {"queryStringParameters": ["count"]},
        {"queryStringParameters": [5]},
        {"body": 5},
        {"body": {"count": 1}},
        {"body": ["e30="], "isBase64Encoded": True},
    ],
)
@pytest.mark.parametrize("path", ["/", "/status"])
def test_an_event_of_another_form_is_refused(refused: Refusal, path: str, fields: dict[str, Any]) -> None:
    """An event that no Function URL makes, as from ``aws lambda invoke``, is a bad request, not an unknown outcome."""
    refused(event(path, **fields), UNREADABLE)

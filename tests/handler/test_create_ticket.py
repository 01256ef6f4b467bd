"""The handler over HTTP: which requests it accepts and how it formats its answers."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.function_url import SETTINGS, encoded, event, problem
from ticketctl.handler import handler


class Answers:
    """A ``send`` that gives the same answer to every request and keeps the requests."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []

    def __call__(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        assert operation != "PutItem", "no key, no receipt"
        self.requests.append(request)
        return self.answer


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """Clear the fences that the function remembers, as in a new execution environment."""
    handler.FENCES.clear()
    yield
    handler.FENCES.clear()


def mints(last: int = 42) -> Answers:
    return Answers({"Attributes": {"hand_crafted_int": {"N": str(last)}}})


def mint(asked: Mapping[str, Any], *, last: int = 42, settings: handler.Configuration = SETTINGS) -> Any:
    """Send a request that mints; return its JSON document."""
    answer = handler.respond(asked, settings, mints(last))
    assert (answer["statusCode"], answer["headers"]["Content-Type"]) == (200, "application/json")
    return json.loads(answer["body"])


def with_accept(accept: str, path: str = "/", query: str = "") -> dict[str, Any]:
    return event(path, query=query, headers={"accept": accept})


# --- fields ----------------------------------------------------------------------------------------


def test_a_ticket_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer to a mint is JSON with ``Cache-Control: no-store``, and nothing is logged."""
    answer = handler.respond(event(), SETTINGS, mints())
    block = {"partition": "us-east-1", "hand_crafted_int": 42, "first": 42, "last": 42, "count": 1, "increment": 1}
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    assert answer == {"statusCode": 200, "headers": headers, "body": json.dumps(block) + "\n"}
    assert capsys.readouterr().out == ""


LOW = "The counter 'us-east-1' has {} tickets left below 1000."


@pytest.mark.parametrize(
    ("last", "count", "increment", "logged"),
    [
        (900, 1, 1, []),  # a tenth is left
        (901, 1, 1, [LOW.format(99)]),
        (902, 1, 1, []),
        (902, 2, 1, [LOW.format(98)]),
        (990, 1, 1, []),
        (991, 1, 1, [LOW.format(9)]),
        (1000, 1, 1, []),
        (1000, 1000, 1, [LOW.format(0)]),
        (904, 1, 5, [LOW.format(19)]),
        (909, 1, 5, []),
    ],
)
def test_few_tickets_left(
    capsys: pytest.CaptureFixture[str], last: int, count: int, increment: int, logged: list[str]
) -> None:
    """A mint that leaves less than a tenth, or a hundredth, of the ceiling logs one line; others log nothing."""
    handler.FENCES["us-east-1"] = handler.Fence(increment, 1000)
    handler.respond(event(query=f"count={count}"), SETTINGS, mints(last), "request-1")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    facts = {"level": "WARNING", "code": "counter_low", "request_id": "request-1"}
    assert lines == [{**facts, "detail": detail} for detail in logged]


def test_a_replay_logs_no_low_counter() -> None:
    """A replay spends nothing, so it does not log a low counter again; it still logs a possible gap."""
    block = {"partition": "a", "first": 901, "last": 901, "count": 1, "increment": 1}
    assert list(handler.warnings_of(block, 1000)) == ["counter_low"]
    assert list(handler.warnings_of({**block, "replayed": True}, 1000)) == []
    assert list(handler.warnings_of({**block, "replayed": True, "possible_gap": True}, 1000)) == ["possible_gap"]


JSON_THREES = ["3.0", "3e0", "0.3E+1", "3." + "0" * 99, "3" + "0" * 99 + "e-99"]
SIGNATURE = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Signature": "ab", "x-amz-expires": "60"}


@pytest.mark.parametrize(
    "asked",
    [
        event(query="partition=a+b&count=3"),
        event(query="count=3&partition=a%20b"),
        event(query=urlencode({"partition": "a b", "count": 3, **SIGNATURE})),
        event(queryStringParameters={"partition": "a b", "count": "3", **SIGNATURE}),
        event(query="partition=a+b&count=3", queryStringParameters={"partition": "a b", "count": "3"}),
        event(method="POST", body='{"partition": "a b", "count": 3}'),
        event(method="POST", query="partition=a%20b", body='{"count": 3}'),
        event(body='{"partition": "a b", "count": 3}'),
        encoded(b'{"partition": "a b", "count": 3}'),
        *(event(method="POST", body=f'{{"partition": "a b", "count": {count}}}') for count in JSON_THREES),
    ],
)
def test_fields_come_from_the_query_or_a_json_body(asked: dict[str, Any]) -> None:
    """Fields mean the same in the query and in a JSON body; a presigned URL's own fields are ignored."""
    assert mint(asked) == {
        "partition": "a b",
        "hand_crafted_int": 42,
        "first": 40,
        "last": 42,
        "count": 3,
        "increment": 1,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"rawPath": "/", "requestContext": {"http": {"method": "GET"}}},
        {"rawPath": "", "requestContext": {"http": {"method": "GET"}}},
        event(queryStringParameters=None, body=None, headers=None),
        event(queryStringParameters={}, headers={}),
        event(method="POST", body=""),
        event(method="POST", body=" \n"),
        event(method="POST", body="{}"),
        event(method="POST", body="", isBase64Encoded=True),
    ],
)
def test_without_fields_one_ticket_of_the_default_counter(asked: dict[str, Any]) -> None:
    """A missing or empty field has its default."""
    block = mint(asked)
    assert (block["partition"], block["count"]) == ("us-east-1", 1)


@pytest.mark.parametrize("name", ["us-west-2", "é" * 255, "😀", "a/b?c=d&e+%", "null", "<script>"])
def test_a_name_arrives_as_it_was_sent(name: str) -> None:
    """A name is the same text in the query, in the item's key and in the answer."""
    table = mints()
    answer = handler.respond(event(query=urlencode({"partition": name})), SETTINGS, table)
    assert json.loads(answer["body"])["partition"] == name
    assert [request["Key"] for request in table.requests] == [{"partition": {"S": name}}]


def test_the_largest_block() -> None:
    """A block of the largest count is one write."""
    block = mint(event(query="count=10000"), last=handler.MAX_TICKET)
    assert (block["first"], block["last"], block["count"]) == (2**53 - 10_000, 2**53 - 1, 10_000)


# --- which counter may begin -----------------------------------------------------------------------


def may_begin(table: Answers) -> list[bool]:
    """For each write, return whether it may start the counter."""
    return ["attribute_not_exists(#partition)" in request["ConditionExpression"] for request in table.requests]


def test_only_the_first_write_to_the_default_counter_may_begin_it() -> None:
    """The same execution environment never starts a counter again that it has seen once."""
    table = mints()
    for _ in range(3):
        handler.respond(event(), SETTINGS, table)
    assert may_begin(table) == [True, False, False]


def test_no_other_counter_starts_by_itself() -> None:
    """A mistyped name never starts a sequence."""
    table = mints()
    handler.respond(event(query="partition=us-east-l"), SETTINGS, table)
    assert may_begin(table) == [False]


def test_the_lane_of_a_new_counter_is_the_deployments() -> None:
    """Offset, increment and table come from the settings, never from the request."""
    table = mints(2)
    handler.respond(event(), handler.Configuration("orders", "eu-west-1", 2, 3, 10), table)
    (sent,) = table.requests
    now = int(sent["ExpressionAttributeValues"][":now"]["N"])
    assert now > 1_700_000_000_000  # milliseconds since 1970
    assert sent == handler.mint_request("orders", "eu-west-1", 1, handler.Fence(3), offset=2, now_ms=now)


def test_settings_come_from_the_environment() -> None:
    """The configuration consists of the five environment variables that the stack sets."""
    environment = {
        "TABLE_NAME": "orders",
        "DEFAULT_PARTITION": "eu-west-1",
        "OFFSET": "2",
        "INCREMENT": "3",
        "MAX_COUNT": "10",
    }
    assert handler.Configuration.from_environment(environment) == handler.Configuration("orders", "eu-west-1", 2, 3, 10)


# --- status ----------------------------------------------------------------------------------------

ITEM = {"partition": {"S": "us-east-1"}, "hand_crafted_int": {"N": "41"}}


def test_a_status_reads_the_counter_and_mints_nothing() -> None:
    """A status is one consistent read."""
    table = Answers({"Item": ITEM | {"increment": {"N": "3"}, "ceiling": {"N": "50"}, "minted_at": {"N": "7"}}})
    answer = handler.respond(event("/status"), SETTINGS, table)
    assert json.loads(answer["body"]) == {
        "partition": "us-east-1",
        "hand_crafted_int": 41,
        "increment": 3,
        "ceiling": 50,
        "remaining": 3,
        "minted_at": 7,
        "frozen": False,
        "gapless": False,
    }
    assert table.requests == [handler.read_request("Tickets", "us-east-1")]


def test_a_status_as_text_is_the_last_ticket() -> None:
    """As text, a status is the last ticket and a newline."""
    assert handler.respond(with_accept("text/plain", "/status"), SETTINGS, Answers({"Item": ITEM}))["body"] == "41\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {},
            problem(
                "unknown_counter",
                404,
                "There is no counter 'us-east-1'. Create it with: ticketctl counter create us-east-1",
            ),
        ),
        (
            {"Item": ITEM | {"increment": {"N": "0"}}},
            problem("counter_invalid", 409, "The counter 'us-east-1' has the increment 0; it must be 1 or more."),
        ),
    ],
    ids=["no item", "damaged"],
)
def test_a_status_without_a_sound_counter(answer: Mapping[str, Any], expected: dict[str, Any]) -> None:
    """A missing or damaged counter is an error, never a counter at zero."""
    assert handler.respond(event("/status"), SETTINGS, Answers(answer)) == expected


def test_a_long_name_makes_no_long_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The answer may repeat a long name; the log line truncates it."""
    told = handler.respond(event("/status", query="partition=" + "%27" * 255), SETTINGS, Answers({}))
    (line,) = capsys.readouterr().out.splitlines()
    assert len(told["body"]) > 2_048
    assert len(line) < 1_000


# --- Accept ----------------------------------------------------------------------------------------


def test_a_ticket_as_text_is_the_number_and_a_newline() -> None:
    """As text, a ticket is the number and a newline, with ``Cache-Control: no-store``."""
    answer = handler.respond(with_accept("text/plain"), SETTINGS, mints())
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    assert answer == {"statusCode": 200, "headers": headers, "body": "42\n"}


def test_a_block_as_text_has_one_ticket_a_line() -> None:
    """As text, a block is its tickets in ascending order, one per line."""
    settings = SETTINGS._replace(increment=3)
    answer = handler.respond(with_accept("text/plain", query="count=4"), settings, mints(20))
    assert answer["body"] == "11\n14\n17\n20\n"


def test_a_problem_is_json_for_a_reader_of_text_too() -> None:
    """Problem details are always JSON, even if the client accepts text."""
    answer = handler.respond(with_accept("text/plain", query="count=0"), SETTINGS, mints())
    assert answer == problem("bad_request", 400, "count must be an integer from 1 to 10000.")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain",
        "TEXT/PLAIN",
        "text/plain; charset=utf-8",
        "text/plain, */*",
        "*/*, text/plain",
        "text/plain;x-q=0",
        "text/plain ; q=0.5 , application/json;charset=utf-8;q=0.4",
        "text/plain, application/json;q=0.9",
        "application/json;q=0.5,text/plain;q=0.6",
        "text/plain;q=0.5, */*;q=0.1",
        "text/html, text/plain;q=0.2",
        "text/plain;q=0.001, application/json;q=0",
        "text/*",
        "application/json;q=0, */*",
    ],
)
def test_text_if_preferred(accept: str) -> None:
    """A client gets text if it accepts text and prefers it to JSON or does not mention JSON."""
    assert handler.wants_text(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/problem+json",
        "application/json, text/plain, */*",  # axios
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",  # a browser
        "text/plain, application/json",
        "text/plain;q=0.5, application/json;q=0.5",
        "text/plain;q=0.8, application/json",
        "text/plain;q=0.5, */*",
        "text/plain;q=0.5, application/*",
        "text/plain;q=0",
        "text/plain;q=0,5",
        "text/plain;q=0, */*",
        "text/plainer",
        "text",
        ";;;,,,q=",
        ";q=1,=,/",
        "\x00é٣\ud800",
        pytest.param("," * 100_000, id="100,000 commas"),
    ],
)
def test_json_otherwise(accept: str) -> None:
    """A client gets JSON if it prefers JSON, accepts anything, or sends an invalid ``Accept`` header."""
    block = mint(with_accept(accept))
    assert block["first"] == 42


@pytest.mark.parametrize(
    "q", ["x", "", "-1", "9", "1.1", "1.001", "0.1234", "0.5.5", "0.\u0663", "\u0660.\u0663", "1e9"]
)
def test_an_invalid_weight_counts_as_absent(q: str) -> None:
    """An invalid weight, about which RFC 9110 says nothing, does not fail the request and is read as 1, the default."""
    assert handler.wants_text(f"text/plain;q={q}, application/json;q=0.999")
    assert not handler.wants_text(f"text/plain;q={q}, application/json")

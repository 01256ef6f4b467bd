"""Every outcome of the handler against docs/openapi.yaml: the examples of the document are its real answers."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support import openapi
from tests.support.dynamodb_server import Answer, dynamodb, hangs_up, mints, refuses
from tests.support.function_url import SETTINGS, event
from tests.support.model_table import ModelTable
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.handler import handler


def counter(name: str, last: int, **more: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"partition": {"S": name}, "hand_crafted_int": number(last), **more}}


def number(value: int) -> dict[str, str]:
    return {"N": str(value)}


COUNTERS = {
    **counter("us-east-1", 41),
    **counter("orders", 1000, increment=number(2), ceiling=number(9999), minted_at=number(1795416481000)),
    **counter("invoices", 17),
    **counter("badges", 97, ceiling=number(99)),
    **counter("archive", 5, frozen={"BOOL": True}),
    **counter("receipts", 5, frozen={"S": "gapless"}),
    **counter("broken", 5, hand_crafted_int={"S": "5"}),
}
"""The counters that the document's examples speak of, before the requests."""


class Function:
    """The handler with a table in memory; each answer is checked against the document."""

    def __init__(self) -> None:
        self._send = sdk_sender(ModelTable(SETTINGS.table, rows=COUNTERS), "the table")

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        return checked(asked, handler.respond(asked, SETTINGS, self._send))


def checked(asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """An answer that is as the document says."""
    openapi.check(asked["rawPath"], asked["requestContext"]["http"]["method"], answer)
    return answer


@pytest.fixture(autouse=True)
def _nothing_learned() -> Iterator[None]:
    """The function starts without what it has learned of counters, as in a new execution environment."""
    handler.FENCES.clear()
    yield
    handler.FENCES.clear()


# --- the examples of requests ----------------------------------------------------------------------


def examples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: example["value"] for name, example in content.get("examples", {}).items()}


def requests() -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """Each example of an answer: path, method, media type, name, and a request of the examples with that name."""
    for path, method, operation in openapi.operations():
        parameters = [openapi.resolved(parameter) for parameter in operation["parameters"]]
        given = {(p["in"], p["name"]): examples(p) for p in parameters}
        bodies = examples(operation["requestBody"]["content"]["application/json"]) if "requestBody" in operation else {}
        for media, content in openapi.responses(path, method)["200"]["content"].items():
            for name in examples(content):
                parts = {part: values[name] for part, values in given.items() if name in values}
                headers = {part[1].lower(): value for part, value in parts.items() if part[0] == "header"}
                query = urlencode({part[1]: value for part, value in parts.items() if part[0] == "query"})
                body = {"body": json.dumps(bodies[name])} if method == "POST" else {}
                asked = event(path, method, query, headers={**headers, "accept": media}, **body)
                yield path, method, media, name, asked


@pytest.mark.parametrize(("path", "method", "media", "name", "asked"), list(requests()))
def test_an_example_of_a_request_gets_the_example_of_its_answer(
    path: str, method: str, media: str, name: str, asked: dict[str, Any]
) -> None:
    """A reader who sends an example gets exactly the answer that stands beside it."""
    function = Function()
    if name == "replay":
        function.ask(asked)
    answer = function.ask(asked)
    expected = examples(openapi.responses(path, method)["200"]["content"][media])[name]
    assert (answer["body"] if media == "text/plain" else json.loads(answer["body"])) == expected


def test_every_example_of_a_body_has_an_answer() -> None:
    """No example of a request is left without the example of its answer."""
    named = {name for _, _, _, name, asked in requests() if "body" in asked}
    body = openapi.document()["paths"]["/"]["post"]["requestBody"]
    assert named == set(examples(body["content"]["application/json"]))


# --- problems --------------------------------------------------------------------------------------

KEYED = {"idempotency-key": '"order 17"'}
OWN_FAULTS = {
    "bad_request": event(query="count=0"),
    "unknown_counter": event(query="partition=ordesr"),
    "not_found": event("/favicon.ico"),
    "method_not_allowed": event(method="DELETE"),
    "counter_exhausted": event(query="partition=badges&count=3"),
    "counter_invalid": event(query="partition=broken"),
    "counter_frozen": event(query="partition=archive"),
    "counter_gapless": event(query="partition=receipts"),
    "idempotency_conflict": event(query="partition=invoices&count=2", headers=KEYED),
}
FAILURES = {
    "throttled": refuses(400, "ThrottlingException"),
    "unavailable": refuses(400, "AccessDeniedException"),
    "outcome_unknown": hangs_up,
}


def example(asked: dict[str, Any], answer: dict[str, Any]) -> Any:
    """The document's example of a problem."""
    method = asked["requestContext"]["http"]["method"]
    response = openapi.responses(asked["rawPath"], method)[str(answer["statusCode"])]
    return examples(response["content"]["application/problem+json"])[json.loads(answer["body"])["code"]]


@pytest.mark.parametrize("code", OWN_FAULTS)
def test_an_example_of_a_problem_is_the_handlers_answer(code: str) -> None:
    """What the document shows of a refusal is what a caller reads."""
    function, asked = Function(), OWN_FAULTS[code]
    function.ask(event(query="partition=invoices", headers=KEYED))
    answer = function.ask(asked)
    assert json.loads(answer["body"]) == example(asked, answer)
    assert json.loads(answer["body"])["code"] == code


def ask(answers: Iterable[Answer], asked: dict[str, Any]) -> dict[str, Any]:
    """Answer an event as the handler does, with a DynamoDB that gives these answers."""
    with dynamodb(iter(answers)) as server:
        environ = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_DYNAMODB": server.url}
        client = handler.DynamoDB({**environ, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"})
        answer = handler.respond(asked, SETTINGS, client.send)
        if client.kept:
            client.kept.close()
    return checked(asked, answer)


@pytest.mark.parametrize("code", FAILURES)
def test_an_example_of_a_failure_is_the_handlers_answer(code: str) -> None:
    """What the document shows of an outage is what a caller reads."""
    asked = event(method="POST")
    answer = ask([FAILURES[code]], asked)
    assert json.loads(answer["body"]) == example(asked, answer)
    assert json.loads(answer["body"])["code"] == code


def test_every_code_is_tried() -> None:
    """The two lists above have every code that the handler has."""
    assert OWN_FAULTS.keys() | FAILURES.keys() == handler.STATUS.keys()


@pytest.mark.parametrize("code", FAILURES)
def test_a_failed_status_is_documented(code: str) -> None:
    """A read that fails is throttled or unavailable, never an unknown outcome."""
    answer = ask([FAILURES[code]], event("/status"))
    assert json.loads(answer["body"])["code"] == ("throttled" if code == "throttled" else "unavailable")


@pytest.mark.parametrize("name", ["archive", "receipts", "badges", "us-east-1", "broken", "nobody"])
def test_a_status_is_documented(name: str) -> None:
    """A counter in any state is as the document says."""
    Function().ask(event("/status", query=f"partition={name}"))


# --- every field -----------------------------------------------------------------------------------


BLOCK = {"partition", "hand_crafted_int", "first", "last", "count", "increment"}


def test_every_documented_field_of_a_block_occurs() -> None:
    """The optional fields are real: every key is ``replayed`` or not, a typed one has a receipt, a doubt has a gap."""
    typed = Function().ask(event(query="partition=invoices", headers=KEYED))
    retried = Function().ask(event(query="partition=invoices", headers={"idempotency-key": "once:1"}))
    doubtful = ask([hangs_up, mints(43)], event(method="POST", headers={"idempotency-key": "once:2"}))
    fields = [json.loads(answer["body"]).keys() for answer in (typed, retried, doubtful)]
    assert fields == [
        BLOCK | {"replayed", "receipt"},
        BLOCK | {"replayed"},
        BLOCK | {"replayed", "possible_gap"},
    ]
    assert set().union(*fields) == openapi.document()["components"]["schemas"]["Block"]["properties"].keys()


def test_every_documented_field_of_a_counter_occurs() -> None:
    """The fields of a counter are always all of them."""
    counter = json.loads(Function().ask(event("/status"))["body"])
    schema = openapi.document()["components"]["schemas"]["Counter"]
    assert counter.keys() == schema["properties"].keys() == set(schema["required"])


# --- the check itself ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"statusCode": 201},
        {"statusCode": 409},
        {"headers": {"Content-Type": "text/html", "Cache-Control": "no-store"}},
        {"headers": {"Content-Type": "application/json"}},
        {"headers": {"Content-Type": "application/json", "Cache-Control": "public"}},
        {"headers": {"Content-Type": "application/json", "Cache-Control": "no-store", "X-More": "1"}},
        {"body": "{}\n"},
        {"body": json.dumps(dict.fromkeys(BLOCK, 1) | {"partition": "a"})},
        {"body": json.dumps(dict.fromkeys(BLOCK, 1) | {"partition": "a", "more": 1}) + "\n"},
        {"body": json.dumps(dict.fromkeys(BLOCK, 1) | {"partition": "a", "last": 1.5}) + "\n"},
    ],
)
def test_an_answer_that_is_not_documented_fails(change: dict[str, Any]) -> None:
    """The comparison with the document finds another status, header, content type, field or value."""
    sound = {
        "statusCode": 200,
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store"},
        "body": json.dumps(dict.fromkeys(BLOCK, 1) | {"partition": "a"}) + "\n",
    }
    openapi.check("/", "POST", sound)
    with pytest.raises(AssertionError):
        openapi.check("/", "POST", sound | change)

"""``function_url``: what each answer of a Function URL, and each failure, means for the tickets."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.support.minting import requested
from tests.support.peer import Peer, Talk
from tests.support.scripted_transport import AFTER_SENDING, BEFORE_SENDING, BY_AWS, Function, ScriptedTransport, problem
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    CounterExhaustedError,
    CounterFrozenError,
    CounterGaplessError,
    CounterInvalidError,
    ExpiredCredentialsError,
    IdempotencyConflictError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    RefusedError,
    SetupError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
    UsageError,
)
from ticketctl.http_client import HttpClient
from ticketctl.minting.function_url import FunctionUrl, Signer, UrlSource
from ticketctl.models import Block, Counter, MintRequest

pytestmark = pytest.mark.usefixtures("no_aws")

BLOCK = {"partition": "orders", "hand_crafted_int": 17, "first": 8, "last": 17, "count": 4, "increment": 3}
COUNTER = {
    "partition": "orders",
    "hand_crafted_int": 17,
    "increment": 3,
    "ceiling": 100,
    "remaining": 27,
    "minted_at": None,
}
UNKNOWN = "tickets.example gave no usable answer ({}); a ticket may have been spent"
LOOK = "ticketctl status"
DENIED = (
    "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
)
LATE = "Signature expired: 20261124T120000Z is now earlier than 20261124T125507Z (20261124T130007Z - 5 min.)"
EARLY = "Signature not yet current: 20261124T140000Z is still later than 20261124T130507Z (20261124T130007Z + 5 min.)"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
INVALID = "The security token included in the request is invalid."
EXPIRED = "The security token included in the request is expired"
UNSIGNED = "check that no proxy removes the signature"
PERMISSIONS = "the caller needs both lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function"


Open = Callable[..., tuple[UrlSource, Function]]


@pytest.fixture
def opened() -> Iterator[Open]:
    sources: list[UrlSource] = []

    def opened(
        *answers: httpx.Response | Exception,
        signs_at_once: bool = True,
        url: str = "https://tickets.example",
        sign: Signer = sign,
    ) -> tuple[UrlSource, Function]:
        function = Function(*answers)
        source = UrlSource(
            FunctionUrl(url, sign=sign, signs_at_once=signs_at_once),
            ScriptedTransport(function),
        )
        sources.append(source)
        return source, function

    yield opened
    for source in sources:
        source.close()


def sign(method: str, url: str, headers: Mapping[str, str], body: bytes, _: Deadline) -> Mapping[str, str]:
    return {**headers, "authorization": f"signed {method} {url} {body.decode()}"}


def plain(status: int) -> httpx.Response:
    return httpx.Response(status, text="Internal Server Error")


def mint(source: UrlSource, partition: str | None, count: int, *, key: str = "once:k", seconds: float = 5.0) -> Block:
    request = MintRequest(partition, count, key, is_typed=not key.startswith("once:"))
    return source.mint(request, Deadline(seconds, clock=lambda: 1000.0))


def counter(source: UrlSource, partition: str | None) -> Counter:
    return source.counter(partition, Deadline(5.0))


def failure(call: Callable[[], object]) -> tuple[type[TicketctlError], str, str, str, int]:
    with pytest.raises(TicketctlError) as caught:
        call()
    error = caught.value
    return type(error), error.message, error.hint, error.code, error.exit_code


def test_mint(opened: Open) -> None:
    """A mint is one signed POST, and the answer is its block."""
    source, function = opened(httpx.Response(200, json=BLOCK))
    assert mint(source, "orders", 4) == Block(partition="orders", first=8, last=17, count=4, increment=3)
    (request,) = function.requests
    body = '{"count": 4, "partition": "orders"}'
    assert (request.method, str(request.url), request.content.decode()) == ("POST", "https://tickets.example/", body)
    assert (request.headers["content-type"], request.headers["authorization"]) == (
        "application/json",
        f"signed POST https://tickets.example/ {body}",
    )


def test_mint_from_the_default_counter(opened: Open) -> None:
    """A mint from the default counter does not name it, because the function knows its name."""
    source, function = opened(httpx.Response(200, json=BLOCK))
    mint(source, None, 4)
    assert json.loads(function.requests[0].content) == {"count": 4}


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("once:a1", '"once:a1"'),
        ("order-17", '"order-17"'),
        ('say "a\\b"', '"say \\"a\\\\b\\""'),
    ],
)
def test_idempotency_key(opened: Open, key: str, header: str) -> None:
    """The key is sent in its header as a quoted string, which the signature covers."""
    covered: list[Mapping[str, str]] = []

    def sign(*request: Any) -> Mapping[str, str]:
        covered.append(request[2])
        return covered[0]

    source, function = opened(httpx.Response(200, json=BLOCK | {"replayed": True}), sign=sign)
    assert mint(source, "orders", 4, key=key).replayed is True
    sent = function.requests[0].headers
    assert (covered[0].get("idempotency-key"), sent.get("idempotency-key")) == (header, header)


@pytest.mark.parametrize(("within", "connect"), [(0.5, 0.5), (9.0, 3.0)])
def test_a_mint_ends_within_what_it_is_given(opened: Open, within: float, connect: float) -> None:
    """Each step of a mint is limited by the remaining seconds, and opening a connection by at most three."""
    source, function = opened(httpx.Response(200, json=BLOCK))
    mint(source, "orders", 4, seconds=within)
    limits = {"connect": connect, "read": within}
    assert function.requests[0].extensions["timeout"] == pytest.approx(limits, abs=0.2)


@pytest.mark.parametrize(("word", "gaps"), [(True, ("tickets.example",)), (False, ()), ("true", ())])
def test_a_possible_gap_that_the_function_reports(opened: Open, word: object, gaps: tuple[str, ...]) -> None:
    """If the function reports a possible gap after its own retry, the block has it."""
    source, _ = opened(httpx.Response(200, json=BLOCK | {"possible_gap": word}))
    assert mint(source, "orders", 4).possible_gaps == gaps


def test_counter(opened: Open) -> None:
    """A counter is read with GET, its name encoded in the URL that is signed."""
    name = "a b/ü&c=1"
    source, function = opened(httpx.Response(200, json=COUNTER | {"partition": name}))
    assert counter(source, name) == Counter(
        partition=name, last=17, increment=3, ceiling=100, remaining=27, minted_at=None
    )
    (request,) = function.requests
    url = "https://tickets.example/status?partition=a%20b%2F%C3%BC%26c%3D1"
    assert (request.method, request.url.raw_path.decode(), request.headers["authorization"]) == (
        "GET",
        "/status?partition=a%20b%2F%C3%BC%26c%3D1",
        f"signed GET {url} ",
    )


def test_default_counter(opened: Open) -> None:
    """The default counter is read without a name in the URL."""
    source, function = opened(httpx.Response(200, json=COUNTER))
    counter(source, None)
    assert str(function.requests[0].url) == "https://tickets.example/status"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (httpx.Response(200, text="<html>"), "status 200"),
        (httpx.Response(200), "status 200"),
        (httpx.Response(200, headers={"content-type": "application/json"}, content=b"{"), "status 200"),
        (httpx.Response(200, headers={"content-type": "application/json"}, content=b'"\xff"'), "status 200"),
        (httpx.Response(200, json=[BLOCK]), "status 200"),
        (httpx.Response(200, json={"hand_crafted_int": 17}), "not a ticket server's answer: partition is None"),
        (httpx.Response(200, json=BLOCK | {"count": 3}), "not a block: its numbers contradict each other"),
        (httpx.Response(200, json=BLOCK | {"last": 18}), "not a block: its numbers contradict each other"),
    ],
    ids=repr,
)
def test_useless_answer(opened: Open, answer: httpx.Response, what: str) -> None:
    """A 200 without a block means that a ticket may have been spent."""
    source, _ = opened(answer)
    assert failure(lambda: mint(source, "orders", 4)) == (
        OutcomeUnknownError,
        UNKNOWN.format(what),
        LOOK,
        "outcome_unknown",
        8,
    )


@pytest.mark.parametrize(
    "block",
    [
        {"count": 0, "first": 18, "last": 17},
        {"first": 1, "last": 10**30},
        {"increment": 0},
        {"first": None},
        {"partition": "invoices"},
        {"first": 17, "count": 1},
    ],
    ids=str,
)
def test_contradicting_block(opened: Open, block: dict[str, Any]) -> None:
    """An invalid block, or one that was not requested, is never returned."""
    source, _ = opened(httpx.Response(200, json=BLOCK | block))
    kind, *_, exit_code = failure(lambda: mint(source, "orders", 4))
    assert (kind, exit_code) == (OutcomeUnknownError, 8)


def test_infinity(opened: Open) -> None:
    """A number that JSON parsers read as infinity is not a ticket."""
    body = json.dumps(BLOCK | {"last": float("inf")}).encode()
    source, _ = opened(httpx.Response(200, headers={"content-type": "application/json"}, content=body))
    assert failure(lambda: mint(source, "orders", 4))[0] is OutcomeUnknownError


def test_broken_encoding(opened: Open) -> None:
    """If an answer cannot be decoded, a ticket may have been spent."""

    class Garbage(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"garbage"

    source, _ = opened(httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Garbage()))
    assert failure(lambda: mint(source, "orders", 4))[0] is OutcomeUnknownError


def test_media_type_in_capitals(opened: Open) -> None:
    """The media type may be in capitals and have parameters."""
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    source, _ = opened(httpx.Response(200, headers=headers, content=json.dumps(BLOCK).encode()))
    assert mint(source, "orders", 4).last == 17


def test_signs_after_a_refusal(opened: Open) -> None:
    """If it is unknown whether the URL needs signatures, the first 403 shows it, and later requests are signed."""
    forbidden = httpx.Response(403, json={"Message": "Forbidden"}, headers=BY_AWS)
    source, function = opened(
        forbidden, httpx.Response(200, json=BLOCK), httpx.Response(200, json=BLOCK), signs_at_once=False
    )
    assert [mint(source, "orders", 4).last for _ in range(2)] == [17, 17]
    body = '{"count": 4, "partition": "orders"}'
    assert [(request.content.decode(), request.headers.get("authorization")) for request in function.requests] == [
        (body, None),
        (body, f"signed POST https://tickets.example/ {body}"),
        (body, f"signed POST https://tickets.example/ {body}"),
    ]


@pytest.mark.parametrize("answer", [problem(504, "outcome_unknown"), httpx.Response(502)], ids=["function", "proxy"])
def test_the_function_may_write_again(opened: Open, answer: httpx.Response) -> None:
    """The function sends a write again if its outcome is unknown, so a later replay proves little."""
    source, _ = opened(answer)
    with pytest.raises(OutcomeUnknownError) as caught:
        mint(source, "orders", 4)
    assert caught.value.may_write_again


def test_a_403_that_is_not_from_aws(opened: Open) -> None:
    """A proxy's 403 may hide a mint, so the outcome is unknown; the retry is signed. A read is sent again at once."""
    page = httpx.Response(403, text="<p>The proxy says no.</p>")
    source, function = opened(page, httpx.Response(200, json=BLOCK), signs_at_once=False)
    assert failure(lambda: mint(source, "orders", 4))[0] is OutcomeUnknownError
    assert len(function.requests) == 1
    assert mint(source, "orders", 4).last == 17
    assert "authorization" in function.requests[1].headers
    source, function = opened(page, httpx.Response(200, json=COUNTER), signs_at_once=False)
    assert counter(source, "orders").partition == "orders"
    assert "authorization" in function.requests[1].headers


def test_open_url_is_not_signed(opened: Open) -> None:
    """A request to a public URL is not signed, so it does not identify the caller."""
    source, function = opened(httpx.Response(200, json=BLOCK), signs_at_once=False)
    mint(source, "orders", 4)
    assert "authorization" not in function.requests[0].headers


@pytest.mark.parametrize(("signs_at_once", "sent"), [(True, 1), (False, 2)])
def test_refused_signature(opened: Open, signs_at_once: bool, sent: int) -> None:
    """If a signed request is rejected, the error names both permissions, and nothing is sent again."""
    forbidden = [httpx.Response(403, json={"Message": DENIED}, headers=BY_AWS) for _ in range(sent)]
    source, function = opened(*forbidden, signs_at_once=signs_at_once)
    assert failure(lambda: mint(source, "orders", 4)) == (
        AccessError,
        f"tickets.example refused the request (403): {DENIED}",
        PERMISSIONS,
        "access_denied",
        4,
    )
    assert len(function.requests) == sent


@pytest.mark.parametrize(
    ("code", "message", "kind", "exit_code", "hint"),
    [
        ("AccessDeniedException", "Forbidden", AccessError, 4, UNSIGNED),
        ("MissingAuthenticationTokenException", "Missing Authentication Token", AccessError, 4, "without a signature"),
        ("InvalidSignatureException", LATE, SetupError, 3, "set the clock of this machine"),
        ("InvalidSignatureException", EARLY, SetupError, 3, "set the clock of this machine"),
        ("InvalidSignatureException", MISMATCH, AccessError, 4, "check the secret access key"),
        ("UnrecognizedClientException", INVALID, AccessError, 4, "check the access key"),
        ("ExpiredTokenException", EXPIRED, ExpiredCredentialsError, 4, "aws sso login"),
        ("AccessDeniedException", EXPIRED, ExpiredCredentialsError, 4, "aws sso login"),
        ("InvalidSignatureException:http://internal.amazon.com/coral/", MISMATCH, AccessError, 4, "check the secret"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
@pytest.mark.parametrize("name", ["Message", "message"])
def test_kinds_of_403(
    opened: Open, code: str, message: str, kind: type[TicketctlError], exit_code: int, hint: str, name: str
) -> None:
    """Each reason for a 403 has its own hint; nothing was minted, and nothing is retried."""
    headers = {"x-amzn-errortype": code, "x-amzn-requestid": "1"}
    source, function = opened(httpx.Response(403, json={name: message}, headers=headers))
    found = failure(lambda: mint(source, "orders", 4))
    assert (found[0], found[4], len(function.requests)) == (kind, exit_code, 1)
    assert message in found[1]
    assert hint in found[2]
    assert ("the clock of this machine is wrong" in found[1]) == (kind is SetupError)


def test_refused_without_a_reason(opened: Open) -> None:
    """A 403 with an empty body is a missing permission if it is from AWS."""
    source, _ = opened(httpx.Response(403, headers=BY_AWS))
    assert failure(lambda: mint(source, "orders", 4))[:2] == (
        AccessError,
        "tickets.example refused the request (403): no reason given",
    )


REFUSALS = [
    (problem(400, "bad_request"), UsageError, "why", "", "usage", 2),
    (problem(409, "counter_exhausted"), CounterExhaustedError, "why", "", "counter_exhausted", 6),
    (problem(409, "counter_invalid"), CounterInvalidError, "why", "", "counter_invalid", 6),
    (
        problem(409, "counter_frozen"),
        CounterFrozenError,
        "why",
        "ticketctl counter thaw 'o'\"'\"'clock rm -rf'",
        "counter_frozen",
        6,
    ),
    (
        problem(409, "counter_gapless"),
        CounterGaplessError,
        "why",
        "take the number together with its record, from Python: TicketClient.claim",
        "counter_gapless",
        6,
    ),
    (problem(409, "idempotency_conflict"), IdempotencyConflictError, "why", "", "idempotency_conflict", 6),
    (problem(429, "throttled"), ThrottledError, "why", "try again", "throttled", 7),
    (problem(503, "unavailable"), NotMintedError, "why", "try again", "unavailable", 7),
    (
        httpx.Response(400, json={"message": "no"}, headers={"x-amzn-errortype": "InvalidRequest"}),
        RefusedError,
        "tickets.example refused the request (400, InvalidRequest): no",
        "",
        "refused",
        6,
    ),
    (
        problem(404, "not_found"),
        NotDeployedError,
        "there is no ticket server at tickets.example (404)",
        "ticketctl deploy",
        "not_deployed",
        5,
    ),
    (
        httpx.Response(404, text="Not Found", headers=BY_AWS),
        NotDeployedError,
        "there is no ticket server at tickets.example (404)",
        "ticketctl deploy",
        "not_deployed",
        5,
    ),
    (
        httpx.Response(429, json={"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}, headers=BY_AWS),
        ThrottledError,
        "tickets.example is throttling (429); nothing was minted",
        "try again",
        "throttled",
        7,
    ),
    (
        problem(404, "unknown_counter"),
        UnknownCounterError,
        'there is no counter "o\'clock rm -rf"',
        "ticketctl counter create 'o'\"'\"'clock rm -rf'",
        "unknown_counter",
        5,
    ),
]


@pytest.mark.parametrize("call", ["mint", "counter"])
@pytest.mark.parametrize(("answer", "kind", "message", "hint", "code", "exit_code"), REFUSALS)
def test_refusal(
    opened: Open,
    call: str,
    answer: httpx.Response,
    kind: type[TicketctlError],
    message: str,
    hint: str,
    code: str,
    exit_code: int,
) -> None:
    """An error of the function or of AWS becomes the matching exception, and nothing was minted."""
    source, _ = opened(answer)
    ask = {"mint": lambda: mint(source, "o'clock rm -rf", 1), "counter": lambda: counter(source, "o'clock rm -rf")}
    assert failure(ask[call]) == (kind, message, hint, code, exit_code)


def test_default_counter_that_never_minted(opened: Open) -> None:
    """If the default counter does not exist, the hint says that its first mint creates it."""
    source, _ = opened(problem(404, "unknown_counter"))
    assert failure(lambda: counter(source, None)) == (
        UnknownCounterError,
        "the default counter has not minted yet",
        "ticketctl next",
        "unknown_counter",
        5,
    )


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 407, 408, 429, 499, 500, 502, 503, 504])
def test_answer_of_another_server(opened: Open, status: int) -> None:
    """After a failure that the function did not report, the outcome is unknown."""
    source, _ = opened(plain(status))
    assert failure(lambda: mint(source, "orders", 4)) == (
        OutcomeUnknownError,
        UNKNOWN.format(f"status {status}"),
        LOOK,
        "outcome_unknown",
        8,
    )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, json={"code": "unavailable", "msg": "upstream timeout"}),
        httpx.Response(400, json={"code": "throttled"}),
        problem(504, "unavailable"),
        problem(408, "client_timeout"),
        problem(404, "counter_exhausted"),
    ],
    ids=["RPC error", "JSON with a code", "another status", "another code", "a code with another status"],
)
def test_code_of_a_gateway(opened: Open, answer: httpx.Response) -> None:
    """A code counts only in a problem document with the status that belongs to the code."""
    source, _ = opened(answer)
    what = UNKNOWN.format(f"status {answer.status_code}")
    assert failure(lambda: mint(source, "orders", 4)) == (OutcomeUnknownError, what, LOOK, "outcome_unknown", 8)


def test_outcome_unknown_to_the_function(opened: Open) -> None:
    """If the function reports an unknown outcome, the outcome is unknown; it may have sent its write twice."""
    source, _ = opened(*[problem(504, "outcome_unknown")] * 2)
    assert failure(lambda: mint(source, "orders", 4)) == (OutcomeUnknownError, "why", "", "outcome_unknown", 8)
    with pytest.raises(OutcomeUnknownError) as raised:
        mint(source, "orders", 4)
    assert raised.value.may_write_again


def test_redirect(opened: Open) -> None:
    """A redirect is not followed, because its target would get a signed request."""
    source, function = opened(httpx.Response(301, headers={"location": "https://elsewhere.example/"}))
    assert failure(lambda: mint(source, "orders", 4))[:2] == (OutcomeUnknownError, UNKNOWN.format("status 301"))
    assert len(function.requests) == 1


@pytest.mark.parametrize("error", BEFORE_SENDING, ids=repr)
def test_nothing_sent(opened: Open, error: Exception) -> None:
    """If no connection was opened, nothing was minted."""
    source, _ = opened(error)
    assert failure(lambda: mint(source, "orders", 4)) == (
        UnreachableError,
        f"tickets.example cannot be reached: {error}; nothing was minted",
        "try again; ticketctl url shows the address",
        "unreachable",
        7,
    )


@pytest.mark.parametrize("error", AFTER_SENDING, ids=repr)
def test_no_answer(opened: Open, error: Exception) -> None:
    """If the request may have arrived, the outcome is unknown, and the source does not send it again."""
    source, function = opened(error)
    assert failure(lambda: mint(source, "orders", 4)) == (
        OutcomeUnknownError,
        UNKNOWN.format(error),
        LOOK,
        "outcome_unknown",
        8,
    )
    assert len(function.requests) == 1


@pytest.mark.parametrize(
    "answer", [*BEFORE_SENDING, *AFTER_SENDING, *(plain(status) for status in (301, 500, 502, 503, 504))], ids=repr
)
def test_reading_spends_nothing(opened: Open, answer: httpx.Response | Exception) -> None:
    """Reading a counter never mints, however the request ends."""
    source, _ = opened(answer)
    kind, _, _, code, exit_code = failure(lambda: counter(source, "orders"))
    assert (kind, code, exit_code) == (UnreachableError, "unreachable", 7)


def test_invalid_counter(opened: Open) -> None:
    """A 200 that is not a valid counter is no usable answer."""
    source, _ = opened(httpx.Response(200, json={"partition": "orders"}))
    assert failure(lambda: counter(source, "orders")) == (
        UnreachableError,
        "tickets.example gave no usable answer (not a ticket server's answer: minted_at is None)",
        "try again",
        "unreachable",
        7,
    )


def test_another_counter(opened: Open) -> None:
    """The state of a counter that was not asked for is never returned."""
    source, _ = opened(httpx.Response(200, json=COUNTER | {"partition": "invoices"}))
    assert failure(lambda: counter(source, "orders"))[:2] == (
        UnreachableError,
        "tickets.example gave no usable answer (not the requested counter)",
    )


def test_invalid_address(opened: Open) -> None:
    """An invalid URL is wrong usage."""
    source, _ = opened(url="https://tickets.example:port")
    assert failure(lambda: mint(source, "orders", 4))[0] is UsageError


def test_password_in_the_address(opened: Open) -> None:
    """A password in the URL is never shown."""
    source, _ = opened(httpx.Response(500), url="https://user:secret@tickets.example")
    assert failure(lambda: mint(source, "orders", 4))[1] == UNKNOWN.format("status 500")


def test_a_slow_403() -> None:
    """A request that is sent again with a signature gets only the remaining time."""

    def slowly_refuses(talk: Talk) -> None:
        while talk.receives() is not None and not talk.peer.stopped.wait(0.6):
            talk.sends(
                b"HTTP/1.1 403 Forbidden\r\nX-Amzn-ErrorType: AccessDeniedException\r\nContent-Length: 0\r\n\r\n"
            )

    with Peer(slowly_refuses) as server:
        source = UrlSource(FunctionUrl(server.url, sign=sign, signs_at_once=False), HttpClient(direct=True))
        begun = time.monotonic()
        with closing(source), pytest.raises(OutcomeUnknownError):
            source.mint(requested(1, partition="orders"), Deadline(0.9))
        assert time.monotonic() - begun < 1.3


@pytest.mark.parametrize(("partition", "is_ours"), [("eu-west-1", True), ("us-east-1", False), ("orders", False)])
def test_the_default_counter_has_the_name_of_its_region(partition: str, is_ours: bool) -> None:
    """A block of another counter is no answer to a mint from the default counter."""
    function = Function(httpx.Response(200, json=BLOCK | {"partition": partition}))
    url = FunctionUrl("https://tickets.example", sign=sign, signs_at_once=False, place="eu-west-1")
    source = UrlSource(url, ScriptedTransport(function))
    if is_ours:
        assert mint(source, None, 4).partition == partition
    else:
        assert failure(lambda: mint(source, None, 4))[0] is OutcomeUnknownError


def test_numbers_beyond_the_largest(opened: Open) -> None:
    """A ticket above 2^53 - 1 is an invalid answer."""
    huge = {"partition": "orders", "first": 10**30, "last": 10**30, "count": 1, "increment": 1}
    source, _ = opened(httpx.Response(200, json=huge))
    assert failure(lambda: mint(source, "orders", 1))[0] is OutcomeUnknownError

"""``claim``: the requests for a number, and what each answer of DynamoDB means."""

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.session import Session
from botocore.stub import Stubber

from tests.support.counter_items import item, number
from ticketctl.aws.dynamodb import TransactionCanceledError, sdk_sender
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    ClaimRefusedError,
    CounterExhaustedError,
    CounterFrozenError,
    CounterInvalidError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    Refusal,
    RefusedError,
    ThrottledError,
    TicketctlError,
    UnknownCounterError,
    UsageError,
)
from ticketctl.minting.claim import Claims

GAPLESS = {"S": "gapless"}
OK: dict[str, Any] = {}
UNKNOWN = OutcomeUnknownError("no answer")
CONFLICT: dict[str, Any] = {"Code": "TransactionConflict", "Message": "busy"}
HOLDS: dict[str, Any] = {"Code": "None"}
FAILED: dict[str, Any] = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}

Answer = Mapping[str, Any] | Exception


def counter(last: int, **more: Any) -> dict[str, Any]:
    return item("invoices", last, **{"frozen": GAPLESS, **more})


def read(last: int, **more: Any) -> dict[str, Any]:
    return {"Item": counter(last, **more)}


def lost(last: int, **more: Any) -> TransactionCanceledError:
    """The answer if another claim was faster."""
    return TransactionCanceledError([{**FAILED, "Item": counter(last, **more)}, HOLDS])


def canceled(*reasons: Mapping[str, Any]) -> TransactionCanceledError:
    return TransactionCanceledError(reasons)


def put(value: int) -> list[dict[str, Any]]:
    return [
        {
            "Put": {
                "TableName": "Bills",
                "Item": {"id": number(value)},
                "ConditionExpression": "attribute_not_exists(id)",
            }
        }
    ]


class DynamoDB:
    """Returns prepared answers in order, and keeps the requests and the pauses of the claim."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, Mapping[str, Any]]] = []
        self.pauses: list[float] = []
        self.now = 0.0
        self.claims = Claims(
            lambda _: self.send, "Tickets", clock=lambda: 7.0, sleep=self.sleep, jitter=lambda _, bound: bound
        )

    def send(self, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        self.sent.append((operation, copy.deepcopy(request)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def claim(self, writes: Callable[[int], Any] = put, seconds: float = 30.0) -> int:
        return self.claims.claim("invoices", writes, Deadline(seconds, clock=lambda: self.now))

    def failure(self, writes: Callable[[int], Any] = put, seconds: float = 30.0) -> TicketctlError:
        with pytest.raises(TicketctlError) as raised:
            self.claim(writes, seconds)
        return raised.value

    @property
    def transactions(self) -> list[Mapping[str, Any]]:
        return [request for operation, request in self.sent if operation == "TransactWriteItems"]

    @property
    def tried(self) -> list[int]:
        """Return the number of each transaction, which is the same in the counter's update and the caller's record."""
        return [numbers_of(request) for request in self.transactions]


def numbers_of(request: Mapping[str, Any]) -> int:
    own, record = request["TransactItems"]
    found = {own["Update"]["ExpressionAttributeValues"][":new"]["N"], record["Put"]["Item"]["id"]["N"]}
    assert len(found) == 1
    return int(found.pop())


# --- the request -------------------------------------------------------------------------------------


def test_the_request() -> None:
    """A claim is one transaction with a token: the counter's conditional update, then the caller's writes."""
    dynamodb = DynamoDB(read(41), OK)
    assert dynamodb.claim() == 42
    (read_request, (operation, request)) = dynamodb.sent
    assert read_request == (
        "GetItem",
        {"TableName": "Tickets", "Key": {"partition": {"S": "invoices"}}, "ConsistentRead": True},
    )
    assert operation == "TransactWriteItems"
    own, *others = request["TransactItems"]
    assert own == {
        "Update": {
            "TableName": "Tickets",
            "Key": {"partition": {"S": "invoices"}},
            "UpdateExpression": "SET #last = :new, #minted_at = :now",
            "ConditionExpression": "#last = :seen AND #frozen = :gapless AND attribute_not_exists(#increment)"
            " AND attribute_not_exists(#ceiling)",
            "ExpressionAttributeNames": {
                "#last": "hand_crafted_int",
                "#frozen": "frozen",
                "#increment": "increment",
                "#ceiling": "ceiling",
                "#minted_at": "minted_at",
            },
            "ExpressionAttributeValues": {
                ":seen": number(41),
                ":new": number(42),
                ":gapless": GAPLESS,
                ":now": number(7000),
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }
    assert others == put(42)
    assert 1 <= len(request["ClientRequestToken"]) <= 36


def test_a_ceiling_is_a_condition() -> None:
    """The update succeeds only if the counter still has the ceiling that was read; the ceiling itself can be taken."""
    dynamodb = DynamoDB(read(41, ceiling=number(42)), OK, read(42, ceiling=number(42)))
    assert dynamodb.claim() == 42
    update = dynamodb.transactions[0]["TransactItems"][0]["Update"]
    assert update["ConditionExpression"].endswith(" AND #ceiling = :ceiling")
    assert update["ExpressionAttributeValues"][":ceiling"] == number(42)
    assert isinstance(dynamodb.failure(), CounterExhaustedError)


def test_the_last_number_is_remembered() -> None:
    """Only the first claim reads the counter; each claim has its own token."""
    dynamodb = DynamoDB(read(0), OK, OK, OK)
    assert [dynamodb.claim() for _ in range(3)] == [1, 2, 3]
    assert [operation for operation, _ in dynamodb.sent] == ["GetItem"] + ["TransactWriteItems"] * 3
    assert len({request["ClientRequestToken"] for request in dynamodb.transactions}) == 3


# --- what an answer means ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [UNKNOWN, canceled(HOLDS, CONFLICT), canceled(CONFLICT, HOLDS), ThrottledError("slow")]
)
def test_what_may_have_been_received_is_sent_again_unchanged(failure: Exception) -> None:
    """After an unknown answer or a conflict, the same request is sent with the same token; writes are built once."""
    dynamodb, built = DynamoDB(read(0), failure, failure, OK), []

    def writes(value: int) -> list[dict[str, Any]]:
        built.append(put(value))
        return built[-1]

    assert dynamodb.claim(writes) == 1
    one, two, three = dynamodb.transactions
    assert one == two == three
    assert len(built) == 1


def test_the_writes_are_copied() -> None:
    """The writes are copied, so changes that the caller makes later are not sent."""
    dynamodb, kept = DynamoDB(read(0), UNKNOWN, OK), put(1)
    dynamodb.claims._sleep = lambda _: kept[0]["Put"]["Item"].update(id=number(9))
    assert dynamodb.claim(lambda _: kept) == 1
    assert dynamodb.tried == [1, 1]


def test_a_lost_race_tries_the_next_number_at_once() -> None:
    """After a lost race the next number is tried immediately, without a read, in a new request with a new token."""
    dynamodb = DynamoDB(read(0), lost(4), lost(5), OK, OK)
    assert dynamodb.claim() == 6
    assert (dynamodb.tried, dynamodb.pauses) == ([1, 5, 6], [])
    assert len({request["ClientRequestToken"] for request in dynamodb.transactions}) == 3
    assert dynamodb.claim() == 7


def test_a_conflict_waits() -> None:
    """After a conflict the claim waits; the pauses double from 20 ms to 1 s."""
    dynamodb = DynamoDB(read(0), *[canceled(HOLDS, CONFLICT)] * 8, OK)
    assert dynamodb.claim() == 1
    assert dynamodb.pauses == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]


def test_a_conflict_until_the_deadline() -> None:
    """If the items stay busy until the deadline, no number was taken, and a retry is safe."""
    dynamodb = DynamoDB(read(0), *[canceled(HOLDS, CONFLICT)] * 99)
    failure = dynamodb.failure(seconds=5)
    assert type(failure) is NotMintedError
    assert failure.message == "1 of 'invoices' was not taken: its items are busy"
    assert 4 < dynamodb.now < 5


def test_others_are_faster_until_the_deadline() -> None:
    """A claim that loses every race ends at its deadline, and no number was taken."""
    dynamodb = DynamoDB(read(0), *[lost(last) for last in range(1, 999)])
    send = dynamodb.send

    def slowly(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        dynamodb.now += 0.1
        return send(operation, request)

    dynamodb.send = slowly  # type: ignore[method-assign]
    assert type(dynamodb.failure(seconds=5)) is NotMintedError
    assert 5 <= dynamodb.now < 5.5


def test_unknown_until_the_deadline() -> None:
    """If the outcome is unknown until the deadline, the error has the number that may have been taken."""
    dynamodb = DynamoDB(read(7), *[UNKNOWN] * 99)
    failure = dynamodb.failure(seconds=5)
    assert isinstance(failure, OutcomeUnknownError)
    assert (failure.number, failure.exit_code) == (8, 8)
    assert failure.message == "it is unknown if 8 of 'invoices' was taken: no answer"


def test_a_claim_ends_before_the_token_does() -> None:
    """DynamoDB forgets a token after 600 s, so a claim takes at most 300 s."""
    dynamodb = DynamoDB(read(7), *[UNKNOWN] * 9999)
    assert isinstance(dynamodb.failure(seconds=9999), OutcomeUnknownError)
    assert dynamodb.now <= 300


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(ThrottledError("slow"), id="throttled"),
        pytest.param(AccessError("denied"), id="denied"),
        pytest.param(canceled(HOLDS, FAILED), id="the caller's own condition"),
        pytest.param(lost(0, frozen={"S": "gapless-frozen"}), id="frozen"),
        pytest.param(canceled(FAILED, HOLDS), id="gone"),
    ],
)
def test_after_an_unknown_attempt_only_the_counter_says_not_taken(then: Exception) -> None:
    """After an unknown attempt, other failures leave the outcome unknown: the first request may still arrive."""
    failure = DynamoDB(read(0), UNKNOWN, *[then] * 99).failure(seconds=1)
    assert isinstance(failure, OutcomeUnknownError)
    assert failure.number == 1


def test_after_an_unknown_attempt_a_counter_that_moved_on_settles_it() -> None:
    """If the counter moved on after an unknown attempt, another claim took that number, and the next one is tried."""
    dynamodb = DynamoDB(read(0), UNKNOWN, lost(1), OK)
    assert dynamodb.claim() == 2
    assert dynamodb.tried == [1, 1, 2]
    dynamodb = DynamoDB(read(0), UNKNOWN, lost(1), canceled(HOLDS, FAILED))
    assert isinstance(dynamodb.failure(), ClaimRefusedError)


def test_the_callers_own_condition() -> None:
    """The error names each write that DynamoDB rejected; no number was taken, and the counter is not read again."""
    theirs = {**FAILED, "Item": {"id": number(1)}}
    dynamodb = DynamoDB(read(0), canceled(HOLDS, HOLDS, theirs, {"Code": "ValidationError", "Message": "no key"}), OK)

    def three(value: int) -> list[dict[str, Any]]:
        return [*put(value), *put(value + 100), *put(value + 200)]

    refused = dynamodb.failure(three)
    assert isinstance(refused, ClaimRefusedError)
    assert refused.refusals == (
        Refusal(1, "ConditionalCheckFailed", "The conditional request failed", {"id": number(1)}),
        Refusal(2, "ValidationError", "no key", None),
    )
    assert refused.message == (
        "write 1 (ConditionalCheckFailed), write 2 (ValidationError: no key) refused 1 of 'invoices'; "
        "nothing was written and no number was taken"
    )
    assert dynamodb.claim() == 1
    assert [operation for operation, _ in dynamodb.sent].count("GetItem") == 1


@pytest.mark.parametrize("reasons", [(HOLDS, FAILED, CONFLICT), (CONFLICT, FAILED, HOLDS)])
def test_a_conflict_hides_the_callers_own_condition(reasons: Sequence[Mapping[str, Any]]) -> None:
    """If there was also a conflict, the claim is retried, because the caller's condition may hold afterwards."""
    assert DynamoDB(read(0), canceled(*reasons), OK).claim() == 1


def test_a_lost_race_hides_the_callers_own_condition() -> None:
    """If the race was lost too, the claim is retried, because the caller's condition was checked for another number."""
    both = TransactionCanceledError([{**FAILED, "Item": counter(1)}, FAILED])
    assert DynamoDB(read(0), both, OK).claim() == 2


@pytest.mark.parametrize(
    ("found", "error", "told"),
    [
        ({}, UnknownCounterError, "there is no counter 'invoices'"),
        ({"Item": item("invoices", 7)}, RefusedError, "is not gapless"),
        ({"Item": item("invoices", 7, frozen={"BOOL": True})}, RefusedError, "is not gapless"),
        (read(7, frozen={"S": "gapless-frozen"}), CounterFrozenError, "is frozen"),
        (read(7, increment=2), CounterInvalidError, "has an increment"),
        (read(-1), CounterInvalidError, "its next number would be 0"),
        (read(7, ceiling=number(7)), CounterExhaustedError, "no number left below its ceiling 7"),
        (read(2**53 - 1), CounterExhaustedError, "no number left"),
        ({"Item": {"partition": {"S": "invoices"}, "frozen": GAPLESS}}, CounterInvalidError, "hand_crafted_int"),
    ],
)
def test_a_counter_that_has_no_number(found: dict[str, Any], error: type[TicketctlError], told: str) -> None:
    """If the counter cannot issue a number, nothing is sent, the error says why, and the next claim reads it again."""
    dynamodb = DynamoDB(found, read(7), OK)
    failure = dynamodb.failure()
    assert type(failure) is error
    assert told in failure.message
    assert dynamodb.transactions == []
    assert dynamodb.claim() == 8


def test_the_largest_number() -> None:
    """The last number of a counter is 2^53 - 1."""
    assert DynamoDB(read(2**53 - 2), OK).claim() == 2**53 - 1


def test_frozen_while_it_is_known() -> None:
    """If a known counter is frozen, the rejected claim says so; after a thaw, claims continue."""
    stopped = {"S": "gapless-frozen"}
    dynamodb = DynamoDB(read(0), OK, lost(1, frozen=stopped), read(1), OK)
    assert dynamodb.claim() == 1
    assert isinstance(dynamodb.failure(), CounterFrozenError)
    assert dynamodb.claim() == 2


def test_a_read_is_tried_again() -> None:
    """If reading the counter fails temporarily, it is retried until the deadline."""
    assert DynamoDB(NotMintedError("down"), NotMintedError("down"), read(0), OK).claim() == 1
    assert type(DynamoDB(*[NotMintedError("down")] * 99).failure(seconds=1)) is NotMintedError
    assert type(DynamoDB(AccessError("denied")).failure()) is AccessError


# --- the caller's writes -----------------------------------------------------------------------------

PLAIN = {"Put": {"TableName": "Bills", "Item": {"id": {"N": "1"}}}}
CHECK = {"ConditionCheck": {"TableName": "B", "Key": {"id": {"N": "1"}}, "ConditionExpression": "attribute_exists(id)"}}
OWN_KEY = {"partition": {"S": "invoices"}}
OTHER_KEY = {"partition": {"S": "orders"}}
CONDITION = {"ConditionExpression": "attribute_exists(#p)"}
TO_COUNTERS = "of the claim is to the counters' own table Tickets"
NO_UNICODE = "of the claim has text that is not Unicode"
ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table"


@pytest.mark.parametrize(
    ("writes", "told"),
    [
        ([], "1 to 99 writes"),
        (put(1) * 100, "1 to 99 writes"),
        (None, "1 to 99 writes"),
        (put(1)[0], "1 to 99 writes"),
        ((each for each in put(1)), "1 to 99 writes"),
        ([{**put(1)[0], "Delete": {}}], "must be a dictionary with one key"),
        ([{"Get": {}}], "must be a dictionary with one key"),
        (["Put"], "must be a dictionary with one key"),
        ([{"Put": None}], "does not name its item"),
        ([{"Update": {"TableName": "Bills"}}], "does not name its item"),
        ([PLAIN], "needs a condition"),
        ([{"Put": {**PLAIN["Put"], "ConditionExpression": ""}}], "needs a condition"),
        ([CHECK], "none of its writes is a Put or an Update"),
        ([*put(1), {"Put": {"TableName": "Tickets", "Item": {**OWN_KEY, "x": {"S": "y"}}}}], f"write 1 {TO_COUNTERS}"),
        ([{"Update": {"TableName": "Tickets", "Key": OWN_KEY, **CONDITION}}], f"write 0 {TO_COUNTERS}"),
        ([{"Update": {"TableName": "Tickets", "Key": OTHER_KEY, **CONDITION}}], TO_COUNTERS),
        ([*put(1), {"Delete": {"TableName": "Tickets", "Key": OTHER_KEY}}], TO_COUNTERS),
        ([*put(1), {"Put": {"TableName": f"{ARN}/Tickets", "Item": OTHER_KEY}}], TO_COUNTERS),
        ([*put(1), {"Put": {"TableName": f"{ARN}/Tickets/index/x", "Item": OTHER_KEY}}], TO_COUNTERS),
        ([{"ConditionCheck": {"TableName": "Tickets", "Key": OTHER_KEY, **CONDITION}}, *put(1)], TO_COUNTERS),
        *(
            ([*put(1), {"Put": {"TableName": "Bills", "Item": {"id": number(1), **broken}}}], f"write 1 {NO_UNICODE}")
            for broken in (
                {"name": {"S": "a\ud800"}},
                {"na\udfffme": {"S": "a"}},
                {"names": {"SS": {"a", "\ud800"}}},
                {"names": {"L": [{"M": {"x": {"S": "\ud800"}}}]}},
            )
        ),
        ([{"Put": {**put(1)[0]["Put"], "TableName": "\udc80"}}], f"write 0 {NO_UNICODE}"),
    ],
)
def test_writes_that_are_refused(writes: Any, told: str) -> None:
    """Invalid writes are a ``UsageError``; nothing is sent, and the next claim takes the number."""
    dynamodb = DynamoDB(read(0), read(0), OK)
    with pytest.raises(UsageError, match=told):
        dynamodb.claim(lambda _: writes)
    assert dynamodb.transactions == []
    assert dynamodb.claim() == 1


@pytest.mark.parametrize(
    "writes",
    [
        [CHECK, PLAIN],
        put(1) * 99,
        tuple(put(1)),
        [{"Update": {"TableName": "Bills", "Key": OWN_KEY, **CONDITION}}],
        [{"Update": {"TableName": f"{ARN}/Bills", "Key": OWN_KEY, **CONDITION}}],
        [*put(1), {"Put": {"TableName": "Bills", "Item": {"größe": {"SS": ["😀", "\0"]}, "b": {"B": b"\xff\xd8"}}}}],
    ],
)
def test_writes_that_are_sent(writes: Any) -> None:
    """Up to 99, one of them with a condition, to tables that are named or have an ARN."""
    dynamodb = DynamoDB(read(0), OK)
    assert dynamodb.claim(lambda _: writes) == 1
    assert dynamodb.transactions[0]["TransactItems"][1:] == list(writes)


def test_an_error_of_the_caller() -> None:
    """An exception in the caller's function is raised unchanged, and does not block other claims."""
    dynamodb = DynamoDB(read(0), read(0), OK)
    with pytest.raises(ZeroDivisionError):
        dynamodb.claim(lambda value: [1 // (value - 1)])
    assert dynamodb.claim() == 1


def test_a_claim_inside_a_claim() -> None:
    """A claim inside the caller's function is an error, because it would wait for itself; the outer claim continues."""
    dynamodb = DynamoDB(read(0), OK)

    def writes(value: int) -> list[dict[str, Any]]:
        with pytest.raises(UsageError, match="while building the writes"):
            dynamodb.claim()
        return put(value)

    assert dynamodb.claim(writes) == 1


def test_an_invalid_name() -> None:
    """A receipt's key is not a valid name of a counter."""
    with pytest.raises(UsageError, match="receipts"):
        DynamoDB().claims.claim("receipt#x", put, Deadline(1))


# --- the queue ---------------------------------------------------------------------------------------


def test_claims_are_served_in_order() -> None:
    """Threads that wait for a slow claim get the next numbers in the order of their calls."""
    dynamodb, started = DynamoDB(read(0), *[OK] * 9), threading.Event()

    def slow(value: int) -> list[dict[str, Any]]:
        started.set()
        time.sleep(0.2)
        return put(value)

    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(dynamodb.claim, slow)]
        started.wait()
        for _ in range(8):
            waiting.append(pool.submit(dynamodb.claim))
            time.sleep(0.01)
        assert [claim.result() for claim in waiting] == list(range(1, 10))


def test_a_claim_that_waits_too_long() -> None:
    """A claim that waits past its deadline takes no number, and does not block later claims or other counters."""
    dynamodb, started, go_on = DynamoDB(read(0), read(50), OK, OK, OK), threading.Event(), threading.Event()

    def stuck(value: int) -> list[dict[str, Any]]:
        started.set()
        go_on.wait(10)
        return put(value)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(dynamodb.claim, stuck)
        started.wait()
        impatient = pool.submit(dynamodb.claims.claim, "invoices", put, Deadline(0.05))
        patient = pool.submit(dynamodb.claims.claim, "invoices", put, Deadline(10))
        assert dynamodb.claims.claim("orders", put, Deadline(10)) == 51
        assert type(impatient.exception()) is NotMintedError
        go_on.set()
        assert (first.result(), patient.result()) == (1, 2)


# --- through the SDK ---------------------------------------------------------------------------------


def stubbed(*, reasons: Sequence[Mapping[str, Any]] = (), code: str = "", status: int = 400) -> Claims:
    """Claims with a real botocore client: a read, then a transaction that fails with an error or succeeds."""
    client = Session().create_client("dynamodb", "eu-west-1", aws_access_key_id="k", aws_secret_access_key="s")
    stub = Stubber(client)
    stub.add_response("get_item", read(0))
    if code:
        more = {"CancellationReasons": list(reasons)}
        stub.add_client_error("transact_write_items", code, "why", status, modeled_fields=more if reasons else None)
    for _ in range(3):
        stub.add_response("transact_write_items", {})
    stub.activate()
    return Claims(lambda _: sdk_sender(client, "the table"), "Tickets", sleep=lambda _: None)


@pytest.mark.parametrize(
    ("code", "status", "reasons"),
    [
        ("", 200, ()),
        ("TransactionCanceledException", 400, (HOLDS, CONFLICT)),
        ("TransactionCanceledException", 400, ()),
        ("TransactionInProgressException", 400, ()),
        ("InternalServerError", 500, ()),
        ("ThrottlingException", 400, ()),
    ],
)
def test_errors_after_which_the_sdk_is_asked_again(
    code: str, status: int, reasons: Sequence[Mapping[str, Any]]
) -> None:
    """After a conflict, a transaction in progress, a 5xx or throttling, the request is sent again."""
    assert stubbed(reasons=reasons, code=code, status=status).claim("invoices", put, Deadline(5)) == 1


@pytest.mark.parametrize(
    ("code", "reasons", "error", "told"),
    [
        ("TransactionCanceledException", (HOLDS, FAILED), ClaimRefusedError, "write 0 "),
        (
            "TransactionCanceledException",
            (HOLDS, {"Code": "ValidationError", "Message": "Missing the key id in the item"}),
            ClaimRefusedError,
            r"write 0 \(ValidationError: Missing the key id in the item\)",
        ),
        ("TransactionCanceledException", ({"Code": "ValidationError"}, HOLDS), RefusedError, "the counter 'invoices'"),
        ("ValidationException", (), RefusedError, "transaction on Tickets and Bills was refused: Valid"),
        ("IdempotentParameterMismatchException", (), RefusedError, "transaction on Tickets and Bills was refused"),
        ("AccessDeniedException", (), AccessError, "the transaction on Tickets and Bills: why"),
        ("ResourceNotFoundException", (), NotDeployedError, "on Tickets and Bills was refused: one of its tables does"),
    ],
)
def test_errors_that_end_a_claim(
    code: str, reasons: Sequence[Mapping[str, Any]], error: type[TicketctlError], told: str
) -> None:
    """What AWS refuses is told at once, with the write or with all tables of the transaction."""
    with pytest.raises(error, match=told) as raised:
        stubbed(reasons=reasons, code=code).claim("invoices", put, Deadline(5))
    assert type(raised.value) is error


def test_a_lost_race_through_the_sdk() -> None:
    """Through the SDK, the current item comes with the cancellation reasons."""
    race = ({**FAILED, "Item": counter(6)}, HOLDS)
    assert stubbed(reasons=race, code="TransactionCanceledException").claim("invoices", put, Deadline(5)) == 7


def test_writes_that_the_sdk_does_not_know() -> None:
    """An unknown parameter in a write is a ``UsageError`` before anything is sent."""
    with pytest.raises(UsageError, match="Unknown parameter"):
        stubbed().claim("invoices", lambda value: [{"Put": {**put(value)[0]["Put"], "Tablename": "x"}}], Deadline(5))

"""The table in memory answers as DynamoDB does: the same requests go to it and to the embedded AWS."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import DERANDOMIZED, times
from tests.support.make_counter import make_counter
from tests.support.model_table import Client, ModelTable
from ticketctl.aws.account import Aws
from ticketctl.aws.dynamodb import sdk_sender
from ticketctl.counters.handover import clear_offer, create_counter, offer, read_holding, release, take
from ticketctl.counters.lanes import Lane
from ticketctl.counters.table import Counters
from ticketctl.errors import TicketctlError
from ticketctl.handler import handler

TABLE = "model"
REGIONS = ("east", "north", "west")
HOUR = 60 * 60 * 1000


def plain(value: Any) -> Any:
    """Return an answer without its metadata, and with items, attributes, sets and maps in a fixed order."""
    if isinstance(value, dict):
        about = {"ResponseMetadata", "ConsumedCapacity", "LastEvaluatedKey", "Count", "ScannedCount"}
        return {name: plain(value[name]) for name in sorted(value) if name not in about}
    if isinstance(value, list):
        return sorted((plain(part) for part in value), key=str)
    return value


class Recorded(Client):
    """A client that keeps requests and answers. The regions share its table, each with its own names."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.heard: list[tuple[str, Any, Any]] = []

    def call(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        names = {"GetItem": "get_item", "PutItem": "put_item", "UpdateItem": "update_item", "DeleteItem": "delete_item"}
        names["Scan"] = "scan" if hasattr(self.client, "scan") else "call"
        ask = getattr(self.client, names[operation])
        try:
            answer: dict[str, Any] = ask("Scan", request) if names[operation] == "call" else ask(**request)
        except ClientError as error:
            code, item = error.response["Error"]["Code"], error.response.get("Item")
            self.heard.append((operation, plain(dict(request)), (code, plain(item))))
            raise
        if operation != "Scan":  # the length of a page is up to the server
            self.heard.append((operation, plain(dict(request)), plain(answer)))
        return answer

    def table(self, region: str) -> Counters:
        return Counters(self, TABLE, region=region)

    def items(self) -> list[Any]:
        """Return every item, including receipts."""
        pages = self.get_paginator("scan").paginate(TableName=TABLE, ConsistentRead=True)
        return sorted((plain(item) for page in pages for item in page["Items"]), key=str)


Step = Callable[[Recorded], object]


class Mint(NamedTuple):
    """A mint by a caller with a correct or wrong idea of the counter's lane."""

    name: str
    tickets: int
    lane: handler.Fence
    offset: int | None
    key: str | None
    now_ms: int

    def __call__(self, side: Recorded) -> object:
        send, (name, count, lane, offset, key, now_ms) = sdk_sender(side, TABLE), self
        if key is None:
            return handler.mint(send, TABLE, name, count, fence=lane, offset=offset, now_ms=now_ms)
        return handler.mint_with_key(send, TABLE, name, count, key=key, fence=lane, offset=offset, now_ms=now_ms)


class Receipt(NamedTuple):
    """Writes a receipt without reading it first, as after a lost race."""

    key: str
    first: int
    now_ms: int

    def __call__(self, side: Recorded) -> object:
        block = {"partition": "east", "first": self.first, "last": self.first, "count": 1, "increment": 1}
        return plain(
            sdk_sender(side, TABLE)("UpdateItem", handler.receipt_request(TABLE, self.key, block, self.now_ms))
        )


def taken(side: Recorded, donor: str, region: str) -> None:
    holding = read_holding(side.table(donor), donor)
    if holding is not None and region in holding.offers:
        take(side.table(region), region, holding)


def settled(side: Recorded, donor: str, region: str, beside: int) -> None:
    holding = read_holding(side.table(donor), donor)
    lane = holding.offers.get(region, Lane(1, 1)) if holding else Lane(1, 1)
    clear_offer(side.table(donor), donor, region, Lane(lane.offset + beside, lane.increment))


NAMES = st.sampled_from(REGIONS)
OTHERS = st.permutations(REGIONS).map(lambda names: names[:2]) | NAMES.map(lambda name: [name])
LANES = st.builds(Lane, st.integers(1, 9), st.integers(1, 4))
CEILINGS = st.sampled_from([None, None, 20, 40, 2**53 - 1])
KNOWN = st.builds(handler.Fence, st.integers(1, 4), st.sampled_from([2**53 - 1, 2**53 - 1, 40]))
OFFERS = st.dictionaries(NAMES, LANES, max_size=2)
TIMES = st.integers(1, 60).map(lambda hours: 1_700_000_000_000 + hours * HOUR)
MINTS = st.builds(
    Mint,
    NAMES,
    st.sampled_from([1, 1, 3, 20]),
    KNOWN,
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from([None, None, "k1", "k2", "once:1", "once:2"]),
    TIMES,
)


def created(name: str, lane: Lane, offers: Mapping[str, Lane], ceiling: int | None, *, pending: bool) -> Step:
    return lambda side: create_counter(side.table(name), name, lane, offers=offers, ceiling=ceiling, pending=pending)


STEPS: st.SearchStrategy[Step] = st.one_of(
    MINTS,
    MINTS,
    st.builds(Receipt, st.sampled_from(["k1", "k2"]), st.integers(1, 9), TIMES),
    st.builds(created, NAMES, LANES, OFFERS, CEILINGS, pending=st.booleans()),
    st.builds(
        lambda name, step, to: lambda side: offer(side.table(name), name, step, to), NAMES, st.integers(1, 4), OTHERS
    ),
    st.builds(lambda donor, region: lambda side: taken(side, donor, region), NAMES, NAMES),
    st.builds(
        lambda donor, region, beside: lambda side: settled(side, donor, region, beside),
        NAMES,
        NAMES,
        st.sampled_from([0, 0, 1]),
    ),
    st.builds(lambda name: lambda side: release(side.table(name), name), NAMES),
    st.builds(lambda name, to: lambda side: side.table(name).advance(name, to), NAMES, st.integers(0, 60)),
    st.builds(lambda name: lambda side: side.table(name).freeze(name), NAMES),
    st.builds(lambda name: lambda side: side.table(name).thaw(name), NAMES),
    st.builds(lambda name, limit: lambda side: make_counter(side.table(name), name, ceiling=limit), NAMES, CEILINGS),
    st.builds(lambda name: lambda side: side.table(name).remove(name), NAMES),
    st.just(lambda side: sorted(side.table("east").all(), key=str)),
)


def told(step: Step, side: Recorded) -> object:
    """Return the answer of a step, or its error."""
    try:
        return step(side)
    except TicketctlError as error:
        return type(error), error.message
    except handler.ProblemError as problem:
        return problem.code, problem.detail
    except handler.ConditionFailedError as refused:
        return handler.ConditionFailedError, plain(refused.item)


@pytest.fixture(scope="module")
def client(aws: Aws) -> Iterator[Any]:
    """The embedded DynamoDB with a table that has the template's key."""
    client = aws.client("dynamodb", retries=0)
    client.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "partition", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "partition", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield client
    client.delete_table(TableName=TABLE)


def test_the_model_answers_as_dynamodb_does(client: Any) -> None:
    """For any sequence of the requests that ticketctl sends, both give the same answers and have the same items."""
    outcomes: set[object] = set()

    @settings(max_examples=times(20), derandomize=DERANDOMIZED, deadline=None, database=None)
    @given(st.lists(STEPS, min_size=15, max_size=30))
    def compare(steps: list[Step]) -> None:
        for item in client.scan(TableName=TABLE, ConsistentRead=True)["Items"]:
            client.delete_item(TableName=TABLE, Key={"partition": item["partition"]})
        true, model = Recorded(client), Recorded(ModelTable(TABLE))
        for step in steps:
            seen = len(true.heard)
            assert told(step, model) == told(step, true)
            assert model.heard[seen:] == true.heard[seen:]
        assert model.items() == true.items()
        writes = ((request.get("UpdateExpression", operation), answer) for operation, request, answer in true.heard)
        outcomes.update((write.split()[0], isinstance(answer, tuple)) for write, answer in writes)

    compare()
    assert outcomes >= set(itertools.product(["SET", "REMOVE"], [True, False]))  # carried out and rejected


REFUSED_BY_BOTH = [
    pytest.param("SET #x = #y + :n", None, {"#x": "x", "#y": "y"}, {":n": {"N": "1"}}, id="absent operand"),
    pytest.param("SET #k = :s", None, {"#k": "partition"}, {":s": {"S": "b"}}, id="the key"),
    pytest.param("ADD #s :set", None, {"#s": "s"}, {":set": {"SS": ["a"]}}, id="a set to a string"),
    pytest.param("SET #x = :n", None, {"#x": "x"}, {":n": {"N": "1"}, ":m": {"N": "1"}}, id="unused value"),
    pytest.param("SET #x = :n", None, {"#x": "x", "#y": "y"}, {":n": {"N": "1"}}, id="unused name"),
    pytest.param("SET #x = :n", None, {"#x": "x"}, {":m": {"N": "1"}}, id="undeclared value"),
    pytest.param("SET #x = :n", "attribute_exists(#x)", {"#x": "x"}, {":n": {"N": "1"}}, id="condition"),
]
CARRIED_OUT = [
    pytest.param("SET #x = #n, #n = #n + :n", None, {"#x": "x", "#n": "n"}, {":n": {"N": "1"}}, id="before the write"),
    pytest.param("SET #x = if_not_exists(#x, #n) + :n", None, {"#x": "x", "#n": "n"}, {":n": {"N": "1"}}, id="nested"),
    pytest.param("REMOVE #n SET #x = :n ADD #t :t", None, {"#n": "n", "#x": "x", "#t": "t"},
                 {":n": {"N": "1"}, ":t": {"SS": ["b", "a"]}}, id="three clauses"),
    pytest.param("ADD #set :t", None, {"#set": "set"}, {":t": {"SS": ["b", "a"]}}, id="union"),
    pytest.param("REMOVE #n", "NOT #x = :n AND (#n <= :n OR #n >= :n)", {"#n": "n", "#x": "x"}, {":n": {"N": "7"}},
                 id="absent is not equal"),
    pytest.param("REMOVE #n", "NOT (#s = :n OR #x <= :n OR #x >= :n)", {"#n": "n", "#x": "x", "#s": "s"},
                 {":n": {"N": "7"}}, id="other kinds are not equal"),
    pytest.param("REMOVE #n", "#n = :n OR #x = :n AND #x = :n", {"#n": "n", "#x": "x"}, {":n": {"N": "7"}},
                 id="AND before OR"),
]  # fmt: skip


@pytest.mark.parametrize("returned", ["ALL_NEW", "UPDATED_NEW", "NONE"])
@pytest.mark.parametrize(("update", "condition", "names", "values"), [*REFUSED_BY_BOTH, *CARRIED_OUT])
def test_expressions_mean_what_they_mean_to_dynamodb(
    client: Any,
    request: pytest.FixtureRequest,
    update: str,
    condition: str | None,
    names: dict[str, str],
    values: dict[str, Any],
    returned: str,
) -> None:
    """Every rule of expressions in the model is DynamoDB's: which are rejected, and what the others write."""
    key = {"partition": {"S": request.node.name}}
    item = {**key, "n": {"N": "7"}, "s": {"S": "text"}, "set": {"SS": ["a", "z"]}}
    model = ModelTable(TABLE)
    for side in (client, model):
        put = {"TableName": TABLE, "Item": item, "ConditionExpression": "attribute_not_exists(#k)"}
        side.put_item(**put, ExpressionAttributeNames={"#k": "partition"})
    write = {
        "TableName": TABLE,
        "Key": key,
        "UpdateExpression": update,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValues": returned,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **({"ConditionExpression": condition} if condition else {}),
    }
    sides = Recorded(client), Recorded(model)
    for side in sides:
        try:
            side.update_item(**write)
        except ClientError:
            assert [update, condition, names, values] in [list(refused.values) for refused in REFUSED_BY_BOTH]
        side.get_item(TableName=TABLE, Key=key, ConsistentRead=True)
    assert sides[0].heard == sides[1].heard


@pytest.mark.parametrize(
    ("update", "names"),
    [("SET #x = #s + :n", {"#x": "x", "#s": "s"}), ("SET #x = :n, #z = :n", {"#x": "x", "#z": "x"})],
    ids=["operand of another kind", "the same path twice"],
)
def test_the_model_refuses_what_dynamodb_refuses_and_the_embedded_aws_does_not(
    update: str, names: dict[str, str]
) -> None:
    """Adding to a string and setting one attribute twice are a ``ValidationException``, as in DynamoDB."""
    rows: dict[str, dict[str, Any]] = {"p": {"partition": {"S": "p"}, "s": {"S": "text"}}}
    model = ModelTable(TABLE, rows=rows)
    with pytest.raises(ClientError, match="ValidationException"):
        model.update_item(
            TableName=TABLE,
            Key={"partition": {"S": "p"}},
            UpdateExpression=update,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={":n": {"N": "1"}},
        )
    assert model.rows == rows


@pytest.mark.parametrize(
    "unknown",
    [
        {"UpdateExpression": "SET #x = #x - :n"},
        {"UpdateExpression": "ADD #x :n"},
        {"UpdateExpression": "SET #x = list_append(#x, :n)"},
        {"UpdateExpression": "SET #x = :n", "ConditionExpression": "#x < :n"},
        {"UpdateExpression": "SET #x = :n", "ConditionExpression": "contains(#x, :n)"},
        {"UpdateExpression": "SET #x = :n", "ReturnValues": "ALL_OLD"},
        {"UpdateExpression": "SET #x = :n", "Expected": {}},
    ],
    ids=str,
)
def test_what_the_model_does_not_know_it_does_not_answer(unknown: dict[str, Any]) -> None:
    """A request that the model does not support raises an error."""
    request = {"TableName": TABLE, "Key": {"partition": {"S": "p"}}, **unknown}
    declared = {"ExpressionAttributeNames": {"#x": "x"}, "ExpressionAttributeValues": {":n": {"N": "1"}}}
    with pytest.raises(NotImplementedError):
        ModelTable(TABLE).update_item(**request, **declared)


def test_the_order_of_attributes_means_nothing() -> None:
    """Items that differ only in the order of their attributes, sets and maps are equal."""
    one = [{"a": {"SS": ["x", "y"]}, "b": {"M": {"p": {"NS": ["1", "2"]}, "q": {"S": ""}}}}, {"a": {"S": "a"}}]
    other = [{"a": {"S": "a"}}, {"b": {"M": {"q": {"S": ""}, "p": {"NS": ["2", "1"]}}}, "a": {"SS": ["y", "x"]}}]
    assert str(plain(one)) == str(plain(other))
    assert plain(one) != plain([*one, {"c": {"S": "a"}}])

"""A DynamoDB table in memory, for exactly the requests that ticketctl sends.

Expressions are parsed and evaluated. Anything that is not modeled raises ``NotImplementedError``, so that no result is
a guess; ``tests/local_aws/test_model_table.py`` compares the model with the embedded AWS.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, TypeVar

from botocore.exceptions import ClientError, ReadTimeoutError

Value = Mapping[str, Any]
"""A value in the format of DynamoDB's low-level API: ``{"N": "42"}``."""
Item = Mapping[str, Value]
Request = Mapping[str, Any]

KEY = "partition"
PAGE = 3  # items per page of a scan


class Fate(Enum):
    """What happens to a request."""

    ANSWERED = "answered"
    REPLY_LOST = "reply lost"
    RESENT = "resent"  # the reply was lost and the SDK sent the same request again


class Client:
    """The part of a botocore client that ticketctl uses; each call, and each page of a scan, goes through ``call``."""

    def call(self, operation: str, request: Request) -> dict[str, Any]:
        raise NotImplementedError

    def get_item(self, **request: Any) -> dict[str, Any]:
        return self.call("GetItem", request)

    def put_item(self, **request: Any) -> dict[str, Any]:
        return self.call("PutItem", request)

    def update_item(self, **request: Any) -> dict[str, Any]:
        return self.call("UpdateItem", request)

    def delete_item(self, **request: Any) -> dict[str, Any]:
        return self.call("DeleteItem", request)

    def scan(self, **request: Any) -> dict[str, Any]:
        return self.call("Scan", request)

    def get_paginator(self, operation: str) -> "Paginator":
        if operation != "scan":
            raise NotImplementedError(operation)
        return Paginator(self)


class Paginator:
    """The pages of a scan."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        page = self.client.call("Scan", request)
        yield page
        while "LastEvaluatedKey" in page:
            page = self.client.call("Scan", {**request, "ExclusiveStartKey": page["LastEvaluatedKey"]})
            yield page


class ModelTable(Client):
    """A table and its client. ``rows`` are its items by key; an item is replaced, never changed.

    ``before_call`` gets each request before it is performed, and returns its fate or raises an exception.
    """

    def __init__(
        self,
        name: str = "Tickets",
        *,
        before_call: Callable[[str, Request], Fate] = lambda operation, request: Fate.ANSWERED,
        rows: Mapping[str, Item] | None = None,
    ) -> None:
        self.name = name
        self.before_call = before_call
        self.rows: dict[str, Item] = dict(rows or {})
        self._lock = threading.Lock()

    def call(self, operation: str, request: Request) -> dict[str, Any]:
        fate = self.before_call(operation, request)
        if fate is Fate.ANSWERED:
            return self.perform(operation, request)
        with suppress(ClientError):  # nobody gets this answer
            self.perform(operation, request)
        if fate is Fate.RESENT:
            return self.perform(operation, request)
        raise ReadTimeoutError(endpoint_url="https://dynamodb")

    def perform(self, operation: str, request: Request) -> dict[str, Any]:
        """Perform one request atomically."""
        steps: dict[str, tuple[Callable[[Request], dict[str, Any]], set[str], set[str]]] = {
            "GetItem": (self._get, {"Key", "ConsistentRead"}, set()),
            "PutItem": (self._put, {"Item"}, CONDITIONAL),
            "UpdateItem": (self._update, {"Key", "UpdateExpression"}, CONDITIONAL | {"ReturnValues"}),
            "DeleteItem": (self._delete, {"Key"}, set()),
            "Scan": (
                self._scan,
                {"ConsistentRead"},
                SCANNING,
            ),
        }
        step, needed, allowed = steps[operation]
        given = request.keys() - {"TableName"}
        if not needed <= given <= needed | allowed or request.get("ConsistentRead", True) is not True:
            raise NotImplementedError(f"{operation} with {sorted(given)}")
        if request["TableName"] != self.name:
            raise _error("ResourceNotFoundException", operation)
        _check_placeholders(operation, request)
        with self._lock:
            return step(request)

    def _get(self, request: Request) -> dict[str, Any]:
        item = self.rows.get(_key(request["Key"]))
        return {} if item is None else {"Item": dict(item)}

    def _delete(self, request: Request) -> dict[str, Any]:
        self.rows.pop(_key(request["Key"]), None)
        return {}

    def _put(self, request: Request) -> dict[str, Any]:
        new = {name: _checked(value) for name, value in request["Item"].items()}
        key = _key({KEY: new[KEY]})
        self._require("PutItem", self.rows.get(key), request)
        self.rows[key] = new
        return {}

    def _update(self, request: Request) -> dict[str, Any]:
        key = _key(request["Key"])
        old = self.rows.get(key)
        self._require("UpdateItem", old, request)
        changes = _parsed_update(request["UpdateExpression"])(_scope(old, request))
        if KEY in changes:
            raise _error("ValidationException", "UpdateItem", "This attribute is part of the key")
        merged = {**(old or request["Key"]), **changes}
        new = {name: value for name, value in merged.items() if value is not None}
        self.rows[key] = new
        match request.get("ReturnValues", "NONE"):
            case "NONE":
                return {}
            case "ALL_NEW":
                return {"Attributes": dict(new)}
            case "UPDATED_NEW":
                updated = {name: value for name, value in changes.items() if value is not None}
                return {"Attributes": updated} if updated else {}
        raise NotImplementedError(request["ReturnValues"])

    def _scan(self, request: Request) -> dict[str, Any]:
        after = _key(request["ExclusiveStartKey"]) if "ExclusiveStartKey" in request else ""
        keys = sorted(key for key in self.rows if key > after)
        most = request.get("Limit", PAGE)
        page = [self.rows[key] for key in keys[:most]]
        if "FilterExpression" in request:
            holds = _parsed_condition(request["FilterExpression"])
            page = [item for item in page if holds(_scope(item, request))]
        if "ProjectionExpression" in request:
            paths = request["ProjectionExpression"].split(", ")
            read = {request["ExpressionAttributeNames"][path] for path in paths}
            page = [{name: value for name, value in item.items() if name in read} for item in page]
        more = {"LastEvaluatedKey": {KEY: {"S": keys[most - 1]}}} if len(keys) > most else {}
        return {"Items": [dict(item) for item in page], **more}

    def _require(self, operation: str, item: Item | None, request: Request) -> None:
        """Raise the handler's error if the condition of a write does not hold."""
        if "ConditionExpression" not in request:
            return
        if not _parsed_condition(request["ConditionExpression"])(_scope(item, request)):
            returned = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and item is not None
            handed_back = {"Item": dict(item)} if returned and item else {}
            raise _error("ConditionalCheckFailedException", operation, "The conditional request failed", **handed_back)


PLACEHOLDERS = {"ExpressionAttributeNames", "ExpressionAttributeValues"}
SCANNING = {"FilterExpression", "ProjectionExpression", "ExclusiveStartKey", "Limit"} | PLACEHOLDERS
CONDITIONAL = {"ConditionExpression", "ReturnValuesOnConditionCheckFailure"} | PLACEHOLDERS
EXPRESSIONS = ("ConditionExpression", "UpdateExpression", "FilterExpression", "ProjectionExpression")


def _error(code: str, operation: str, message: str = "", **parts: Any) -> ClientError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}, **parts}
    return ClientError(response, operation)


def _key(key: Item) -> str:
    if key.keys() != {KEY} or key[KEY].keys() != {"S"} or not key[KEY]["S"]:
        raise NotImplementedError(f"the key {key}")
    return str(key[KEY]["S"])


def _checked(value: Value) -> Value:
    """Check that a value has a type that ticketctl writes."""
    ((kind, content),) = value.items()
    if kind == "N" and not re.fullmatch(r"-?(0|[1-9][0-9]{0,37})", content):
        raise NotImplementedError(f"the number {content!r}")
    if kind == "SS":
        return {"SS": sorted(set(content))}
    if kind == "B" and isinstance(content, bytes) and content:
        return value
    if kind not in ("S", "N", "BOOL"):
        raise NotImplementedError(f"the value {value}")
    return value


def _check_placeholders(operation: str, request: Request) -> None:
    """DynamoDB rejects unused and undeclared placeholders."""
    used = {token for name in EXPRESSIONS for token in _tokens(request.get(name, "")) if token[0] in "#:"}
    names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
    if used != {*names, *values}:
        raise _error("ValidationException", operation, f"unused or undeclared: {used ^ {*names, *values}}")
    for value in values.values():
        _checked(value)


class Scope(NamedTuple):
    """The operands of an expression: the item before the write, and the placeholders."""

    item: Item
    names: Mapping[str, str]
    values: Mapping[str, Value]

    def of(self, token: str) -> Value | None:
        return self.values[token] if token[0] == ":" else self.item.get(self.names[token])


def _scope(item: Item | None, request: Request) -> Scope:
    return Scope(item or {}, request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {}))


# --- expressions -----------------------------------------------------------------------------------

Condition = Callable[[Scope], bool]
Operand = Callable[[Scope], Value | None]
Parsed = TypeVar("Parsed")
Changes = Callable[[Scope], dict[str, Value | None]]
"""The attributes that an update changes; ``None`` removes an attribute."""


@cache
def _tokens(text: str) -> tuple[str, ...]:
    found = re.findall(r"[#:]\w+|\w+|<=|>=|[=(),+]|\S", text)
    for token in found:
        if not re.fullmatch(r"[#:]?\w+|<=|>=|[=(),+]", token):
            raise NotImplementedError(f"{token!r} in {text!r}")
    return tuple(found)


@cache
def _parsed_condition(text: str) -> Condition:
    parser = Parser(text)
    return parser.whole(parser.disjunction())


@cache
def _parsed_update(text: str) -> Changes:
    parser = Parser(text)
    return parser.whole(parser.update())


class Parser:
    """A recursive descent parser for the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = list(_tokens(text))

    def whole(self, parsed: Parsed) -> Parsed:
        if self.rest:
            raise self.unknown()
        return parsed

    def unknown(self) -> Exception:
        return NotImplementedError(f"at {' '.join(self.rest) or 'the end'!r} of {self.text!r}")

    @property
    def next(self) -> str:
        return self.rest[0] if self.rest else ""

    def take(self, *tokens: str) -> str:
        """Take the next token, which must be one of these."""
        if self.next not in tokens:
            raise self.unknown()
        return self.rest.pop(0)

    def placeholder(self, kinds: str) -> str:
        if not self.next or self.next[0] not in kinds:
            raise self.unknown()
        return self.rest.pop(0)

    # --- conditions ---

    def disjunction(self) -> Condition:
        parts = [self.conjunction()]
        while self.next == "OR":
            self.take("OR")
            parts.append(self.conjunction())
        return lambda scope: any(part(scope) for part in parts)

    def conjunction(self) -> Condition:
        parts = [self.negation()]
        while self.next == "AND":
            self.take("AND")
            parts.append(self.negation())
        return lambda scope: all(part(scope) for part in parts)

    def negation(self) -> Condition:
        if self.next != "NOT":
            return self.comparison()
        self.take("NOT")
        part = self.negation()
        return lambda scope: not part(scope)

    def comparison(self) -> Condition:
        if self.next == "(":
            self.take("(")
            inner = self.disjunction()
            self.take(")")
            return inner
        if self.next in ("attribute_exists", "attribute_not_exists", "begins_with"):
            return self.function()
        left, sign, right = self.placeholder("#"), self.take("=", "<=", ">="), self.placeholder(":")
        return lambda scope: _compare(scope.of(left), sign, scope.of(right))

    def function(self) -> Condition:
        name = self.rest.pop(0)
        self.take("(")
        path = self.placeholder("#")
        if name == "begins_with":
            self.take(",")
            prefix = self.placeholder(":")
            self.take(")")
            return lambda scope: _begins(scope.of(path), scope.of(prefix))
        self.take(")")
        return lambda scope: (scope.of(path) is not None) == (name == "attribute_exists")

    # --- updates ---

    def update(self) -> Changes:
        clauses: dict[str, list[tuple[str, Operand]]] = {}
        while self.rest:
            clause = self.take("SET", "REMOVE", "ADD")
            if clause in clauses:
                raise self.unknown()
            parse = {"SET": self.assignment, "REMOVE": self.removal, "ADD": self.addition}[clause]
            clauses[clause] = [parse()]
            while self.next == ",":
                self.take(",")
                clauses[clause].append(parse())
        changes = [change for clause in clauses.values() for change in clause]

        def changed(scope: Scope) -> dict[str, Value | None]:
            if len({scope.names[path] for path, _ in changes}) < len(changes):
                raise _error("ValidationException", "UpdateItem", "Two document paths overlap with each other")
            return {scope.names[path]: value(scope) for path, value in changes}

        return changed

    def assignment(self) -> tuple[str, Operand]:
        path = self.placeholder("#")
        self.take("=")
        left = self.operand()
        if self.next != "+":
            return path, left
        self.take("+")
        right = self.operand()
        return path, lambda scope: _sum(left(scope), right(scope))

    def removal(self) -> tuple[str, Operand]:
        return self.placeholder("#"), lambda scope: None

    def addition(self) -> tuple[str, Operand]:
        path, more = self.placeholder("#"), self.placeholder(":")
        return path, lambda scope: _union(scope.of(path), scope.of(more))

    def operand(self) -> Operand:
        if self.next == "if_not_exists":
            self.take("if_not_exists")
            self.take("(")
            path = self.placeholder("#")
            self.take(",")
            instead = self.operand()
            self.take(")")
            return lambda scope: instead(scope) if scope.of(path) is None else scope.of(path)
        token = self.placeholder("#:")
        return lambda scope: _there(scope.of(token))


def _there(value: Value | None) -> Value:
    if value is None:
        message = "The provided expression refers to an attribute that does not exist in the item"
        raise _error("ValidationException", "UpdateItem", message)
    return value


def _number(value: Value | None) -> int | None:
    return int(value["N"]) if value is not None and "N" in value else None


def _compare(left: Value | None, sign: str, right: Value | None) -> bool:
    """Compare two values; values of different types, and missing ones, are neither equal nor ordered."""
    if left is None or right is None or left.keys() != right.keys():
        return False
    one, other = _number(left), _number(right)
    if sign == "=":
        return left == right if one is None else one == other
    if one is None or other is None:
        raise NotImplementedError(f"{left} {sign} {right}")
    return one <= other if sign == "<=" else one >= other


def _begins(value: Value | None, prefix: Value | None) -> bool:
    if value is None or prefix is None or value.keys() != prefix.keys():
        return False
    ((kind, begins),) = prefix.items()
    if kind not in ("S", "B"):
        raise NotImplementedError(f"begins_with {prefix}")
    return bool(value[kind].startswith(begins))


def _sum(left: Value | None, right: Value | None) -> Value:
    one, other = _number(left), _number(right)
    if one is None or other is None:
        raise _error("ValidationException", "UpdateItem", "An operand in the update expression has an incorrect type")
    return _checked({"N": str(one + other)})


def _union(there: Value | None, more: Value | None) -> Value:
    if more is None or "SS" not in more:
        raise NotImplementedError(f"ADD {more}")
    if there is not None and "SS" not in there:
        raise _error("ValidationException", "UpdateItem", "An operand in the update expression has an incorrect type")
    return {"SS": sorted({*(there or {"SS": ()})["SS"], *more["SS"]})}


def item_size(item: Item) -> int:
    """Return an item's size in bytes (DynamoDB Developer Guide, "DynamoDB item sizes and formats")."""

    def of(value: Mapping[str, Any]) -> int:
        ((kind, content),) = value.items()
        match kind:
            case "S":
                return len(content.encode())
            case "N":
                return (len(content.lstrip("-")) + 1) // 2 + 1
            case "B":
                return len(content)
            case "SS":
                return sum(len(text.encode()) for text in content)
        return 1

    return sum(len(name.encode()) + of(value) for name, value in item.items())

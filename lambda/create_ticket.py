"""The ticket server's Lambda handler, and the one definition of the atomic write.

The first part is pure: functions over plain dictionaries that build DynamoDB requests and read the
answers. ``ticketctl`` mints straight from the table with the same functions. The second part speaks
HTTP: Function URL events (payload format 2.0) in, JSON, plain text or problem details (RFC 9457) out.
The last part sends the requests. It uses no SDK: loading one would take longer than the rest of a cold start.
"""

import base64
import hmac
import io
import json
import os
import re
import select
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

MAX_TICKET = 2**53 - 1  # the largest integer that JSON readers in every language keep exact
MAX_COUNT = 10_000
MAX_NAME = 255
RECEIPT = "receipt#"
RECEIPT_SECONDS = 24 * 60 * 60
RECEIPT_NUMBERS = ("first", "last", "count", "increment")
RETRY_KEY = "once:"  # the start of keys that make one run's retries safe and need no receipt
REMEMBERED = "0123456789abcdef"  # a counter remembers its last 16 keys, one per slot
DIGEST_BYTES = 12
WRITE_ATTEMPTS = 5
RECEIPT_ATTEMPTS = 2
CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
CALL_MS = 4_500  # the most that one call to DynamoDB takes: 1 s to connect, 1 s for TLS, 2 s to answer, and a margin
IDLE_SECONDS = 20.0  # after that a new connection is safer than one that may have been closed
GAPLESS = "gapless"  # the value of the attribute ``frozen`` of a counter whose numbers only claims take
GAPLESS_FROZEN = "gapless-frozen"  # the same while not even claims take them
THROTTLES = {"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"}

STATUS = {
    "bad_request": 400,
    "unknown_counter": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "counter_exhausted": 409,
    "counter_invalid": 409,
    "counter_frozen": 409,
    "counter_gapless": 409,
    "idempotency_conflict": 409,
    "throttled": 429,
    "unavailable": 503,
    "outcome_unknown": 504,
}
NAMES = {
    "#partition": "partition",
    "#last": "hand_crafted_int",
    "#increment": "increment",
    "#ceiling": "ceiling",
    "#minted_at": "minted_at",
    "#frozen": "frozen",
    "#expires_at": "expires_at",
}

Item = Mapping[str, Mapping[str, Any]]
"""An item as DynamoDB's low-level API gives it: ``{"hand_crafted_int": {"N": "42"}}``."""
Send = Callable[[str, dict[str, Any]], Mapping[str, Any]]
"""Performs a DynamoDB operation: ``("UpdateItem", request)`` to its answer. Raises ``ConditionFailedError``
if the condition of the request does not hold."""


class Fence(NamedTuple):
    """What a caller knows of a counter: its ``increment`` (1 or more) and ``ceiling``. A write needs it to be true."""

    increment: int = 1
    ceiling: int = MAX_TICKET


class ProblemError(Exception):
    """What a caller is told instead of a ticket: a stable code, its HTTP status and one sentence."""

    def __init__(self, code: str, detail: str, *, cause: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.status = STATUS[code]
        self.detail = detail
        self.cause = cause  # for the log, never for the caller
        self.headers = dict(headers or {})


class ConditionFailedError(Exception):
    """DynamoDB rejected the write and returned the item as it is (``None``: there is none)."""

    def __init__(self, item: Item | None) -> None:
        super().__init__("the condition of the write does not hold")
        self.item = item


# --- the atomic write ------------------------------------------------------------------------------


def mint_request(
    table: str,
    partition: str,
    count: int,
    fence: Fence,
    *,
    offset: int | None,
    now_ms: int,
    digest: bytes | None = None,
) -> dict[str, Any]:
    """Build the UpdateItem that takes ``count`` tickets in one conditional write.

    It holds only while ``fence`` is true of the counter and there is room. With ``offset``, the first number of its
    lane, a counter that does not exist begins; with ``None`` it must exist. With the ``digest`` of a key the same
    write enters the key into the counter's register of keys, and holds only if the register does not have it yet.
    """
    conditions = [
        "attribute_exists(#last)",
        "attribute_not_exists(#frozen)",
        "#last >= :least AND #last <= :room",
        "#increment = :increment"
        if fence.increment != 1
        else "(attribute_not_exists(#increment) OR #increment = :increment)",
        "#ceiling = :ceiling"
        if fence.ceiling != MAX_TICKET
        else "(attribute_not_exists(#ceiling) OR #ceiling >= :ceiling)",
    ]
    condition = " AND ".join(conditions)
    if offset is not None:
        condition = f"attribute_not_exists(#partition) OR ({condition})"
    update = "SET #last = if_not_exists(#last, :start) + :step, #minted_at = :now"
    if fence.increment != 1:
        update += ", #increment = :increment"
    names = {k: v for k, v in NAMES.items() if k in update or k in condition}
    values: dict[str, Mapping[str, Any]] = {
        ":start": _number((offset or fence.increment) - fence.increment),
        ":step": _number(count * fence.increment),
        ":least": _number(1 - fence.increment),
        ":room": _number(fence.ceiling - count * fence.increment),
        ":increment": _number(fence.increment),
        ":ceiling": _number(fence.ceiling),
        ":now": _number(now_ms),
    }
    if digest is not None:
        update, condition = update + REGISTER_UPDATE, f"({condition}) AND NOT ({REGISTER_CONDITION})"
        names |= REGISTER_NAMES
        values |= {":key": _binary(pack_entry(digest, count, fence.increment)), ":digest": _binary(digest)}
        values[":none"] = _binary(b"-")
    return {
        "TableName": table,
        "Key": {"partition": {"S": partition}},
        "UpdateExpression": update,
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ReturnValues": "UPDATED_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def read_request(table: str, partition: str) -> dict[str, Any]:
    """Build the consistent GetItem of one counter."""
    return {"TableName": table, "Key": {"partition": {"S": partition}}, "ConsistentRead": True}


def read_block(answer: Mapping[str, Any], partition: str, count: int, fence: Fence) -> dict[str, Any]:
    """Read the tickets out of the answer to ``mint_request``: ``first, first + increment, …, last``."""
    try:
        last = _integer(answer["Attributes"], "hand_crafted_int", partition)
    except ProblemError as problem:  # the write was made, on a fraction
        raise ProblemError("outcome_unknown", f"{problem.detail} A ticket was spent.") from None
    return _block(partition, last, count, fence.increment)


def _block(partition: str, last: int, count: int, increment: int) -> dict[str, Any]:
    first = last - (count - 1) * increment
    ends = {"hand_crafted_int": last, "first": first, "last": last}
    return {"partition": partition, **ends, "count": count, "increment": increment}


def read_counter(item: Item) -> dict[str, Any]:
    """Read a counter: its name, last ticket, increment, ceiling, last mint (epoch ms) and how many tickets are left."""
    partition = str(item["partition"]["S"])
    last, fence = _integer(item, "hand_crafted_int", partition), read_fence(item)
    mark = item.get("frozen", {}).get("S")
    return {
        "partition": partition,
        "hand_crafted_int": last,
        "increment": fence.increment,
        "ceiling": fence.ceiling,
        "remaining": max(0, (fence.ceiling - last) // fence.increment),
        "minted_at": _integer(item, "minted_at", partition) if "minted_at" in item else None,
        "frozen": "frozen" in item and mark != GAPLESS,
        "gapless": mark in (GAPLESS, GAPLESS_FROZEN),
    }


def read_fence(item: Item) -> Fence:
    """Read the fence of a counter's item; the article's items have no increment and move by 1."""
    partition = str(item["partition"]["S"])
    increment = _integer(item, "increment", partition) if "increment" in item else 1
    ceiling = _integer(item, "ceiling", partition) if "ceiling" in item else MAX_TICKET
    if increment < 1:
        raise ProblemError(
            "counter_invalid", f"The counter {partition!r} has the increment {increment}; it must be 1 or more."
        )
    return Fence(increment, min(ceiling, MAX_TICKET))


def mint(
    send: Send,
    table: str,
    partition: str,
    count: int,
    *,
    fence: Fence,
    offset: int | None,
    now_ms: int,
    digest: bytes | None = None,
) -> tuple[dict[str, Any], Fence]:
    """Take ``count`` tickets; return the block and the fence that the counter has.

    A caller that knows an old fence learns the new one from the rejected write and retries with it. A counter that
    was seen once is never begun again. With the ``digest`` of a key, a write whose outcome is unknown is sent once
    more: if it was made, the register of keys refuses the second and returns the block, marked ``replayed``. If the
    second is made, its block is marked ``possible_gap``: 16 other mints may have pushed the key out of the register.
    Raises ``ProblemError`` if nothing can be minted, and ``outcome_unknown`` after an attempt whose outcome is unknown.
    """
    unknown: ProblemError | None = None
    for _ in range(WRITE_ATTEMPTS):
        try:
            block, fence = _attempt(send, table, partition, count, fence, offset=offset, now_ms=now_ms, digest=digest)
        except ProblemError as problem:
            if unknown is not None or digest is None or problem.code != "outcome_unknown":
                raise unknown or problem from None
            unknown = problem
            continue
        if block is not None:
            return {**block, "possible_gap": True} if unknown and not block["replayed"] else block, fence
        offset = None
    raise unknown or ProblemError("throttled", "The counter's lane keeps changing.", headers={"Retry-After": "1"})


def _attempt(
    send: Send,
    table: str,
    partition: str,
    count: int,
    fence: Fence,
    *,
    offset: int | None,
    now_ms: int,
    digest: bytes | None,
) -> tuple[dict[str, Any] | None, Fence]:
    """Write once; the block, or ``None`` if only the fence that was rejected stands in the way of a retry."""
    fits = offset is None or offset + (count - 1) * fence.increment <= fence.ceiling
    begins = offset if fits else None
    request = mint_request(table, partition, count, fence, offset=begins, now_ms=now_ms, digest=digest)
    try:
        answer = send("UpdateItem", request)
    except ConditionFailedError as rejected:
        if digest is not None and (block := remembered(rejected.item, partition, count, digest)) is not None:
            return block, fence
        if rejected.item is None and not fits:
            raise ProblemError("counter_exhausted", f"{count} tickets do not fit below {fence.ceiling}.") from None
        return None, fence_after_refusal(rejected.item, partition, count)
    block = read_block(answer, partition, count, fence)
    return block if digest is None else {**block, "replayed": False}, fence


def fence_after_refusal(item: Item | None, partition: str, count: int) -> Fence:
    """The fence to retry with after a rejected write; raises ``ProblemError`` if a retry cannot help."""
    if item is None:
        raise unknown_counter(partition)
    counter, fence = read_counter(item), read_fence(item)
    if counter["gapless"]:
        raise ProblemError("counter_gapless", f"The counter {partition!r} is gapless: only a claim takes its numbers.")
    if counter["frozen"]:
        raise ProblemError("counter_frozen", f"The counter {partition!r} is frozen.")
    if (following := counter["hand_crafted_int"] + fence.increment) < 1:
        raise ProblemError(
            "counter_invalid", f"The counter {partition!r} is below 0: its next number, {following}, is no ticket."
        )
    if counter["remaining"] < count:
        raise ProblemError(
            "counter_exhausted",
            f"The counter {partition!r} has {counter['remaining']} tickets left below its ceiling "
            f"{fence.ceiling}; the request was for {count}.",
        )
    return fence


def unknown_counter(partition: str) -> ProblemError:
    """The problem of a counter that does not exist."""
    import shlex  # a mint does not need it

    return ProblemError(
        "unknown_counter",
        f"There is no counter {partition!r}. Create it with: ticketctl counter create {shlex.quote(partition)}",
    )


def check_name(partition: object) -> str:
    """Return a counter's name: 1 to 255 characters, no control characters, not a receipt's name."""
    if not isinstance(partition, str) or not 1 <= len(partition) <= MAX_NAME:
        raise ProblemError("bad_request", f"partition must be a string of 1 to {MAX_NAME} characters.")
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", partition):
        raise ProblemError("bad_request", "partition must be Unicode text without control characters.")
    if partition.startswith(RECEIPT):
        raise ProblemError("bad_request", f"Names that begin with {RECEIPT!r} are receipts, not counters.")
    return partition


# --- the register of keys ---------------------------------------------------------------------------
#
# A counter's item remembers its last 16 keys: the slots k0 (the newest) to kf hold each key's digest, count and
# increment, l0 to lf the last ticket of its block. A SET reads the item as it was, so one write shifts them all.

REGISTER_NAMES = {f"#{letter}{slot}": f"{letter}{slot}" for letter in "kl" for slot in REMEMBERED}
REGISTER_UPDATE = ", #k0 = :key, #l0 = if_not_exists(#last, :start) + :step" + "".join(
    f", #k{new} = if_not_exists(#k{old}, :none), #l{new} = if_not_exists(#l{old}, :start)"
    for old, new in pairwise(REMEMBERED)
)
REGISTER_CONDITION = " OR ".join(f"begins_with(#k{slot}, :digest)" for slot in REMEMBERED)


def key_digest(key: str, now_ms: int) -> bytes:
    """What the register has of a key: 12 bytes of its SHA-256.

    A typed key is hashed with the UTC day, because the register of an idle counter never forgets.
    """
    text = key if key.startswith(RETRY_KEY) else f"{now_ms // 86_400_000} {key}"
    return sha256(text.encode()).digest()[:DIGEST_BYTES]


def pack_entry(digest: bytes, count: int, increment: int) -> bytes:
    """A slot of the register: the digest, the count in 2 bytes and the increment in as many as it needs."""
    return digest + count.to_bytes(2, "big") + increment.to_bytes((increment.bit_length() + 7) // 8, "big")


def remembered(item: Item | None, partition: str, count: int, digest: bytes) -> dict[str, Any] | None:
    """The block that the register has for a key, marked ``replayed``; ``None`` if the key is not in it.

    Raises ``idempotency_conflict`` if the key minted another count.
    """
    if item is None:
        return None
    for slot in REMEMBERED:
        entry = _bytes(item, "k" + slot)
        if not entry.startswith(digest):
            continue
        minted = int.from_bytes(entry[DIGEST_BYTES : DIGEST_BYTES + 2], "big")
        increment = int.from_bytes(entry[DIGEST_BYTES + 2 :], "big")
        if minted != count:
            raise _conflict(minted, partition)
        last = _integer(item, "l" + slot, partition)
        if increment < 1 or last > MAX_TICKET:
            raise ProblemError("counter_invalid", f"The register of the counter {partition!r} is damaged.")
        return {**_block(partition, last, count, increment), "replayed": True}
    return None


# --- receipts (IETF draft "The Idempotency-Key HTTP Header Field") ------------------------------------


def receipt_request(table: str, key: str, block: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Build the UpdateItem that writes a receipt; it holds only if there is none under that key, or an expired one."""
    now = now_ms // 1000
    fields = {
        "counter": {"S": block["partition"]},
        **{name: _number(block[name]) for name in RECEIPT_NUMBERS},
        "expires_at": _number(now + RECEIPT_SECONDS),
    }
    return {
        "TableName": table,
        "Key": {"partition": {"S": RECEIPT + key}},
        "UpdateExpression": "SET " + ", ".join(f"#{name} = :{name}" for name in fields),
        "ConditionExpression": "attribute_not_exists(#partition) OR #expires_at <= :now",
        "ExpressionAttributeNames": {f"#{name}": name for name in ("partition", *fields)},
        "ExpressionAttributeValues": {":now": _number(now), **{f":{name}": value for name, value in fields.items()}},
        "ReturnValues": "UPDATED_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def replay(receipt: Item | None, partition: str, count: int, now_ms: int) -> dict[str, Any] | None:
    """The block of a receipt; ``None`` if there is none, or an expired one (DynamoDB deletes those late).

    Raises ``idempotency_conflict`` if the key minted something else.
    """
    if receipt is None or _integer(receipt, "expires_at", partition) * 1000 <= now_ms:
        return None
    first, last, minted, increment = (_integer(receipt, name, partition) for name in RECEIPT_NUMBERS)
    counter = receipt.get("counter", {}).get("S")
    block = _block(partition, last, minted, increment)
    if counter is None or increment < 1 or last > MAX_TICKET or block["first"] != first:
        raise ProblemError("counter_invalid", "The receipt of this Idempotency-Key is damaged.")
    if counter != partition or minted != count:
        raise _conflict(minted, counter)
    return {**block, "replayed": True}


def mint_with_key(
    send: Send,
    table: str,
    partition: str,
    count: int,
    *,
    key: str,
    fence: Fence,
    offset: int | None,
    now_ms: int,
) -> tuple[dict[str, Any], Fence]:
    """Take ``count`` tickets, or return the ones that the same key took before.

    A retry key (``once:...``) is only in the counter's register: one write. A typed key also has a receipt for 24
    hours: it is looked up first and written last. The block then says whether it has a ``receipt``.
    """
    digest = key_digest(key, now_ms)
    if key.startswith(RETRY_KEY):
        return mint(send, table, partition, count, fence=fence, offset=offset, now_ms=now_ms, digest=digest)
    receipt = send("GetItem", read_request(table, RECEIPT + key)).get("Item")
    if (block := replay(receipt, partition, count, now_ms)) is not None:
        return {**block, "receipt": True}, fence
    block, fence = mint(send, table, partition, count, fence=fence, offset=offset, now_ms=now_ms, digest=digest)
    return write_receipt(send, table, key, block, now_ms), fence


def write_receipt(send: Send, table: str, key: str, block: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Write the receipt of a block that is minted; return the block to answer with.

    A receipt that cannot be written is no reason to mint again: the block then says that it has none. If another
    request with the key was faster, its block is the answer, and the block here is a ``possible_gap``.
    """
    for _ in range(RECEIPT_ATTEMPTS):
        try:
            send("UpdateItem", receipt_request(table, key, block, now_ms))
        except ConditionFailedError as rejected:
            return _faster_block(rejected.item, block, now_ms)
        except Exception:  # noqa: S112 - whatever it is, the block is minted and must reach its caller
            continue
        else:
            return {**block, "receipt": True}
    return {**block, "receipt": False}


def _faster_block(receipt: Item | None, block: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    try:
        faster = replay(receipt, block["partition"], block["count"], now_ms)
    except ProblemError as problem:
        if problem.code != "idempotency_conflict":
            return {**block, "receipt": False}
        spent = (
            f"This request minted {block['first']} to {block['last']} from {block['partition']!r}; nobody holds them."
        )
        raise ProblemError(problem.code, f"{problem.detail} {spent}") from None
    if faster is None:
        return {**block, "receipt": False}
    if faster["first"] == block["first"]:
        return {**block, "receipt": True}  # it is our own: the answer to its write was lost
    return {**faster, "receipt": True, "possible_gap": True}


def _conflict(count: int, counter: str) -> ProblemError:
    return ProblemError("idempotency_conflict", f"This Idempotency-Key already minted {count} from {counter!r}.")


def check_key(header: str) -> str:
    """Return the key of an Idempotency-Key header: 1 to 255 characters, quoted as in the draft, or bare."""
    quoted = re.fullmatch(r'"((?:[ !#-\[\]-~]|\\["\\])*)"', header)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    if not (quoted or re.fullmatch(r"[!#-+\--~]*", key)) or not 1 <= len(key) <= MAX_NAME:
        raise ProblemError("bad_request", f"Idempotency-Key must be 1 to {MAX_NAME} visible ASCII characters.")
    return key


def _number(value: int) -> dict[str, str]:
    return {"N": str(value)}


def _binary(value: bytes) -> dict[str, bytes]:
    return {"B": value}


def encode(request: Mapping[str, Any]) -> bytes:
    """A request as DynamoDB's JSON protocol has it: bytes in base64."""
    return json.dumps(request, default=lambda value: base64.b64encode(value).decode()).encode()


def _bytes(item: Item, name: str) -> bytes:
    value = item.get(name, {}).get("B", b"")
    return base64.b64decode(value) if isinstance(value, str) else bytes(value)


def _integer(item: Item, name: str, partition: str) -> int:
    value = item.get(name, {}).get("N", "")
    if not re.fullmatch(r"-?[0-9]+", value):
        raise ProblemError("counter_invalid", f"The item of the counter {partition!r} has no integer in {name!r}.")
    return int(value)


# --- HTTP ------------------------------------------------------------------------------------------

Answer = tuple[dict[str, Any], Iterable[int], dict[str, str]]
"""What a caller gets as JSON, its numbers for plain text, and the warnings for the log."""
FENCES: dict[str, Fence] = {}  # what this execution environment has learned of each counter


class Configuration(NamedTuple):
    """What the deployment decides and no request can change. ``offset`` 0: no counter begins here by itself."""

    table: str
    default: str
    offset: int
    increment: int
    max_count: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Configuration":
        """Read the function's environment variables; ``unavailable`` if one is missing or out of its range."""
        try:
            offset, increment, most = (int(environ[name]) for name in ("OFFSET", "INCREMENT", "MAX_COUNT"))
            if offset < 0 or increment < 1 or not 1 <= most <= MAX_COUNT:
                raise ValueError(f"OFFSET={offset}, INCREMENT={increment}, MAX_COUNT={most}")  # noqa: TRY301
            return cls(environ["TABLE_NAME"], environ["DEFAULT_PARTITION"], offset, increment, most)
        except (KeyError, ValueError) as error:
            detail = "The environment of the function is invalid; nothing was minted."
            raise ProblemError("unavailable", detail, cause=repr(error)) from None


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """The Lambda entry point: answer one Function URL request."""
    request_id = getattr(context, "aws_request_id", "")
    try:
        configuration = Configuration.from_environment(os.environ)
    except ProblemError as problem:
        return _refuse(problem, request_id, "", "")
    return respond(event, configuration, dynamodb().send, request_id, context.get_remaining_time_in_millis)


def respond(
    event: Mapping[str, Any],
    configuration: Configuration,
    send: Send,
    request_id: str = "",
    remaining_ms: Callable[[], int] = lambda: CALL_MS,
) -> dict[str, Any]:
    """Answer one event; every failure becomes a problem document and one log line.

    ``remaining_ms`` is the time that the function has left. A call that might take longer is not begun.
    """

    def in_time(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        if remaining_ms() < CALL_MS:
            raise ProblemError("unavailable", "DynamoDB is too slow; nothing was minted.", cause=operation)
        return send(operation, request)

    path = method = ""
    try:
        path, method = read_target(event)
        as_text = wants_text(read_header(event, "accept") or "")
        answer, numbers, warnings = _route(path, method)(event, configuration, in_time)
    except ProblemError as problem:
        return _refuse(problem, request_id, method, path)
    except Exception as error:  # its text may hold secrets, and Lambda's own 502 would tell the caller nothing
        import traceback  # a mint does not need it

        line = traceback.extract_tb(error.__traceback__)[-1]
        cause = f"{type(error).__name__} in {line.name}, line {line.lineno}"
        code, spent = "outcome_unknown", "a ticket may have been spent"
        if path == "/status":
            code, spent = "unavailable", "nothing was minted"
        unexpected = ProblemError(code, f"The request failed; {spent}.", cause=cause)
        return _refuse(unexpected, request_id, method, path)
    for code, detail in warnings.items():
        _log("WARNING", request_id, code=code, detail=detail)
    if as_text:
        return _response(200, "text/plain; charset=utf-8", "".join(f"{number}\n" for number in numbers))
    return _response(200, "application/json", json.dumps(answer) + "\n")


def read_target(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path and method of a Function URL event; ``bad_request`` for any other event."""
    try:
        path, method = event.get("rawPath") or "/", event["requestContext"]["http"]["method"]
    except (AttributeError, KeyError, TypeError):
        path = method = None
    if not isinstance(path, str) or not isinstance(method, str):
        raise ProblemError("bad_request", "This is not a request of a Function URL (payload format 2.0).")
    return path, method


def read_header(event: Mapping[str, Any], name: str) -> str | None:
    """A header of an event (names are lower case); ``None`` if it is absent."""
    headers = event.get("headers") or {}
    value = headers.get(name) if isinstance(headers, Mapping) else 0
    if value is None or isinstance(value, str):
        return value
    raise ProblemError("bad_request", f"The header {name} must be text.")


def _route(path: str, method: str) -> Callable[[Mapping[str, Any], Configuration, Send], Answer]:
    methods, operation = {"/": (("GET", "POST"), _mint), "/status": (("GET",), _status)}.get(path, ((), None))
    if operation is None:
        raise ProblemError("not_found", "Nothing is at this path. Mint at / and read a counter at /status.")
    if method not in methods:
        allowed = ", ".join(methods)
        raise ProblemError("method_not_allowed", f"Use {allowed}.", headers={"Allow": allowed})
    return operation


def _mint(event: Mapping[str, Any], configuration: Configuration, send: Send) -> Answer:
    fields = read_fields(event, {"partition", "count"})
    partition = check_name(fields.get("partition", configuration.default))
    count = check_count(fields.get("count", 1), configuration.max_count)
    header = read_header(event, "idempotency-key")
    key = None if header is None else check_key(header.strip())
    fence = FENCES.get(partition, Fence(configuration.increment))
    starts = configuration.offset > 0 and partition == configuration.default and partition not in FENCES
    offset = configuration.offset if starts else None
    now_ms = time.time_ns() // 1_000_000
    if key is None:
        block, fence = mint(send, configuration.table, partition, count, fence=fence, offset=offset, now_ms=now_ms)
    else:
        block, fence = mint_with_key(
            send, configuration.table, partition, count, key=key, fence=fence, offset=offset, now_ms=now_ms
        )
    if not block.get("replayed"):
        FENCES[partition] = fence
    tickets = range(block["first"], block["last"] + 1, block["increment"])
    return block, tickets, warnings_of(block, fence.ceiling)


def warnings_of(block: Mapping[str, Any], ceiling: int) -> dict[str, str]:
    """What the log has to say of a mint, one sentence per code; usually nothing.

    A mint that leaves less than a tenth, or a hundredth, of the ceiling for the first time is ``counter_low``.
    """
    warnings = {}
    if block.get("possible_gap"):
        warnings["possible_gap"] = "A write whose outcome is unknown was sent again."
    left, before = ceiling - block["last"], ceiling - block["first"] + block["increment"]
    near = left * 10 < ceiling and not block.get("replayed")
    if near and any(left * share < ceiling <= before * share for share in (10, 100)):
        tickets = left // block["increment"]
        warnings["counter_low"] = f"The counter {block['partition']!r} has {tickets} tickets left below {ceiling}."
    return warnings


def _status(event: Mapping[str, Any], configuration: Configuration, send: Send) -> Answer:
    partition = check_name(read_fields(event, {"partition"}).get("partition", configuration.default))
    item = send("GetItem", read_request(configuration.table, partition)).get("Item")
    if item is None:
        raise unknown_counter(partition)
    counter = read_counter(item)
    return counter, [counter["hand_crafted_int"]], {}


def read_fields(event: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the fields of a request, from its query string and its JSON body together.

    An unknown field is refused, so that a mistyped ``partition`` never mints from another counter.
    """
    try:
        query = event.get("rawQueryString") or urlencode(event.get("queryStringParameters") or {})
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
        pairs = [(k, v) for k, v in pairs if not k.lower().startswith("x-amz-")]  # a presigned URL's signature
        pairs = [(k, _digits(v) if k == "count" else v) for k, v in pairs]
        body = event.get("body") or ""
        text = base64.b64decode(body, validate=True).decode() if event.get("isBase64Encoded") else body
        document = json.loads(text, object_pairs_hook=_Pairs, parse_float=_whole) if text.strip(" \t\r\n") else _Pairs()
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ProblemError("bad_request", "The request is not UTF-8, or its body is not JSON.") from None
    if not isinstance(document, _Pairs):
        raise ProblemError("bad_request", "The body must be a JSON object.")
    fields: dict[str, Any] = {}
    for name, value in [*pairs, *document]:
        if name not in known:
            raise ProblemError("bad_request", f"Unknown field {name[:50]!r}; known here: {', '.join(sorted(known))}.")
        if name in fields:
            raise ProblemError("bad_request", f"The field {name!r} is given twice.")
        fields[name] = value
    return fields


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object in order, repeated names included."""

    __slots__ = ()


def _digits(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else text


def _whole(text: str) -> int | float:
    """A number that JSON writes with a point or an exponent; 90.0 is an integer, as JSON Schema has it.

    A double tells numbers of up to 15 digits apart; with more, a fraction could be rounded to an integer.
    """
    value, digits = float(text), re.sub(r"[.-]|[eE].*", "", text).strip("0")
    return int(value) if value.is_integer() and len(digits) <= 15 else value


def check_count(count: object, most: int) -> int:
    """Return a number of tickets: an integer from 1 to ``most``."""
    if type(count) is not int or not 1 <= count <= most:
        raise ProblemError("bad_request", f"count must be an integer from 1 to {most}.")
    return count


def wants_text(accept: str) -> bool:
    """Whether an Accept header prefers ``text/plain`` to JSON (RFC 9110, 12.5.1); on a tie the one it names wins.

    A weight that is invalid counts as absent, which is 1.
    """
    quality: dict[str, float] = {}
    for part in accept.lower().split(","):
        media, _, parameters = part.partition(";")
        q = re.search(r"(?:^|;)\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", parameters)
        quality[media.strip()] = float(q[1]) if q else 1.0

    def weight(media: str) -> float:  # what names it most exactly decides
        names = (media, media.split("/")[0] + "/*", "*/*")
        return next((quality[name] for name in names if name in quality), 0.0)

    text, as_json = weight("text/plain"), weight("application/json")
    named = "text/plain" in quality and "application/json" not in quality
    return text > as_json or (text == as_json > 0.0 and named)


def _refuse(problem: ProblemError, request_id: str, method: str, path: str) -> dict[str, Any]:
    """Log a problem and make its answer (RFC 9457)."""
    _log(
        "ERROR" if problem.status >= 500 else "WARNING",
        request_id,
        code=problem.code,
        status=problem.status,
        detail=problem.detail[:300],
        cause=problem.cause,
        method=method[:10],
        path=path[:100],
    )
    title = problem.code.replace("_", " ").capitalize()
    document = {"type": "about:blank", "title": title, "status": problem.status, "code": problem.code}
    body = json.dumps({**document, "detail": problem.detail}) + "\n"
    return _response(problem.status, "application/problem+json", body, problem.headers)


def _log(level: str, request_id: str, **facts: Any) -> None:
    line = {"level": level, **facts, "request_id": request_id}
    print(json.dumps(line), flush=True)  # noqa: T201 - Lambda takes log lines from stdout


def _response(status: int, content_type: str, body: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"Content-Type": content_type, "Cache-Control": "no-store", **(headers or {})},
        "body": body,
    }


# --- DynamoDB over HTTPS (AWS Signature Version 4) -------------------------------------------------


class Credentials(NamedTuple):
    """What signs a request; ``token`` is empty for a key that does not expire."""

    key_id: str
    secret: str
    token: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Credentials":
        """Read Lambda's own variables; ``unavailable`` if they are unset."""
        key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not key_id or not secret:
            raise _failure("", unknown=False, cause="NoCredentials")
        return cls(key_id, secret, environ.get("AWS_SESSION_TOKEN", ""))


def endpoint_url(environ: Mapping[str, str]) -> str:
    """DynamoDB's endpoint: the one that a variable of AWS's tools names, else the one that the template gives."""
    named = environ.get("AWS_ENDPOINT_URL_DYNAMODB") or environ.get("AWS_ENDPOINT_URL")
    return named or environ["DYNAMODB_ENDPOINT"]


def authorization(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    credentials: Credentials,
    region: str,
    service: str = "dynamodb",
) -> str:
    """The Authorization header of a request without a query (AWS IAM User Guide, "Create a signed AWS API request").

    All of ``headers`` is signed: names in lower case, values without spaces around them, ``host`` and
    ``x-amz-date`` (``20260102T030405Z``) among them.
    """
    moment, names = headers["x-amz-date"], sorted(headers)
    signed = ";".join(names)
    lines = [method, quote(path, safe="/~"), "", *(f"{name}:{headers[name]}" for name in names), "", signed]
    canonical = "\n".join([*lines, sha256(body).hexdigest()])
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, sha256(canonical.encode()).hexdigest()])
    key = signing_key(credentials.secret, moment[:8], region, service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"


@lru_cache(maxsize=1)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key of one day (``20260102``), region and service."""
    key = b"AWS4" + secret.encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class DynamoDB:
    """Two of DynamoDB's operations over one kept connection. ``clock`` gives epoch seconds."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._environ = environ
        self._clock = clock
        self.kept: HTTPConnection | None = None
        self._kept_at = 0.0

    def send(self, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request once, at most, and read its answer.

        Raises ``ConditionFailedError``, or a ``ProblemError`` that says what is known of the outcome.
        """
        body, connection, sent = encode(request), None, False
        try:
            headers = self._signed(operation, body)
            connection = self._connection()
            _prepare(connection, self._url.path or "/", {**headers, "content-length": str(len(body))})
            sent = True
            connection.endheaders(body)
            status, document = _read_answer(connection)
        except Exception as error:  # whatever it is, the outcome depends only on whether a byte was sent
            if connection is not None:
                connection.close()
            if isinstance(error, ProblemError):
                raise
            raise _failure(operation, unknown=sent and may_have_written(None, ""), cause=type(error).__name__) from None
        self.kept, self._kept_at = connection, self._clock()
        if status >= 300:
            raise _refused(operation, status, document)
        return document

    @cached_property
    def _url(self) -> SplitResult:
        return urlsplit(endpoint_url(self._environ))

    @cached_property
    def _tls(self) -> Any:
        import ssl

        # Read once, and only for TLS: reading the certificates takes longer than a handshake.
        return ssl.create_default_context(cafile=self._environ.get("AWS_CA_BUNDLE") or None)

    def _signed(self, operation: str, body: bytes) -> dict[str, str]:
        credentials = Credentials.from_environment(self._environ)
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": self._url.netloc.rpartition("@")[2],
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock())),
            "x-amz-target": f"DynamoDB_20120810.{operation}",
        }
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        region, path = self._environ["AWS_REGION"], self._url.path or "/"
        signature = authorization("POST", path, headers, body, credentials=credentials, region=region)
        return {**headers, "authorization": signature}

    def _connection(self) -> HTTPConnection:
        """The kept connection if it is still good, else a new one. The caller gives it back after reading all.

        If a write is sent on a connection that DynamoDB has closed, its outcome is unknown. So the connection is
        checked first: bytes that can be read before anything was asked are its end. One that was idle for long is not
        trusted, because a frozen execution environment does not hear of the end.
        """
        kept, self.kept = self.kept, None
        if kept is not None and kept.sock is not None:
            # The monotonic clock may stop while the environment is frozen.
            fresh = 0.0 <= self._clock() - self._kept_at <= IDLE_SECONDS
            held = getattr(kept.sock, "pending", int)()  # what TLS has read already; select does not see it
            if fresh and not held and not select.select([kept.sock], [], [], 0)[0]:
                return kept
            kept.close()
        return self._connect()

    def _connect(self) -> HTTPConnection:
        scheme, host, port = self._url.scheme, self._url.hostname, self._url.port
        if host is None or scheme not in ("http", "https"):
            raise ValueError("the endpoint is no http or https address")
        connection = (
            HTTPConnection(host, port, timeout=CONNECT_SECONDS)
            if scheme == "http"
            else HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._tls)
        )
        connection.response_class = TimedResponse
        connection.connect()
        return connection


@cache
def dynamodb() -> DynamoDB:
    """The client, one for the life of the execution environment."""
    return DynamoDB(os.environ)


class TimedResponse(HTTPResponse):
    """An answer that must arrive in full within ``ANSWER_SECONDS``, in any number of pieces."""

    def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(TimedReader(sock, self.fp.detach()))


class TimedReader(io.RawIOBase):
    """A socket's bytes until ``ANSWER_SECONDS`` from now; the socket's own timeout starts again with each piece."""

    def __init__(self, sock: Any, raw: Any) -> None:
        self._sock = sock
        self._raw = raw
        self._ends = time.monotonic() + ANSWER_SECONDS

    def readable(self) -> bool:
        """Return True: it is for reading."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what has arrived; ``TimeoutError`` when the time is over."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        """Release the socket."""
        self._raw.close()
        super().close()


def _prepare(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> None:
    connection.putrequest("POST", path, skip_host=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.sock.settimeout(ANSWER_SECONDS)


def _read_answer(connection: HTTPConnection) -> tuple[int, dict[str, Any]]:
    """Return the status and JSON document of an answer. A success must have a document, an error may have none."""
    with connection.getresponse() as response:
        body = response.read()
    checksum = response.headers.get("x-amz-crc32")
    if checksum is not None and checksum != str(zlib.crc32(body)):
        raise ValueError("the answer is not what was sent")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return response.status, document
    if response.status < 300:
        raise ValueError("the answer is no JSON object")
    return response.status, {}


def _refused(operation: str, status: int, document: Mapping[str, Any]) -> Exception:
    """The error for an answer that is no success; AWS's name of it is the end of ``__type``."""
    kind = document.get("__type")
    name = kind.rpartition("#")[2] if isinstance(kind, str) else ""
    if name == "ConditionalCheckFailedException":
        return ConditionFailedError(document.get("Item") or None)
    if name in THROTTLES:
        return ProblemError(
            "throttled", "DynamoDB is throttling; nothing was minted.", cause=name, headers={"Retry-After": "1"}
        )
    return _failure(operation, unknown=may_have_written(status, name), cause=name or f"HTTP {status}")


def may_have_written(status: int | None, error: str) -> bool:
    """Whether a request that was sent, and did not succeed, may have written all the same.

    ``status`` is that of the answer, ``None`` if there was none; ``error`` is the name that AWS gave its error. Only
    an error that AWS names proves that nothing was written: any other status may come from a proxy in between that has
    passed the request on. AWS's own 5xx proves nothing.
    """
    return status is None or status >= 500 or not error


def _failure(operation: str, *, unknown: bool, cause: str) -> ProblemError:
    if unknown and operation != "GetItem":
        return ProblemError("outcome_unknown", "DynamoDB did not answer; a ticket may have been spent.", cause=cause)
    return ProblemError("unavailable", "DynamoDB is not available; nothing was minted.", cause=cause)

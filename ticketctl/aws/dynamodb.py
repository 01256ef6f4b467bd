"""Sends DynamoDB operations for the handler's functions, with the AWS SDK or without it."""

import io
import json
import re
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.account import Aws
from ticketctl.aws.endpoints import dynamodb_url
from ticketctl.aws.sdk_errors import proxies_in_force, reason_of, refused, translated_errors
from ticketctl.deadline import Deadline, call_within
from ticketctl.errors import (
    NotDeployedError,
    OutcomeUnknownError,
    RefusedError,
    TicketctlError,
    UnreachableError,
    UsageError,
)
from ticketctl.http_client import HttpClient, Response, TransportError

Send = Callable[[str, dict[str, Any]], Mapping[str, Any]]
"""Performs an operation for the handler's functions: ``("UpdateItem", request)`` to the response."""
_METHODS = {"GetItem": "get_item", "UpdateItem": "update_item", "TransactWriteItems": "transact_write_items"}
SendUntil = Callable[[Deadline], Send]
"""Makes a ``Send`` whose requests end by the deadline."""


def sdk_sender(client: Any, target: str, *, profile: str | None = None) -> Send:
    """Send through a botocore client, within the client's own limits; ``target`` names the table in errors."""
    from botocore.exceptions import ClientError, ParamValidationError

    def send(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        place = _transaction(request) if operation == "TransactWriteItems" else target
        with translated_errors(place, profile=profile, spends=operation != "GetItem"):
            try:
                answer: Mapping[str, Any] = getattr(client, _METHODS[operation])(**request)
            except ParamValidationError as error:
                raise UsageError(f"the request is invalid: {error}") from None
            except ClientError as error:
                if operation == "TransactWriteItems":
                    raise_transaction_error(error.response, place)
                if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                    raise bundle.handler.ConditionFailedError(error.response.get("Item") or None) from None
                raise
        if operation == "UpdateItem" and "Attributes" not in answer:
            raise OutcomeUnknownError(f"{target} gave no usable answer; a ticket may have been spent")
        return answer

    return send


def _transaction(request: Mapping[str, Any]) -> str:
    """A transaction with all its tables, for errors: AWS does not always say which of them refused."""
    writes = [fields for write in request["TransactItems"] for fields in write.values()]
    tables = dict.fromkeys(table_name(str(fields.get("TableName"))) for fields in writes)
    return f"the transaction on {' and '.join(tables)}"


def table_name(named: str) -> str:
    """The name of a table that is named as in DynamoDB's requests: by its name or by its ARN."""
    return named.partition(":table/")[2].partition("/")[0] or named


class TransactionCanceledError(Exception):
    """DynamoDB made none of a transaction's writes. ``reasons`` are in the order of the writes; see its ``Code``."""

    def __init__(self, reasons: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("the transaction was canceled")
        self.reasons = reasons


def raise_transaction_error(response: Mapping[str, Any], target: str) -> None:
    """Raise the error of a transaction if AWS's error code has a meaning of its own for transactions."""
    code, message = response["Error"]["Code"], response["Error"].get("Message", "")
    if code == "TransactionCanceledException":
        raise TransactionCanceledError(response.get("CancellationReasons") or [{"Code": "TransactionConflict"}])
    if code == "TransactionInProgressException":  # an earlier attempt with the same token
        raise OutcomeUnknownError(f"{target}: {code}")
    if code in ("ValidationException", "IdempotentParameterMismatchException"):
        raise RefusedError(f"{target} was refused: {code}: {message}")
    if code == "ResourceNotFoundException":
        hint = "check the TableName of each write, and the region"
        raise NotDeployedError(f"{target} was refused: one of its tables does not exist", hint=hint)


def timed_sdk_sender(aws: Aws, target: str, *, timeout: float, connect: float) -> SendUntil:
    """Send through a new botocore client; each request is sent once.

    ``timeout`` and ``connect`` are the most seconds for each request and connection. The deadline bounds everything,
    including what the SDK's own limits do not: credentials, name resolution, and a response in many small pieces.
    """
    attempts, lock = threading.local(), threading.Lock()
    clients: list[Any] = []

    def sdk_client() -> Any:
        with lock:
            if not clients:
                client = aws.client("dynamodb", timeout=timeout, connect=connect, retries=0)
                client.meta.events.register("before-send.dynamodb", watch)
                clients.append(client)
            return clients[0]

    def watch(request: Any, **_: Any) -> None:
        request.body = _WatchedBody(request.body, attempts.current.begin)

    def perform(attempt: _Attempt, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        attempts.current = attempt
        aws.credentials()  # here, not inside the SDK's request, so that an error can name a slow source
        try:
            return sdk_sender(sdk_client(), target, profile=aws.profile)(operation, request)
        except OutcomeUnknownError as error:
            if attempt.sent:
                raise
            raise _no_answer(target, reason_of(error.__cause__), spends=False) from error

    def send(deadline: Deadline, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        attempt = _Attempt()
        try:
            return call_within(deadline, partial(perform, attempt, operation, request))
        except TimeoutError:
            sent = attempt.abandon()
            if not sent and (aws.asked_source is not None or not clients):
                raise aws.slow_credentials() from None
            raise _no_answer(target, "it took too long", spends=sent and operation != "GetItem") from None

    return lambda deadline: partial(send, deadline)


class _WatchedBody(io.BytesIO):
    """The body of a request, which calls ``begin`` before it is sent; a request without its body does nothing.

    The SDK opens the connection after its last event, so only the body tells if there was one.
    """

    def __init__(self, body: bytes, begin: Callable[[], None]) -> None:
        super().__init__(body)
        self._begin = begin

    def read(self, size: int | None = -1) -> bytes:
        self._begin()
        return super().read(size)


class _Attempt:
    """Records if a request was sent, and can prevent that: a request that is abandoned first is never sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sent = self._abandoned = False

    def begin(self) -> None:
        """Record that the request is sent now; ``TimeoutError`` if it was abandoned."""
        with self._lock:
            if self._abandoned:
                raise TimeoutError("no time is left")
            self.sent = True

    def abandon(self) -> bool:
        """Prevent the request from being sent; return True if it was already sent."""
        with self._lock:
            self._abandoned = True
            return self.sent


def needs_sdk(region: str, environ: Mapping[str, str]) -> bool:
    """Whether the AWS settings choose an endpoint or certificates that only the SDK can find."""
    named = ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")
    if any(environ.get(name) for name in (*named, "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")):
        return True
    try:
        dynamodb_url(region)
        file = Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
        return re.search("endpoint|ca_bundle|services", file.read_text(errors="replace")) is not None
    except (FileNotFoundError, RuntimeError):  # a user without a home folder has no such file
        return False
    except (OSError, LookupError):
        return True


def plain_sender(aws: Aws, http: HttpClient, target: str, *, timeout: float, connect: float) -> SendUntil:
    """Send without the SDK, for credentials that need no look-up (``Aws.plain_credentials``).

    ``timeout`` and ``connect`` are the most seconds for each request and connection, within the deadline.
    """
    url = (aws.endpoint_url or dynamodb_url(aws.region)).rstrip("/") + "/"

    def send(deadline: Deadline, operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        spends, body = operation != "GetItem", bundle.handler.encode(request)
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{operation}"}
        signed = aws.signed_headers("POST", url, headers, body, deadline, service="dynamodb")
        try:
            response = http.request("POST", url, signed, body, deadline=deadline.within(timeout), connect=connect)
        except TransportError as error:
            raise _no_answer(target, str(error), spends=spends and error.sent) from error
        document = _document(response)
        if response.status == 200 and document is not None and (operation != "UpdateItem" or "Attributes" in document):
            return document
        if response.status < 300 or document is None:
            raise _no_answer(target, f"status {response.status}", spends=spends)
        raise _refusal(response.status, document, target, spends=spends)

    return lambda deadline: partial(send, deadline)


def _refusal(status: int, document: Mapping[str, Any], target: str, *, spends: bool) -> Exception:
    """The error for an error response; AWS's error code is the end of ``__type``."""
    kind = document.get("__type")
    code = kind.rpartition("#")[2] if isinstance(kind, str) else ""
    if code == "ConditionalCheckFailedException":
        return bundle.handler.ConditionFailedError(document.get("Item") or None)
    message = str(document.get("message") or document.get("Message") or code)
    return refused(code, message, status, target=target, profile=None, spends=spends)


def _document(response: Response) -> dict[str, Any] | None:
    """The JSON object of a response; ``None`` if it is damaged. Empty if an error response has none."""
    checksum = response.headers.get("x-amz-crc32")
    if checksum is not None and checksum != str(zlib.crc32(response.body)):
        return None
    try:
        document = json.loads(response.body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return None if response.status < 300 else {}


def _no_answer(target: str, reason: str, *, spends: bool) -> TicketctlError:
    if spends:
        return OutcomeUnknownError(
            f"{target} did not answer: {reason}; a ticket may have been spent", hint="ticketctl status"
        )
    return UnreachableError(f"{target} cannot be reached: {reason}{proxies_in_force()}", hint="try again")

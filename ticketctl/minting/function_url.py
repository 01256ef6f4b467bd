"""Mints through the Function URL."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from ticketctl.aws.sdk_errors import access_error, proxies_in_force
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    NotDeployedError,
    OutcomeUnknownError,
    RefusedError,
    ThrottledError,
    TicketctlError,
    UnreachableError,
    UsageError,
)
from ticketctl.http_client import Response, TransportError, UnsendableError
from ticketctl.minting.source import CONNECT_SECONDS, PROBLEMS, host_of, problem_error, quoted_key
from ticketctl.models import Block, Counter, MintRequest

_PERMISSIONS = "the caller needs both lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function"
_UNSIGNED = f"check that no proxy removes the signature (the Authorization header); {_PERMISSIONS}"
Signer = Callable[[str, str, Mapping[str, str], bytes, Deadline], Mapping[str, str]]
"""Signs a request: ``(method, url, headers, body, deadline)`` to the headers to send."""


class HttpRequest(NamedTuple):
    """One request to a Function URL. ``tickets`` is how many it takes, 0 if it only reads."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    partition: str | None
    tickets: int


class FunctionUrl:
    """Builds the requests to a Function URL and interprets its answers. It does no I/O.

    ``signs_at_once``: sign every request, because the URL is known to require it. Otherwise the first 403 turns
    signing on. ``place`` names the URL in possible gaps; default: the host.
    """

    def __init__(self, url: str, *, sign: Signer, signs_at_once: bool, place: str | None = None) -> None:
        self.url = url.rstrip("/") + "/"
        self._host = host_of(url)
        self._default = place  # the default counter has the name of its region
        self._place = place or self._host
        self._sign = sign
        self.signs = signs_at_once

    def to_mint(self, wanted: MintRequest) -> HttpRequest:
        """The request that mints."""
        fields: dict[str, Any] = {"count": wanted.count}
        if wanted.partition is not None:
            fields["partition"] = wanted.partition
        headers = {"content-type": "application/json", "idempotency-key": quoted_key(wanted.key)}
        return HttpRequest("POST", self.url, headers, json.dumps(fields).encode(), wanted.partition, wanted.count)

    def to_read(self, partition: str | None) -> HttpRequest:
        """The request that reads a counter."""
        query = "" if partition is None else f"?partition={quote(partition, safe='-_.~')}"
        return HttpRequest("GET", f"{self.url}status{query}", {}, b"", partition, 0)

    def signed_headers(self, request: HttpRequest, deadline: Deadline) -> Mapping[str, str]:
        """The headers that sign a request; the deadline also bounds the look-up of credentials."""
        return self._sign(request.method, request.url, request.headers, request.body, deadline)

    def wants_signature(self, request: HttpRequest, response: Response, *, signed: bool) -> bool:
        """Whether the request must be sent again with a signature. Later requests are signed.

        If the 403 is not from AWS, the request may have minted: then this is a failed attempt.
        """
        if response.status != 403 or signed:
            return False
        self.signs = True
        return not request.tickets or bool(_error_name(response, _document(response)))

    def block(self, request: HttpRequest, response: Response) -> Block:
        """Return the block in an answer, or raise the error that the answer means."""
        try:
            block = Block.from_answer(self._answer(request, response), self._place)
        except ValueError as error:
            raise self._not_ours(f"{error}", request) from None
        if block.count != request.tickets or not self._is_requested(request, block.partition):
            raise self._not_ours("not the requested block", request)
        return block

    def counter(self, request: HttpRequest, response: Response) -> Counter:
        """Return the counter in an answer, or raise the error that the answer means."""
        try:
            counter = Counter.from_answer(self._answer(request, response))
        except ValueError as error:
            raise self._not_ours(f"{error}", request) from None
        if not self._is_requested(request, counter.partition):
            raise self._not_ours("not the requested counter", request)
        return counter

    def _is_requested(self, request: HttpRequest, partition: str) -> bool:
        """Whether an answer is about the requested counter; a typed URL may have any default counter."""
        return partition == (request.partition or self._default or partition)

    def failure(self, request: HttpRequest, error: TransportError) -> TicketctlError:
        """The error for a request that got no answer."""
        if isinstance(error, UnsendableError):
            return UsageError(f"invalid URL {request.url}: {error}")
        if not error.sent:
            return UnreachableError(
                f"{self._host} cannot be reached: {error}{proxies_in_force()}; nothing was minted",
                hint="try again; ticketctl url shows the address",
            )
        return self._not_ours(str(error), request)

    def _answer(self, request: HttpRequest, response: Response) -> Mapping[str, Any]:
        document = _document(response)
        if response.status == 200 and document:
            return document
        if (code := _problem_code(response, document)) in PROBLEMS:
            raise problem_error(code, str(document.get("detail") or f"status {response.status}"), request.partition)
        raise self._refused(request, response, document)

    def _refused(self, request: HttpRequest, response: Response, document: Mapping[str, Any]) -> TicketctlError:
        """The error for an answer that the function did not write: from AWS, or from a proxy."""
        from ticketctl.handler import handler  # a mint that succeeds does not load it

        status, named = response.status, _error_name(response, document).partition(":")[0]
        if handler.may_have_written(status, named):
            return self._not_ours(f"status {status}", request)
        detail = str(document.get("Message") or document.get("message") or "no reason given")
        if status in (401, 403):
            target = f"{self._host} refused the request ({status})"
            return access_error(named, detail, target=target, hint=_UNSIGNED if detail == "Forbidden" else _PERMISSIONS)
        if status == 404:
            return NotDeployedError(f"there is no ticket server at {self._host} (404)", hint="ticketctl deploy")
        if status == 429:
            return ThrottledError(f"{self._host} is throttling (429); nothing was minted", hint="try again")
        return RefusedError(f"{self._host} refused the request ({status}, {named}): {detail}")

    def _not_ours(self, what: str, request: HttpRequest) -> TicketctlError:
        """The error if there is no answer, or one from another sender: the request may have reached the function."""
        if request.tickets:
            return OutcomeUnknownError(
                f"{self._host} gave no usable answer ({what}); a ticket may have been spent",
                hint="ticketctl status",
                may_write_again=True,
            )
        return UnreachableError(f"{self._host} gave no usable answer ({what})", hint="try again")


class Transport(Protocol):
    """What sends requests, such as ``ticketctl.http_client.HttpClient``."""

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, deadline: Deadline, connect: float
    ) -> Response:
        """Send a request and return the response; raises ``TransportError``."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class UrlSource:
    """Mints through a Function URL; ``connect`` is the limit for opening a connection, in seconds."""

    def __init__(self, url: FunctionUrl, transport: Transport, *, connect: float = CONNECT_SECONDS) -> None:
        self._url = url
        self._transport = transport
        self._connect = connect

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets; one request, sent once."""
        asked = self._url.to_mint(request)
        return self._url.block(asked, self._ask(asked, deadline))

    def counter(self, partition: str | None, deadline: Deadline) -> Counter:
        """Read a counter."""
        asked = self._url.to_read(partition)
        return self._url.counter(asked, self._ask(asked, deadline))

    def _ask(self, request: HttpRequest, deadline: Deadline) -> Response:
        signed = self._url.signs
        while True:
            headers = self._url.signed_headers(request, deadline) if signed else request.headers
            try:
                response = self._transport.request(
                    request.method, request.url, headers, request.body, deadline=deadline, connect=self._connect
                )
            except TransportError as error:
                raise self._url.failure(request, error) from error
            if not self._url.wants_signature(request, response, signed=signed):
                return response
            signed = True


def _error_name(response: Response, document: Mapping[str, Any]) -> str:
    """The error's name, if our function or the Function URL service sent it; empty for any other sender.

    The service names it in ``x-amzn-ErrorType``. A JSON body with AWS's request id is from the service as well.
    """
    named = _problem_code(response, document) or response.headers.get("x-amzn-errortype", "")
    return named or ("unnamed" if document and "x-amzn-requestid" in response.headers else "")


def _problem_code(response: Response, document: Mapping[str, Any]) -> str:
    """The code of our function's problem document; empty for any other answer.

    Gateways also answer with problem documents, or with JSON that has a ``code`` such as ``unavailable``. So the
    code must be one of the function's, with the status that the function gives it.
    """
    from ticketctl.handler import handler  # a mint that succeeds does not load it

    code = str(document.get("code"))
    is_problem = response.headers.get("content-type", "").startswith("application/problem+json")
    return code if is_problem and handler.STATUS.get(code) == response.status else ""


def _document(response: Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty if its content type or its body is not a JSON object."""
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in ("application/json", "application/problem+json"):
        return {}
    try:
        document = json.loads(response.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

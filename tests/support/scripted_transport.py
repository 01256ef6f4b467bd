"""Transports that pass httpx's requests to a function, which answers or fails as httpx does."""

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import httpcore
import httpx

from ticketctl.deadline import Deadline
from ticketctl.http_client import Response, TransportError, UnsendableError


class ScriptedTransport:
    """Replaces the network."""

    def __init__(self, function: Callable[[httpx.Request], httpx.Response]) -> None:
        self._function = function

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, deadline: Deadline, connect: float
    ) -> Response:
        timeout = {"connect": min(connect, deadline.left()), "read": deadline.left()}
        try:
            asked = httpx.Request(method, url, headers=dict(headers), content=body, extensions={"timeout": timeout})
            answered = self._function(asked)
            return Response(answered.status_code, dict(answered.headers), answered.read())
        except (httpx.InvalidURL, httpx.RequestError) as error:
            raise failed(error) from error

    def close(self) -> None:
        pass


def failed(error: Exception) -> TransportError:
    """The error of the wire that an error of httpx stands for."""
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return UnsendableError(what, sent=False)
    return TransportError(what, sent=not isinstance(error, UNSENT))


class ScriptedPool:
    """Takes the place of the network for ``await``: fails with the errors of httpcore, which have httpx's names."""

    def __init__(self, function: Callable[[httpx.Request], httpx.Response]) -> None:
        self._function = function

    async def request(
        self,
        method: str,
        url: httpcore.URL,
        *,
        headers: list[tuple[str, str]],
        content: bytes,
        extensions: dict[str, Any],
    ) -> httpcore.Response:
        address = f"{url.scheme.decode()}://{url.host.decode()}{url.target.decode()}"
        asked = httpx.Request(method, address, headers=headers, content=content)
        try:
            answered = self._function(asked)
        except httpx.RequestError as error:
            if not isinstance(error, UNSENT):
                info = {"request": SimpleNamespace(method=method.encode())}
                await extensions["trace"]("http11.send_request_headers.started", info)
            raise getattr(httpcore, type(error).__name__)(str(error)) from error
        answer = httpcore.Response(
            answered.status_code, headers=list(answered.headers.items()), content=answered.content
        )
        await answer.aread()
        return answer


UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Function:
    """The remote end: returns its answers in order and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


BY_AWS = {"x-amzn-errortype": "AccessDeniedException", "x-amzn-requestid": "1"}


def problem(status: int, code: str, detail: str = "why") -> httpx.Response:
    document = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail}
    return httpx.Response(
        status, headers={"content-type": "application/problem+json"}, content=json.dumps(document).encode()
    )


BEFORE_SENDING = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("too slow"),
    httpx.PoolTimeout("busy"),
    httpx.ProxyError("no way"),
]
AFTER_SENDING = [
    httpx.ReadTimeout("too slow"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset"),
    httpx.WriteTimeout("too slow"),
    httpx.RemoteProtocolError("hung up"),
]

"""Mints through the Function URL with ``await``."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import httpx

from ticketctl.deadline import Deadline
from ticketctl.errors import SetupError
from ticketctl.http_client import Response, TransportError, UnsendableError
from ticketctl.minting.function_url import FunctionUrl, HttpRequest
from ticketctl.minting.source import CONNECT_SECONDS
from ticketctl.models import Block, MintRequest


class AsyncUrlSource:
    """``UrlSource`` with ``await``, for minting only.

    It signs in ``threads``, because credentials may have to come from the network.
    """

    def __init__(
        self,
        url: FunctionUrl,
        threads: Executor,
        *,
        direct: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        connect: float = CONNECT_SECONDS,
    ) -> None:
        self._url = url
        self._threads = threads
        self._connect = connect
        try:
            self._client = httpx.AsyncClient(trust_env=not direct, transport=transport)
        except (OSError, ValueError, ImportError) as error:  # proxies and certificates of the environment
            raise SetupError(f"HTTPS cannot be used: {error}", hint="fix the proxy and SSL_CERT_* variables") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def mint(self, request: MintRequest, deadline: Deadline) -> Block:
        """Take tickets; one request, sent once."""
        asked = self._url.to_mint(request)
        signed = self._url.signs
        response = await self._send(asked, deadline, signed=signed)
        if self._url.wants_signature(response, signed=signed):
            response = await self._send(asked, deadline, signed=True)
        return self._url.block(asked, response)

    async def _send(self, request: HttpRequest, deadline: Deadline, *, signed: bool) -> Response:
        headers = request.headers
        if signed:
            loop = asyncio.get_running_loop()
            headers = await loop.run_in_executor(self._threads, self._url.signed_headers, request, deadline)
        begun, left = _Begun(), deadline.left()
        if left <= 0:
            raise self._url.failure(request, TransportError("no time is left", sent=False))
        try:
            timeout = httpx.Timeout(left, connect=min(left, self._connect))
            async with asyncio.timeout(left):  # httpx restarts its own timeout with each piece of the answer
                answer = await self._client.request(
                    request.method,
                    request.url,
                    headers=headers,
                    content=request.body,
                    timeout=timeout,
                    extensions={"trace": begun.trace},
                )
        except TimeoutError as error:
            raise self._url.failure(request, TransportError("the answer takes too long", sent=begun.sent)) from error
        except (httpx.InvalidURL, httpx.RequestError) as error:
            raise self._url.failure(request, failed(error)) from error
        return Response(answer.status_code, dict(answer.headers), answer.content)


class _Begun:
    """Records if a byte of the request may have been sent. If not when the time is over, nothing was minted."""

    def __init__(self) -> None:
        self.sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Receive an event of httpcore; the CONNECT to a proxy does not count as the request."""
        if event.endswith(".send_request_headers.started") and info["request"].method != b"CONNECT":
            self.sent = True


def failed(error: Exception) -> TransportError:
    """Turn an httpx error into a ``TransportError``, which says if the request may have been sent."""
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return UnsendableError(what, sent=False)
    unsent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
    return TransportError(what, sent=not isinstance(error, unsent))

"""Minting through the Function URL with ``await``."""

import asyncio

import httpx

from ticketctl.deadline import Deadline
from ticketctl.errors import SetupError
from ticketctl.http_client import Response, TransportError, UnsendableError
from ticketctl.minting.function_url import FunctionUrl, Request
from ticketctl.minting.source import CONNECT_SECONDS
from ticketctl.models import Block


class AsyncUrlSource:
    """A Function URL, as ``UrlSource`` with ``await``; for minting only.

    It signs in a thread: credentials may have to come from the network.
    """

    def __init__(
        self, url: FunctionUrl, *, direct: bool = False, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        try:
            self._client = httpx.AsyncClient(trust_env=not direct, transport=transport)
        except (OSError, ValueError, ImportError) as error:  # proxies and certificates of the environment
            raise SetupError(
                f"HTTPS cannot be used: {error}", hint="mend the proxy and SSL_CERT_* variables"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def mint(self, partition: str | None, count: int, *, key: str | None, within: float) -> Block:
        """Take ``count`` tickets; one request, sent once."""
        request = self._url.to_mint(partition, count, key)
        signed = self._url.signs
        response = await self._send(request, within, signed=signed)
        if self._url.wants_signature(response, signed=signed):
            response = await self._send(request, within, signed=True)
        return self._url.block(request, response)

    async def _send(self, request: Request, within: float, *, signed: bool) -> Response:
        headers = (
            await asyncio.to_thread(self._url.signed_headers, request, Deadline(within)) if signed else request.headers
        )
        timeout = httpx.Timeout(within, connect=min(within, CONNECT_SECONDS))
        try:
            async with asyncio.timeout(within):  # httpx would begin anew with each piece of the answer
                answer = await self._client.request(
                    request.method, request.url, headers=headers, content=request.body, timeout=timeout
                )
        except TimeoutError as error:
            raise self._url.failure(request, TransportError("the answer takes too long", sent=True)) from error
        except (httpx.InvalidURL, httpx.RequestError) as error:
            raise self._url.failure(request, failed(error)) from error
        return Response(answer.status_code, dict(answer.headers), answer.content)


def failed(error: Exception) -> TransportError:
    """What an error of httpx's says of the request."""
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return UnsendableError(what, sent=False)
    unsent = httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
    return TransportError(what, sent=not isinstance(error, unsent))

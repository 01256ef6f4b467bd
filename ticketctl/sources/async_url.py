"""Minting through the Function URL with ``await``."""

import asyncio

import httpx

from ticketctl.models import Block
from ticketctl.sources.url import FunctionUrl, Request, https_errors, limits


class AsyncUrlSource:
    """A Function URL, as ``UrlSource`` with ``await``; for minting only.

    It signs in a thread: credentials may have to come from the network.
    """

    def __init__(
        self, url: FunctionUrl, *, direct: bool = False, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        with https_errors():
            self._client = httpx.AsyncClient(trust_env=not direct, transport=transport)

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

    async def _send(self, request: Request, within: float, *, signed: bool) -> httpx.Response:
        headers = await asyncio.to_thread(self._url.signed_headers, request) if signed else request.headers
        try:
            return await self._client.request(
                request.method, request.url, headers=headers, content=request.body, timeout=limits(within)
            )
        except (httpx.InvalidURL, httpx.RequestError) as error:
            raise self._url.failure(request, error) from error

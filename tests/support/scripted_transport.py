"""A transport whose other end is a function: it gets httpx's requests, and answers or fails as httpx does."""

from collections.abc import Callable, Mapping

import httpx

from ticketctl.deadline import Deadline
from ticketctl.http_client import Response
from ticketctl.minting.async_function_url import failed


class ScriptedTransport:
    """Takes the place of the network."""

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

"""Minting through the Function URL."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ticketctl.aws import proxies_in_force
from ticketctl.errors import (
    AccessError,
    NotDeployedError,
    OutcomeUnknownError,
    SetupError,
    ThrottledError,
    TicketctlError,
    UnreachableError,
    UsageError,
)
from ticketctl.models import Block, Counter
from ticketctl.sources import quoted_key, refusal

if TYPE_CHECKING:
    import httpx

Signer = Callable[[str, str, Mapping[str, str], bytes], Mapping[str, str]]
"""``(method, url, headers, body)`` to the headers to send."""

CONNECT_SECONDS = 3.0


class UrlSource:
    """A Function URL; ``timeout`` (seconds) bounds each look at a counter, ``connect`` each connection.

    ``signs_at_once``: the URL is known to want signed requests; else the first 403, which mints nothing,
    tells. ``transport`` takes the place of the network; ``direct`` ignores the proxies of the environment.
    """

    def __init__(
        self,
        url: str,
        *,
        sign: Signer,
        signs_at_once: bool,
        timeout: float,
        connect: float = CONNECT_SECONDS,
        direct: bool = False,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        import httpx

        self._url = url.rstrip("/") + "/"
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        self._sign = sign
        self._signs = signs_at_once
        self._timeout = timeout
        self._connect = connect
        try:
            self._client = httpx.Client(trust_env=not direct, transport=transport)
        except (OSError, ValueError, ImportError) as error:  # proxies and certificates of the environment
            raise SetupError(
                f"HTTPS cannot be used: {error}", hint="mend the proxy and SSL_CERT_* variables"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def mint(self, partition: str | None, count: int, *, key: str | None, within: float) -> Block:
        """Take ``count`` tickets; one request, sent once."""
        import json

        fields = {"count": count} if partition is None else {"count": count, "partition": partition}
        headers = {"content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = quoted_key(key)
        body = json.dumps(fields).encode()
        answer = self._ask("POST", self._url, headers, body, partition, spends=True, within=within)
        try:
            block = Block.from_answer(answer)
        except ValueError as error:
            raise self._not_ours(f"{error}", spends=True) from None
        if block.count != count or partition not in (None, block.partition):
            raise self._not_ours("not the block that was asked for", spends=True)
        return block

    def counter(self, partition: str | None) -> Counter:
        """Where a counter stands."""
        query = "" if partition is None else f"?partition={quote(partition, safe='-_.~')}"
        url = f"{self._url}status{query}"
        answer = self._ask("GET", url, {}, b"", partition, spends=False, within=self._timeout)
        try:
            return Counter.from_answer(answer)
        except ValueError as error:
            raise self._not_ours(f"{error}", spends=False) from None

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        partition: str | None,
        *,
        spends: bool,
        within: float,
    ) -> Mapping[str, Any]:
        response = self._send(method, url, headers, body, spends=spends, within=within)
        if response.status_code == 403 and not self._signs:
            self._signs = True
            response = self._send(method, url, headers, body, spends=spends, within=within)
        document = _document(response)
        if response.status_code == 200 and document:
            return document
        code, detail = str(document.get("code")), str(document.get("detail") or f"status {response.status_code}")
        raise refusal(code, detail, partition) or self._failed(response, document, spends=spends)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, spends: bool, within: float
    ) -> "httpx.Response":
        import httpx

        if self._signs:
            headers = self._sign(method, url, headers, body)
        timeout = httpx.Timeout(within, connect=min(within, self._connect))
        try:
            return self._client.request(method, url, headers=headers, content=body, timeout=timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
            raise UnreachableError(
                f"{self._host} cannot be reached: {error or type(error).__name__}{proxies_in_force()}; "
                "nothing was minted",
                hint="try again; ticketctl url shows the address",
            ) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise UsageError(f"{url} is not a URL to call: {error}") from error
        except httpx.RequestError as error:
            raise self._not_ours(str(error) or type(error).__name__, spends=spends) from error

    def _failed(self, response: "httpx.Response", document: Mapping[str, Any], *, spends: bool) -> TicketctlError:
        status = response.status_code
        detail = document.get("Message") or document.get("message")
        if status in (401, 403):
            return AccessError(
                f"{self._host} refused the request ({status}): {detail or 'no reason given'}",
                hint="the caller needs both lambda:InvokeFunctionUrl and lambda:InvokeFunction on the function",
            )
        if status == 404:
            return NotDeployedError(f"there is no ticket server at {self._host} (404)", hint="ticketctl deploy")
        if status == 429:
            return ThrottledError(f"{self._host} is throttling (429); nothing was minted", hint="try again")
        return self._not_ours(f"status {status}", spends=spends)

    def _not_ours(self, what: str, *, spends: bool) -> TicketctlError:
        """An answer that the function did not write, or none: the request may have reached it."""
        if spends:
            return OutcomeUnknownError(
                f"{self._host} gave no usable answer ({what}); a ticket may have been spent",
                hint="ticketctl status",
            )
        return UnreachableError(f"{self._host} gave no usable answer ({what})", hint="try again")


def _document(response: "httpx.Response") -> Mapping[str, Any]:
    """The JSON object of an answer; empty unless its content type says that it is one and it is."""
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in ("application/json", "application/problem+json"):
        return {}
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

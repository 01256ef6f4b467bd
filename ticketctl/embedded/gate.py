"""The gate in front of the embedded AWS: an ASGI application that authenticates requests.

Without it, anything that can connect to the port could create a function and so run code as the user. The rules:

- A request must be signed with this engine's own key, or with credentials that the engine issued (a function's role,
  an IAM user, a session). The gate verifies the signature over the body that it received.
- A request to a public Function URL (auth type ``NONE``) may be unsigned. Then it may also come from a web page
  (``Origin``, ``Sec-Fetch-Site``).
- The ``Host`` must be a loopback name. This prevents DNS rebinding: a web page that uses its own name for 127.0.0.1.
- No answer allows a web page of another origin to read it.
"""

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from ticketctl.embedded.signature import RejectedRequestError, SignedRequest, claims_signature, verify_signature

_FUNCTION_URL = re.compile("/_aws/lambda-url/([0-9a-z-]+)(?:/|$)")
HOSTS = ("127.0.0.1", "localhost")
MAX_BODY_BYTES = 64 * 2**20
_ONCE = ("host", "authorization", "x-amz-date", "x-amz-security-token", "x-amz-target", "x-amz-content-sha256")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
AsgiSend = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, AsgiSend], Awaitable[None]]
"""An ASGI application; see the ASGI specification, version 3."""
Inside = Callable[[Message, SignedRequest, Receive, AsgiSend], Awaitable[None]]
"""An ASGI application that also gets the request that the gate has read."""


class Gate:
    """Pass a request to ``inside`` or refuse it with 403.

    ``key`` and ``secret`` are the engine's own. ``issued`` returns the secret of a key that the engine issued.
    ``is_public`` returns whether anyone may call the Function URL with that ID.
    """

    def __init__(
        self,
        inside: Inside,
        lifespan: App,
        *,
        key: str,
        secret: str,
        issued: Callable[[str, str], str],
        is_public: Callable[[str], bool],
    ) -> None:
        self._inside = inside
        self._lifespan = lifespan
        self._key = key
        self._secret = secret
        self._issued = issued
        self._is_public = is_public

    async def __call__(self, scope: Message, receive: Receive, send: AsgiSend) -> None:
        """Answer one request (the ASGI interface)."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # WebSocket is not supported
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Message, receive: Receive, send: AsgiSend) -> None:
        headers: dict[str, str] = {}
        try:
            headers = _headers(scope["headers"])
            request = SignedRequest(
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                scope["query_string"].decode("latin-1"),
                parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="latin-1"),
                headers,
                await _body(receive),
            )
            self._admit(scope["path"], request)
        except RejectedRequestError as refused:
            await refuse(send, headers, 403, "UnrecognizedClientException", f"The request was refused: {refused}.")
            return
        body = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive_again() -> Message:
            return body.pop() if body else await receive()

        async def without_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [h for h in message.get("headers", []) if not h[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": kept}
            await send(message)

        await self._inside(scope, request, receive_again, without_cors)

    def _admit(self, path: str, request: SignedRequest) -> None:
        if request.headers.get("host", "").rpartition(":")[0] not in HOSTS:
            raise RejectedRequestError("its Host is not a loopback name")
        called = called_function(path)
        if called and not claims_signature(request):
            if not self._is_public(called):
                raise RejectedRequestError("it is not signed, and there is no such public Function URL")
            return
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            raise RejectedRequestError("it comes from a web page")
        verify_signature(request, self._secret_of)

    def _secret_of(self, key: str, token: str) -> str:
        if hmac.compare_digest(key.encode(errors="replace"), self._key.encode()) and not token:
            return self._secret
        return self._issued(key, token)


def called_function(path: str) -> str:
    """The ID of the Function URL that a path calls; "" for any other path."""
    found = _FUNCTION_URL.match(path)
    return found[1] if found else ""


async def refuse(send: AsgiSend, headers: dict[str, str], status: int, code: str, message: str) -> None:
    """Answer with an error in AWS's format: XML for the query protocol, JSON for the others."""
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        kind, body = b"text/xml", _xml(code, message)
    else:
        kind, body = b"application/json", json.dumps({"__type": code, "message": message})
    await answer(send, status, [(b"content-type", kind), (b"x-amzn-errortype", code.encode())], body.encode())


async def answer(send: AsgiSend, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a complete answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _xml(code: str, message: str) -> str:
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></ErrorResponse>"


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), _text(raw_value)
        if name in headers and name in _ONCE:
            raise RejectedRequestError(f"it has two {name} headers")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RejectedRequestError("it is incomplete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            raise RejectedRequestError("its body is too large")
    return b"".join(parts)

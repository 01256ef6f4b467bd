"""Function URL events and the function's answers, for the tests of the handler."""

import base64
import json
from typing import Any

from ticketctl.handler import handler

SETTINGS = handler.Configuration("Tickets", "us-east-1", offset=1, increment=1, max_count=10_000)
SECRET = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE"


def event(path: str = "/", method: str = "GET", query: str = "", **more: Any) -> dict[str, Any]:
    """A Function URL's event, payload format 2.0."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"authorization": SECRET, "accept": "*/*"},
        "requestContext": {"http": {"method": method, "path": path}},
        "isBase64Encoded": False,
        **more,
    }


def encoded(body: bytes) -> dict[str, Any]:
    return event(method="POST", body=base64.b64encode(body).decode(), isBase64Encoded=True)


def problem(code: str, status: int, detail: str, **headers: str) -> dict[str, Any]:
    """Return the complete answer to a request that fails (RFC 9457)."""
    title = code.replace("_", " ").capitalize()
    document = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    own = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"statusCode": status, "headers": own | headers, "body": json.dumps(document) + "\n"}

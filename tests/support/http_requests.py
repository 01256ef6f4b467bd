"""A request of ``HttpClient`` with the timeouts of the tests."""

from collections.abc import Mapping

from tests.support.peer import PATIENCE
from ticketctl.deadline import Deadline
from ticketctl.http_client import HttpClient, Response


def ask(
    http: HttpClient,
    url: str,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
    connect: float = PATIENCE,
    seconds: float = PATIENCE,
) -> Response:
    return http.request(method, url, headers or {}, body, deadline=Deadline(seconds), connect=connect)

"""The handler behind a plain HTTP server, as a Function URL without the emulator.

The embedded AWS waits 50 ms for a log line after each call of a function that writes none. A real Function URL does
not, so the time of a whole command would be measured wrongly.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.support import function_server
from ticketctl.handler import handler


@contextmanager
def serving(environ: Mapping[str, str], table: str) -> Iterator[str]:
    """Serve the real handler, on the DynamoDB that ``environ`` names; yield the address."""
    settings = handler.Configuration(table, environ["AWS_REGION"], offset=1, increment=1, max_count=10_000)
    dynamodb = handler.DynamoDB(environ)
    try:
        with function_server.serving(lambda asked: handler.respond(asked, settings, dynamodb.send)) as url:
            yield f"{url}/"
    finally:
        if dynamodb.kept is not None:
            dynamodb.kept.close()

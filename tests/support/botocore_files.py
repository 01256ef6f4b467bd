"""Caches botocore's files, so that a process reads them once.

Each botocore session reads the models of its services and lists their folders, which takes most of the time that is
needed to create a client. The tests create thousands of clients, and the files never change during a run.
"""

from collections.abc import Callable
from typing import Any

from botocore.loaders import JSONFileLoader, Loader
from botocore.session import Session

SERVICES = ("cloudformation", "dynamodb", "lambda", "logs", "sts")


def read_once() -> None:
    """Share the files that were read among all sessions of this process and of its forks."""
    JSONFileLoader.load_file = _shared(JSONFileLoader.load_file)
    Loader.list_available_services = _shared(Loader.list_available_services)
    Loader.list_api_versions = _shared(Loader.list_api_versions)


def preload() -> None:
    """Read the files of the services that ticketctl uses."""
    session = Session()
    session.set_credentials("key", "secret")
    for service in SERVICES:
        session.create_client(service, region_name="us-east-1")


def _shared(method: Callable[..., Any]) -> Callable[..., Any]:
    """Call the method once per combination of arguments; the result does not depend on the object."""
    results: dict[Any, Any] = {}

    def shared(owner: Any, *arguments: Any, **more: Any) -> Any:
        key = (arguments, tuple(sorted(more.items())))
        if key not in results:
            results[key] = method(owner, *arguments, **more)
        return results[key]

    return shared

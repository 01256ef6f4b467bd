"""botocore's files, read once per process.

Each botocore session reads the models of its services and lists the folders that have them. That takes most of the
time in which a client is made, and the tests make thousands. The files never change while they run.
"""

from collections.abc import Callable
from typing import Any

from botocore.loaders import JSONFileLoader, Loader
from botocore.session import Session

SERVICES = ("cloudformation", "dynamodb", "lambda", "logs", "sts")


def read_once() -> None:
    """Let every session of this process, and of its forks, share what is read."""
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
    """The method, asked once for each combination of arguments; what it is called on makes no difference here."""
    results: dict[Any, Any] = {}

    def shared(owner: Any, *arguments: Any, **more: Any) -> Any:
        key = (arguments, tuple(sorted(more.items())))
        if key not in results:
            results[key] = method(owner, *arguments, **more)
        return results[key]

    return shared

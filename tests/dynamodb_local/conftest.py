"""DynamoDB Local, one for each process of a run, and ticketctl's commands on its tables."""

import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.command_line import Result
from tests.support.command_server import CommandServer
from tests.support.dynamodb_local import dynamodb_local, fetched, java
from tests.support.embedded_aws import REGION, table_resource
from ticketctl.aws.account import Aws

CREDENTIALS = (f"AKID{os.urandom(8).hex()}", "secret")


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    java()  # before 56 MB are fetched in vain
    own = tmp_path_factory.mktemp("dynamodb-local")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "dynamodb-local"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jar = fetched(shared)
    with dynamodb_local(jar, own / "log") as url:
        yield url


@pytest.fixture(scope="session")
def database(url: str) -> Iterator[Any]:
    """A boto3 client."""
    aws = Aws(REGION, endpoint_url=url, embedded=CREDENTIALS)
    yield aws.client("dynamodb")
    aws.close()


@pytest.fixture(scope="session")
def new_table(database: Any) -> Callable[[str], str]:
    """Create a table as the article's stack has it."""

    def create(name: str) -> str:
        database.create_table(**table_resource(name)["Properties"])
        return name

    return create


@pytest.fixture(scope="session")
def environ(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = str(tmp_path_factory.mktemp("home"))
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "TICKETCTL_HOME": home,
        "AWS_ACCESS_KEY_ID": CREDENTIALS[0],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS[1],
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
    }


@pytest.fixture
def ticketctl(commands: CommandServer, environ: dict[str, str]) -> Callable[..., Result]:
    return lambda *arguments: commands.run(arguments, environ, None)

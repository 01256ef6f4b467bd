"""One embedded AWS for the whole run, on a free loopback port, with ``AUTH=true``."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.command_line import Result, Ticketctl
from tests.support.command_server import CommandServer
from tests.support.embedded_aws import REGION
from tests.support.regional_stacks import AP, EU, SA, US, deploy_alone
from ticketctl.aws.account import Aws
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine, LocalAws
from ticketctl.settings import resolve

_names = (f"stack-{number}" for number in itertools.count(1))


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without the user's AWS settings and with an empty home folder."""
    home = str(tmp_path_factory.mktemp("home"))
    return {"PATH": os.environ["PATH"], "HOME": home, "TICKETCTL_HOME": home, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="session")
def engine(environ: dict[str, str]) -> Iterator[Engine]:
    local = LocalAws(Path(environ["TICKETCTL_HOME"]) / "local", environ=environ)
    yield local.ensure()
    local.stop()


@pytest.fixture(scope="session")
def aws(engine: Engine) -> Iterator[Aws]:
    """The account's root user."""
    aws = Aws(REGION, endpoint_url=engine.endpoint_url, embedded=engine.credentials)
    yield aws
    aws.close()


@pytest.fixture(scope="session")
def stacks(aws: Aws) -> CloudFormation:
    return CloudFormation(aws.client("cloudformation"))


@pytest.fixture(scope="session")
def stacks_of_regions(aws: Aws) -> list[Any]:
    """A CloudFormation client of boto3 for each region of the tests."""
    return [aws.in_region(region).client("cloudformation") for region in (US, EU, AP, SA)]


@pytest.fixture
def new_stack(stacks_of_regions: list[Any]) -> Iterator[str]:
    """A name that no other test uses. Its stacks are deleted at the end: each change of a stack saves all stacks."""
    name = next(_names)
    yield name
    for stacks in stacks_of_regions:
        with suppress(ClientError):  # there is none, or it is protected
            stacks.describe_stacks(StackName=name)
            stacks.delete_stack(StackName=name)


@pytest.fixture
def connect(environ: dict[str, str], engine: Engine) -> Iterator[Callable[..., RegionalStack]]:
    """Connect to a stack as ``--local`` does; keyword arguments are flags."""
    assert engine.port
    with ExitStack() as opened:

        def connect(**flags: Any) -> RegionalStack:
            settings = resolve({"local": True, "timeout": 60, **flags}, environ)
            return opened.enter_context(RegionalStack(Session(settings, environ=environ)))

        yield connect


@pytest.fixture
def deployed(connect: Callable[..., RegionalStack], new_stack: str) -> str:
    """Deploy a stack with the template's defaults that has minted nothing; return its name."""
    connection = connect(stack=new_stack)
    deploy_alone(connection)
    connection.locator.look_up()  # cached, as after a deployment by the command line
    return new_stack


@pytest.fixture(scope="session")
def ticketctl(environ: dict[str, str], engine: Engine, commands: CommandServer) -> Ticketctl:
    """Run the command line as a separate process."""
    assert engine.port

    def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Result:
        return commands.run(arguments, {**environ, **(env or {})}, cwd)

    return run


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which ticketctl has never run, for a separate engine."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TICKETCTL_HOME": str(tmp_path)}
    yield environ
    LocalAws(tmp_path / "local", environ=environ).stop()

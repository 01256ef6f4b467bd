"""One stack in several regions of the embedded AWS: its options, items and lanes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.command_line import Result
from tests.support.embedded_aws import Connect
from tests.support.minting import take
from ticketctl.aws.account import Aws
from ticketctl.deployments.cache import StackCache, key_of
from ticketctl.deployments.locator import template_body
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import HOST, reachable_url
from ticketctl.settings import resolve

US, EU, AP, SA = "us-east-1", "eu-west-1", "ap-southeast-2", "sa-east-1"
MOST = 2**53 - 1


def named(*regions: str) -> list[str]:
    """Return the options that name regions."""
    return [word for region in regions for word in ("--region", region)]


def own_home(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """An environment with its own home folder and an empty cache, and the same embedded AWS."""
    folder.mkdir()
    (folder / "local").symlink_to(Path(environ["TICKETCTL_HOME"]) / "local")
    return {**environ, "TICKETCTL_HOME": str(folder)}


def deploy_alone(connection: RegionalStack, parameters: Mapping[str, str] | None = None) -> None:
    """Deploy the stack in one region with CloudFormation, without checking other regions."""
    stacks, name = connection.session.cloudformation(), connection.settings.stack
    stacks.execute(stacks.plan(name, template_body(connection.settings), parameters or {}))


def send_to(environ: dict[str, str], region: str, port: int) -> None:
    """Cache another port as the address of a region's function."""
    with RegionalStack(Session(resolve({"region": region}, environ), environ=environ)) as connection:
        known = connection.locator.look_up()
    assert known.url is not None
    key = key_of(stack=known.stack, region=region, local=True, endpoint=None, profile=None, environ=environ)
    address = reachable_url(known.url, f"http://{HOST}:{port}")
    StackCache(Path(environ["TICKETCTL_HOME"]) / "stacks.json").put(key, replace(known, url=address))


def items(aws: Aws, stack: str, region: str) -> list[dict[str, Any]]:
    """Return the items of a region's table, including receipts."""
    found = aws.in_region(region).client("dynamodb").scan(TableName=stack, ConsistentRead=True)["Items"]
    return sorted(found, key=lambda item: str(item["partition"]["S"]))


def row(name: str, region: str, last: int, *, offset: int, increment: int, state: str = "mints") -> str:
    """Return the line of ``status`` for a counter that has not minted."""
    return f"{name}\t{last}\t{increment}\t{(MOST - last) // increment}\t-\t{state}\t{offset}\t{region}\n"


def lanes(run: Result) -> dict[tuple[str | None, str], tuple[int, int, int, str]]:
    """Return offset, increment, next ticket and state by counter and region, from ``regions --json``."""
    assert (run.returncode, run.stderr) == (0, "")
    return {
        (lane["counter"], lane["region"]): (lane["offset"], lane["increment"], lane["next"], lane["state"])
        for lane in json.loads(run.stdout)["lanes"]
    }


def first_numbers(connect: Connect, stack: str, regions: Iterable[str], **flags: Any) -> list[int]:
    """Mint one ticket in each region; return the tickets."""
    return [take(connect(stack=stack, region=region, **flags), 1).last for region in regions]

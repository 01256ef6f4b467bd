"""The commands compared with the AWS CLI, the CDK CLI and a plain loop: whole processes, on one embedded AWS."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.function_server import serving
from tests.benchmarks.processes import Cost, middle, run, taking_turns
from tests.benchmarks.table import Row
from tests.support.other_tools import cdk_environment, install_aws, install_cdk
from ticketctl.deployments.cache import StackCache, key_of
from ticketctl.embedded.engine import LocalAws
from ticketctl.files import cache_file
from ticketctl.handler import bundle_root

RUNS = 21
BULK_RUNS = 7
DEPLOY_RUNS = 3
MILLION = 1_000_000
COUNTERS = 10_000
TYPER_APP = """
import typer
app = typer.Typer()
@app.command()
def next_ticket(stack: str = "Tickets"):
    typer.echo(1)
app()
"""
TICKETCTL = str(Path(sys.executable).with_name("ticketctl"))
PUBLIC, PRIVATE = "Open", "Tickets"
MINT = (
    *("dynamodb", "update-item", "--table-name", PRIVATE, "--key", '{"partition": {"S": "us-east-1"}}'),
    *("--update-expression", "SET hand_crafted_int = if_not_exists(hand_crafted_int, :start) + :inc"),
    *("--expression-attribute-values", '{":start": {"N": "0"}, ":inc": {"N": "1"}}', "--return-values", "UPDATED_NEW"),
)


def rows() -> Iterator[Row]:
    """Measure start-up and mints, bulk, the list of counters, and deploying."""
    with tempfile.TemporaryDirectory() as name, engine(Path(name)) as environ:
        for stack, flags in ((PUBLIC, ["--public", "--yes"]), (PRIVATE, [])):
            run([TICKETCTL, "deploy", "--stack", stack, *flags], environ)
        yield from _mints(environ, install_aws(Path(name) / "aws"))
        yield from _bulk(environ)
        yield from _counters(environ)
        yield from _deploys(environ, Path(name))


@contextmanager
def engine(home: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with credentials in variables, for an embedded AWS."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "TICKETCTL_HOME": str(home)}
    local = LocalAws(home / "local", environ=bare)
    try:
        yield {**bare, **local.ensure().variables("us-east-1"), "AWS_EC2_METADATA_DISABLED": "true"}
    finally:
        local.stop()


def _mints(environ: dict[str, str], aws: list[str]) -> Iterator[Row]:
    address = subprocess.run(
        [TICKETCTL, "url", "--stack", PUBLIC], env=environ, capture_output=True, text=True, check=True
    ).stdout.strip()
    with serving(environ, PRIVATE) as direct:
        remember(environ, PRIVATE, direct)
        costs = taking_turns(
            {
                "aws --version": [*aws, "--version"],
                "aws mint": [*aws, *MINT],
                "--version": [TICKETCTL, "--version"],
                "--help": [TICKETCTL, "--help"],
                "Typer app": [sys.executable, "-c", TYPER_APP],
                "public": [TICKETCTL, "next", "--url", direct],
                "IAM": [TICKETCTL, "next", "--stack", PRIVATE],
                "emulated": [TICKETCTL, "next", "--url", address],
                "dynamodb": [TICKETCTL, "next", "--stack", PRIVATE, "--via", "dynamodb"],
            },
            environ,
            runs=RUNS,
        )
    for flag in ("--version", "--help"):
        yield Row(f"ticketctl {flag} / aws --version", costs[flag].wall, costs["aws --version"].wall, "ms", 0.25)
    theirs = costs["aws mint"].wall
    yield Row("next, public URL / aws update-item", costs["public"].wall, theirs, "ms", 0.35)
    yield Row("  through the embedded AWS", costs["emulated"].wall, theirs, "ms", 0.35)
    yield Row("  CPU / a Typer app with one command", costs["public"].cpu, costs["Typer app"].cpu, "ms", 1.4)
    yield Row("next, IAM URL / aws update-item", costs["IAM"].wall, theirs, "ms", 0.50)
    yield Row("next --via dynamodb / aws update-item", costs["dynamodb"].wall, theirs, "ms", 0.60)


def remember(environ: dict[str, str], stack: str, url: str) -> None:
    """Write another address of a stack's function into the cache; the commands sign for it as before."""
    cache = StackCache(cache_file("stacks.json", environ))
    key = key_of(
        stack=stack, region=environ["AWS_REGION"], endpoint=environ["AWS_ENDPOINT_URL"], profile=None, environ=environ
    )
    known = cache.get(key)
    assert known is not None
    cache.put(key, replace(known, url=url))


def _bulk(environ: dict[str, str]) -> Iterator[Row]:
    fetch = [TICKETCTL, "fetch", "--stack", PRIVATE, "--via", "dynamodb"]
    costs = taking_turns(
        {
            "million": [*fetch, str(MILLION)],
            "mints": [*fetch, "101", "--block", "1"],
            "start": [*fetch, "1", "--block", "1"],
            "loop": [sys.executable, "-c", f"for number in range({MILLION}): print(number)"],
        },
        environ,
        runs=BULK_RUNS,
    )
    without_mints = costs["million"].cpu - (costs["mints"].cpu - costs["start"].cpu)
    yield Row("fetch 1000000 less 100 mints / loop, CPU", without_mints, costs["loop"].cpu, "ms", 1.5)
    yield Row("fetch 1000000, peak / 60 MiB", costs["million"].peak, 60.0, "MiB", 1.0)


def _counters(environ: dict[str, str]) -> Iterator[Row]:
    """Compare a command on a table with 10,000 counters with the same command on a table with one."""
    import boto3

    session = boto3.Session(
        environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], region_name=environ["AWS_REGION"]
    )
    client = session.client("dynamodb", endpoint_url=environ["AWS_ENDPOINT_URL"])
    few, many = [TICKETCTL, "status", "--stack", PUBLIC], [TICKETCTL, "status", "--stack", PRIVATE]
    for begin in range(0, COUNTERS, 25):
        items = [
            {"partition": {"S": f"counter {number}"}, "hand_crafted_int": {"N": str(number)}}
            for number in range(begin, begin + 25)
        ]
        client.batch_write_item(RequestItems={PRIVATE: [{"PutRequest": {"Item": item}} for item in items]})
    client.close()
    costs = taking_turns({"few": few, "many": many}, environ, runs=BULK_RUNS)
    yield Row("status of 10,000 counters / of one, peak", costs["many"].peak, costs["few"].peak, "MiB", 1.5)


def _deploys(environ: dict[str, str], folder: Path) -> Iterator[Row]:
    cdk = [*install_cdk(folder / "cdk"), "deploy", "--require-approval", "never", "--no-notices", "--output"]
    aws_variables = {name: value for name, value in environ.items() if name.startswith("AWS_")}
    first: list[tuple[Cost, Cost]] = []
    again: list[tuple[Cost, Cost]] = []
    for number in range(DEPLOY_RUNS):
        ours, theirs = [TICKETCTL, "deploy", "--stack", f"ours-{number}"], [*cdk, str(folder / f"out-{number}")]
        their_environ = cdk_environment(aws_variables, folder, f"theirs-{number}")
        for pairs in (first, again):
            pairs.append((run(ours, environ), run(theirs, their_environ, cwd=str(bundle_root()))))
    for what, pairs in (("first time", first), ("no changes", again)):
        ours_cost, theirs_cost = (middle(side) for side in zip(*pairs, strict=True))
        yield Row(f"deploy, {what} / cdk deploy", ours_cost.wall, theirs_cost.wall, "ms", 0.60)

"""Claims of a gapless counter against ``dynamodb-autoincrement`` (PyPI), the NASA's package for the same purpose.

Both take a number in one transaction with the record that carries it, against Amazon's DynamoDB Local, in turns: from
1, 2, 4 and 8 processes that compete, and from 8 threads, or tasks, of one process. After each run the records are
1 to N, without a gap. On a machine whose processors are all busy only the ratios mean something.

If another process was faster, theirs reads the counter before the next transaction; ours knows the number from the
refusal. So ours sends fewer requests, but may send more transactions: the targets allow for that.

The package needs an older boto3, so it has an environment of its own. ``tests.support.dynamodb_local`` needs Java.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.table import Row
from tests.support.dynamodb_local import dynamodb_local, fetched
from tests.support.embedded_aws import REGION
from ticketctl.aws.account import Aws

THEIRS = "dynamodb-autoincrement==0.2.0"
ROOT = Path(__file__).parents[2]
RUNS = 3
SECONDS = 3.0
SETTINGS = ((1, 1), (2, 1), (4, 1), (8, 1), (1, 8))
"""How many processes, and how many threads or tasks in each."""


@dataclass(frozen=True)
class Figures:
    """What one run of several processes did: claims per second of all together, and transactions sent per claim."""

    rate: float
    transactions: float


def rows() -> Iterator[Row]:
    """Claims per second, then transactions per claim, of each setting."""
    with tempfile.TemporaryDirectory() as folder:
        jar, theirs = fetched(Path(folder)), _their_python(Path(folder) / "theirs")
        with dynamodb_local(jar, Path(folder) / "log") as url:
            workers = {
                "ours": [sys.executable, "-m", "tests.benchmarks.claims_of_ours"],
                "theirs": [theirs, str(Path(__file__).with_name("claims_of_theirs.py"))],
            }
            for processes, each in SETTINGS:
                yield from _rows(_measured(url, workers, processes, each), processes, each)


def _rows(figures: Mapping[str, Figures], processes: int, each: int) -> Iterator[Row]:
    ours, theirs = figures["ours"], figures["theirs"]
    who = f"{processes} process{'es' * (processes > 1)}" + (f", {each} threads" if each > 1 else "")
    yield Row(f"claims, {who}", ours.rate, theirs.rate, "/s", 0.8, at_least=True)
    yield Row(f"transactions per claim, {who}", ours.transactions, theirs.transactions, "", 2)


def _measured(url: str, workers: Mapping[str, Sequence[str]], processes: int, each: int) -> dict[str, Figures]:
    """The medians of runs that take turns."""
    runs: dict[str, list[Figures]] = {name: [] for name in workers}
    for _ in range(RUNS):
        for name, command in workers.items():
            runs[name].append(_run(url, command, processes, each))
    return {
        name: Figures(median(run.rate for run in several), median(run.transactions for run in several))
        for name, several in runs.items()
    }


def _run(url: str, command: Sequence[str], processes: int, each: int) -> Figures:
    """Let processes claim from a new counter at the same time."""
    environ = {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": f"AKID{os.urandom(8).hex()}",  # DynamoDB Local has tables of its own for each
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
    }
    aws = Aws(REGION, endpoint_url=url, embedded=(environ["AWS_ACCESS_KEY_ID"], "secret"))
    database = aws.client("dynamodb")
    for table, key, kind in (("Counters", "partition", "S"), ("Records", "number", "N")):
        database.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        )
    counter = {"partition": {"S": "invoices"}, "hand_crafted_int": {"N": "0"}, "frozen": {"S": "gapless"}}
    database.put_item(TableName="Counters", Item=counter)
    arguments = [*command, str(each), str(SECONDS)]
    running = [
        subprocess.Popen(arguments, env=environ, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    told = [json.loads(answer) for answer in _all_at_once(running)]
    _check(database)
    aws.close()
    claims, sent = (sum(part[name] for part in told) for name in ("claims", "transactions"))
    return Figures(claims / max(part["seconds"] for part in told), sent / claims)


def _all_at_once(running: Sequence[subprocess.Popen[str]]) -> list[str]:
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in running]


def _check(database: Any) -> None:
    """Raise an error unless the records are 1 to N."""
    pages = database.get_paginator("scan").paginate(TableName="Records", ConsistentRead=True)
    numbers = sorted(int(item["number"]["N"]) for page in pages for item in page["Items"])
    if numbers != list(range(1, len(numbers) + 1)):
        raise RuntimeError("the records have a gap")


def _their_python(folder: Path) -> str:
    """The Python of a new environment with their package."""
    uv = os.environ.get("UV", "uv")  # ``uv run`` says where it is
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    subprocess.run([*pip, THEIRS], check=True)
    return python

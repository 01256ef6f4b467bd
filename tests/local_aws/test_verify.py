"""``verify``: the check of the user's own stack, and what it leaves behind."""

import json
import signal
import time

import pytest

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import Connect
from tests.support.interruptible import interruptible
from tests.support.make_counter import make_counter

NAMES = [
    "minted",
    "not_minted",
    "unknown",
    "duplicates",
    "duplicate_tickets",
    "outside_lane",
    "outside_lane_tickets",
    "out_of_order",
    "gaps",
    "gap_tickets",
    "seconds",
    "tickets_per_second",
    "latency_ms",
]
MEASURED = {"seconds", "tickets_per_second", "latency_ms"}


def clean(minted: int) -> dict[str, object]:
    """The report of a correct server, without times."""
    return {name: [] if name.endswith("_tickets") else 0 for name in NAMES} | {"minted": minted}


def unmeasured(report: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in report.items() if name not in MEASURED}


def test_verify(ticketctl: Ticketctl, connect: Connect, deployed: str) -> None:
    """With 16 workers and both sources there are no duplicates and no gaps, and the temporary counter is removed."""
    run = ticketctl("verify", "--workers", "16", "--mints", "25", "--json", "--local", "--stack", deployed)
    assert (run.returncode, run.stderr) == (0, "")
    report = json.loads(run.stdout)
    assert unmeasured(report) == unmeasured(clean(400)) | {"workers": 16, "mints": 25, "via": "both"}
    assert list(report) == ["workers", "mints", "via", *NAMES]
    assert report["seconds"] > 0
    assert report["tickets_per_second"] == pytest.approx(400 / report["seconds"], rel=0.01)
    latency = report["latency_ms"]
    assert list(latency) == ["p50", "p95", "p99"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert list(connect(stack=deployed).counters().all(pytest.fail)) == []


@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_through_one_source(ticketctl: Ticketctl, connect: Connect, deployed: str, via: str) -> None:
    """In a pipe, each line of the report is a name and a value; existing counters are unchanged."""
    counters = connect(stack=deployed).counters()
    there = make_counter(counters, "orders", start=7)[0]
    verify = ("verify", "--workers", "4", "--mints", "5", "--via", via, "--local", "--stack", deployed)
    run = ticketctl(*verify)
    assert (run.returncode, run.stderr) == (0, "")
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [name for name, _ in rows] == NAMES
    assert unmeasured({name: json.loads(value) for name, value in rows}) == unmeasured(clean(20))
    assert list(counters.all(pytest.fail)) == [there]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(environ: dict[str, str], connect: Connect, deployed: str, number: signal.Signals) -> None:
    """One signal ends the run with exit 130, and the temporary counter is removed."""
    counters = connect(stack=deployed).counters()
    arguments = ("verify", "--workers", "2", "--mints", "100000", "--local", "--stack", deployed)
    with interruptible(environ, *arguments) as process:
        while not any(counter.last > 5 for counter in counters.all(pytest.fail)):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "")
    assert list(counters.all(pytest.fail)) == []


def test_in_a_lane(ticketctl: Ticketctl, connect: Connect, new_stack: str) -> None:
    """The check runs in the stack's own lane."""
    options = ("--local", "--stack", new_stack)
    assert ticketctl("deploy", "--offset", "2", "--increment", "3", *options).returncode == 0
    run = ticketctl("verify", "--workers", "4", "--mints", "5", "--json", *options)
    assert (run.returncode, unmeasured(json.loads(run.stdout))) == (
        0,
        unmeasured(clean(20)) | {"workers": 4, "mints": 5, "via": "both"},
    )
    assert list(connect(stack=new_stack).counters().all(pytest.fail)) == []

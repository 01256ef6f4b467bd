"""The command line as a process: stdout, stderr and exit code, compared completely."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.embedded_aws import REGION
from tests.support.interruptible import SIGNALS, interruptible
from ticketctl.cli import whole_command_line
from ticketctl.embedded.engine import Engine

LEFT = 2**53 - 1


BEGINNING = ("counter create", "next", "fetch", "status", "url", "diff", "regions", "counter")
"""The commands whose examples run first, in this order: the other commands need their results."""
NOT_RUN = re.compile(
    "--watch|--follow|--out|--region|--delete-tickets|local (up|down|reset|env)|synth --stack|verify$|--via|1000000"
)
"""Examples that are slow or endless, need another region, stack or extra, or stop the engine of all tests."""
EXIT_CODES = {"diff --max-count 1000 --exit-code": 9, "destroy": 2}  # changes found; no terminal for the confirmation


def examples() -> list[str]:
    """Return the arguments of the examples in the help of every command."""
    app = whole_command_line()
    commands = [*app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance
        commands += group.typer_instance.registered_commands
    lines = [line.strip() for command in commands for line in (command.epilog or "").splitlines()[2:]]
    found = [line.removeprefix("ticketctl ") for line in lines if not NOT_RUN.search(line)]
    rank = {name: place for place, name in enumerate(BEGINNING)}
    return sorted(
        found, key=lambda line: min((rank[name] for name in rank if line.startswith(name)), default=len(rank))
    )


def options(stack: str) -> tuple[str, ...]:
    return ("--local", "--stack", stack)


def test_next_prints_the_number_alone(ticketctl: Ticketctl, deployed: str) -> None:
    """Stdout is the number and a newline; stderr is empty."""
    assert ticketctl("next", *options(deployed)) == Result(0, "1\n", "")
    assert ticketctl("next", "--via", "dynamodb", *options(deployed)) == Result(0, "2\n", "")


def test_examples(ticketctl: Ticketctl, tmp_path: Path, deployed: str) -> None:
    """The examples in the help work in the embedded AWS; those of ``verify`` with fewer mints."""
    (tmp_path / "numbers.txt").write_text("7000\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,name\n8000,a\n", encoding="utf-8")
    found = examples()
    assert len(found) > 20
    for line in found:
        place = () if line.startswith("local ") else options(deployed)
        few = ("--workers", "2", "--mints", "5") if line.startswith("verify ") or line == "verify" else ()
        run = ticketctl(*shlex.split(line), *few, *place, cwd=tmp_path)
        assert (line, run.returncode) == (line, EXIT_CODES.get(line, 0)), run.stderr


def test_next_as_json(ticketctl: Ticketctl, deployed: str) -> None:
    """With --json, ``next`` prints one document with the field names of the HTTP contract."""
    result = ticketctl("next", "--json", *options(deployed))
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "partition": REGION,
        "first": 1,
        "last": 1,
        "count": 1,
        "increment": 1,
        "replayed": False,
        "region": REGION,
        "possible_gaps": [],
        "receipt_missing": False,
    }


def test_unknown_counter_names_the_fix(ticketctl: Ticketctl, deployed: str) -> None:
    """A mistyped name exits 5, and the command in the hint works unchanged."""
    refused = ticketctl("next", "--partition", "line items", *options(deployed))
    command = f"ticketctl counter create 'line items' --stack {deployed} --local"
    assert refused == Result(5, "", f"error: there is no counter 'line items'\nhint: {command}\n")
    assert ticketctl("status", *options(deployed)).stdout == ""
    created = ticketctl("counter", "create", "line items", *options(deployed))
    assert (created.returncode, created.stdout) == (0, f"line items\t0\t1\t{LEFT}\t-\tmints\t1\t{REGION}\n")
    assert ticketctl("next", "--partition", "line items", *options(deployed)) == Result(0, "1\n", "")


def test_error_as_json(ticketctl: Ticketctl, deployed: str) -> None:
    """An error is one JSON object on stderr; stdout stays empty."""
    refused = ticketctl("next", "--partition", "typo", "--json", *options(deployed))
    assert (refused.returncode, refused.stdout) == (5, "")
    assert json.loads(refused.stderr) == {
        "error": {
            "code": "unknown_counter",
            "message": "there is no counter 'typo'",
            "hint": f"ticketctl counter create typo --stack {deployed} --local",
            "exit_code": 5,
        }
    }


def test_status(ticketctl: Ticketctl, deployed: str) -> None:
    """Status shows the counters in the order of their names, tab-separated if stdout is a pipe, and mints nothing."""
    assert ticketctl("status", *options(deployed)) == Result(
        0, "", "no counter yet; the first `ticketctl next` creates one\n"
    )
    ticketctl("fetch", "3", *options(deployed))
    ticketctl("counter", "create", "orders", *options(deployed))
    rows = [line.split("\t") for line in ticketctl("status", *options(deployed)).stdout.splitlines()]
    assert [(*row[:4], row[5]) for row in rows] == [
        ("orders", "0", "1", str(LEFT), "mints"),
        (REGION, "3", "1", str(LEFT - 3), "mints"),
    ]
    for via in ("url", "dynamodb"):
        one = ticketctl("status", "--partition", REGION, "--json", "--via", via, *options(deployed))
        counter = json.loads(one.stdout)
        assert (counter["last"], counter["remaining"], one.stderr) == (3, LEFT - 3, "")
    both = json.loads(ticketctl("status", "--json", *options(deployed)).stdout)
    assert [counter["partition"] for counter in both["counters"]] == ["orders", REGION]


def test_status_of_an_unknown_counter(ticketctl: Ticketctl, deployed: str) -> None:
    """Status of an unknown counter exits 5, through both sources."""
    for via in ("url", "dynamodb"):
        assert ticketctl("status", "--partition", "typo", "--via", via, *options(deployed)).returncode == 5


def test_fetch_many(ticketctl: Ticketctl, deployed: str) -> None:
    """``fetch`` prints 25,000 tickets, one per line, each once; stderr is empty."""
    result = ticketctl("fetch", "25000", *options(deployed))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(ticket) for ticket in range(1, 25_001)]


def test_fetch_forms(ticketctl: Ticketctl, deployed: str) -> None:
    """``--block`` sets the size of blocks, ``--ranges`` prints ranges, and ``--json`` prints one document per block."""
    assert ticketctl("fetch", "5", "--block", "2", "--ranges", *options(deployed)) == Result(
        0, "1\t2\t1\n3\t4\t1\n5\t5\t1\n", ""
    )
    lines = ticketctl("fetch", "4", "--block", "3", "--json", *options(deployed)).stdout.splitlines()
    assert [(json.loads(line)["first"], json.loads(line)["last"]) for line in lines] == [(6, 8), (9, 9)]


def test_fetch_into_a_closed_pipe(environ: dict[str, str], ticketctl: Ticketctl, deployed: str) -> None:
    """If the pipe is closed, the command exits 141 and names the tickets that were minted but not delivered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ticketctl", "fetch", "100000", *options(deployed)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.stdout.close()
    assert process.stderr is not None
    story = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert story.startswith("error: minted but not delivered: ")
    last = int(ticketctl("status", *options(deployed)).stdout.split("\t")[1])
    assert f"to {last}, " in story


def test_fetch_onto_a_full_disk(environ: dict[str, str], deployed: str) -> None:
    """If the disk is full, the command exits 8 without a traceback and names the lost tickets."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path of ours
        process = subprocess.run(
            [sys.executable, "-m", "ticketctl", "fetch", "10", *options(deployed)],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 8
    assert process.stderr == (
        "error: minted but not delivered: 1 to 10, 10 tickets (No space left on device)\nhint: free some space\n"
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_fetch_interrupted(environ: dict[str, str], tmp_path: Path, deployed: str, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP exit 130 and say how many tickets were printed."""
    printed = tmp_path / "tickets"
    with printed.open("w") as file:
        process = interruptible(environ, "fetch", "100000", "--block", "10", *options(deployed), stdout=file)
        while printed.stat().st_size == 0:
            time.sleep(0.05)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    count = len(printed.read_text().splitlines())
    assert stderr == f"error: interrupted; {count} of 100000 tickets were printed, up to 10 more may be spent\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_fetch_interrupted_while_it_prints(
    environ: dict[str, str], ticketctl: Ticketctl, deployed: str, number: signal.Signals
) -> None:
    """If a signal arrives while the pipe is full, the tickets that were minted but not delivered are named."""
    process = interruptible(environ, "fetch", "30000", *options(deployed))
    while ticketctl("status", *options(deployed)).stdout.split("\t")[1:2] not in (["20000"], ["30000"]):
        time.sleep(0.1)  # the pipe holds less than two blocks, so the second is being written
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    whole = stdout.count("\n")
    last = 20_000
    story = f"error: interrupted; minted but not delivered: {whole + 1} to {last}, {last - whole} tickets\n"
    assert (process.returncode, stderr) == (130, story)


def test_watch(environ: dict[str, str], ticketctl: Ticketctl, deployed: str) -> None:
    """If stdout is a pipe, --watch prints a counter each time it changes, until it is interrupted."""
    ticketctl("next", *options(deployed))
    process = interruptible(environ, "status", "--watch", "--json", "--interval", "0.1", *options(deployed))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["last"] == 1
    ticketctl("next", *options(deployed))
    assert json.loads(process.stdout.readline())["last"] == 2
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")


def test_stale_cache_is_asked_again(ticketctl: Ticketctl, engine: Engine, deployed: str) -> None:
    """If a cached URL returns 404, CloudFormation is asked again before the command fails."""
    user = engine.variables(REGION)
    assert ticketctl("next", "--stack", deployed, env=user) == Result(0, "1\n", "")
    ticketctl("destroy", "--yes", *options(deployed))
    gone = ticketctl("next", "--stack", deployed, env=user)
    assert (gone.returncode, gone.stdout) == (5, "")
    assert gone.stderr.splitlines() == [
        f"error: the stack {deployed} is not deployed in 000000000000/{REGION}",
        f"hint: ticketctl deploy --stack {deployed}",
    ]
    ticketctl("deploy", *options(deployed))
    assert ticketctl("next", "--stack", deployed, env=user) == Result(0, "2\n", "")


def test_unreachable_url_mints_nothing(ticketctl: Ticketctl) -> None:
    """A refused connection exits 7 immediately, without a traceback."""
    started = time.monotonic()
    result = ticketctl("next", "--url", "http://127.0.0.1:1/", "--region", REGION, "--timeout", "1")
    assert (result.returncode, result.stdout) == (7, "")
    assert result.stderr.startswith("error: 127.0.0.1:1 cannot be reached")
    assert time.monotonic() - started < 30


def test_local_ignores_everything_of_aws(ticketctl: Ticketctl, deployed: str) -> None:
    """With --local, the user's AWS profile, endpoint, proxy and configuration file are ignored."""
    hostile = {
        "AWS_PROFILE": "no-such-profile",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_CONFIG_FILE": os.devnull,
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }
    assert ticketctl("next", *options(deployed), env=hostile) == Result(0, "1\n", "")
    assert ticketctl("next", "--via", "dynamodb", *options(deployed), env=hostile) == Result(0, "2\n", "")


def test_verbose_names_each_origin(ticketctl: Ticketctl, deployed: str) -> None:
    """--verbose prints on stderr the origin of every setting."""
    result = ticketctl("next", "--stack", deployed, "-v", env={"TICKETCTL_LOCAL": "1", "TICKETCTL_TIMEOUT": "20"})
    assert result.stdout == "1\n"
    assert f"stack: {deployed} (from --stack)" in result.stderr
    assert "local: True (from TICKETCTL_LOCAL)" in result.stderr
    assert "timeout: 20.0 (from TICKETCTL_TIMEOUT)" in result.stderr
    assert "region: us-east-1 (from default of --local)" in result.stderr


def test_next_loads_only_what_it_needs(environ: dict[str, str], deployed: str) -> None:
    """A mint through the URL loads no AWS service model's client, no CDK and no table renderer."""
    script = (
        "import sys; from ticketctl.cli import main; code = main(sys.argv[1:]);"
        "print([m for m in ('boto3', 'aws_cdk', 'pydantic', 'rich.table') if m in sys.modules]); sys.exit(code)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, "next", *options(deployed)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (0, "1\n[]\n")

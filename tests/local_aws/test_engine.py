"""The embedded AWS as a process: started when needed, found again, stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import Result, run, start
from ticketctl.embedded.engine import is_engine


def engine_pid(environ: dict[str, str]) -> int:
    return int(json.loads((Path(environ["TICKETCTL_HOME"]) / "local" / "engine.json").read_text())["pid"])


def test_bare_machine(bare: dict[str, str]) -> None:
    """The first ``next`` starts everything and prints only 1; the second prints only 2."""
    first = run(bare, "next", "--local")
    assert (first.returncode, first.stdout) == (0, "1\n")
    assert run(bare, "next", "--local") == Result(0, "2\n", "")


def test_two_shells_at_once(bare: dict[str, str]) -> None:
    """Two commands at once on a new machine start one engine and get different tickets."""
    shells = [start(bare, "next", "--local") for _ in range(2)]
    answers = [shell.communicate(timeout=120) for shell in shells]
    assert sorted(stdout for stdout, _ in answers) == ["1\n", "2\n"], answers
    assert [shell.returncode for shell in shells] == [0, 0]


def test_down_keeps_the_state(bare: dict[str, str]) -> None:
    """After ``local down``, the counter continues at the same address."""
    run(bare, "fetch", "5", "--local")
    address = run(bare, "url", "--local").stdout
    assert run(bare, "local", "down") == Result(0, "", "stopped the embedded AWS; its state is kept\n")
    assert run(bare, "local", "down") == Result(0, "", "the embedded AWS was not running\n")
    assert run(bare, "next", "--local") == Result(0, "6\n", "")
    assert run(bare, "url", "--local").stdout == address


def test_engine_stopped_from_outside_is_no_loss(bare: dict[str, str]) -> None:
    """After SIGTERM, as at a shutdown of the machine, nothing is lost and nothing is printed on stderr."""
    run(bare, "fetch", "5", "--local")
    pid = engine_pid(bare)
    os.kill(pid, signal.SIGTERM)
    while is_engine(pid):
        pass
    assert run(bare, "next", "--local") == Result(0, "6\n", "")


def test_local_commands(bare: dict[str, str]) -> None:
    """``local up``, ``status``, ``env``, ``logs`` and ``reset`` report the engine; ``status`` does not start it."""
    assert json.loads(run(bare, "local", "status", "--json").stdout)["running"] is False
    up = run(bare, "local", "up")
    assert up.returncode == 0
    endpoint = up.stdout.strip()
    assert run(bare, "local", "status").stdout.splitlines()[0] == f"running\t{endpoint}\tpid {engine_pid(bare)}"
    record = json.loads((Path(bare["TICKETCTL_HOME"]) / "local" / "engine.json").read_text())
    assert run(bare, "local", "env") == Result(
        0,
        f"export AWS_ENDPOINT_URL={endpoint}\nexport AWS_ACCESS_KEY_ID={record['key']}\n"
        f"export AWS_SECRET_ACCESS_KEY={record['secret']}\n"
        "export AWS_REGION=us-east-1\nexport AWS_DEFAULT_REGION=us-east-1\n",
        "",
    )
    assert run(bare, "local", "logs").returncode == 0
    run(bare, "next", "--local")
    assert run(bare, "local", "reset").returncode == 2
    assert run(bare, "local", "reset", "--yes").returncode == 0
    again = run(bare, "next", "--local")
    assert (again.returncode, again.stdout) == (0, "1\n")


def test_restart_in_between(bare: dict[str, str]) -> None:
    """After a restart, a key still returns its ticket through both sources, and the counter continues."""
    assert run(bare, "next", "--local", "--idempotency-key", "order 17").stdout == "1\n"
    assert run(bare, "local", "down").returncode == 0
    again = ("next", "--local", "--idempotency-key", "order 17")
    assert run(bare, *again) == Result(0, "1\n", "")
    assert run(bare, *again, "--via", "dynamodb") == Result(0, "1\n", "")
    assert run(bare, "next", "--local") == Result(0, "2\n", "")


def test_missing_extra_names_the_install_line(bare: dict[str, str]) -> None:
    """If ministack is not installed, --local exits 3 and prints the install command."""
    script = (
        "import sys; sys.modules['ministack'] = None\n"
        "from ticketctl.cli import main; sys.exit(main(['next', '--local']))"
    )
    process = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (3, "")
    assert (
        process.stderr.splitlines()[-1]
        == "hint: install ticketctl with the extra 'local'; in a checkout: pip install '.[local]'"
    )


def test_other_region(bare: dict[str, str]) -> None:
    """A region of the embedded AWS that is not deployed does not start a second sequence."""
    assert run(bare, "next", "--local").stdout == "1\n"
    refused = run(bare, "next", "--local", "--region", "eu-west-1")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.splitlines()[-1] == "hint: ticketctl deploy --region eu-west-1 --local"
    assert run(bare, "deploy", "--local", "--region", "eu-west-1").returncode == 0
    assert [run(bare, "next", "--local", "--region", name).stdout for name in ("eu-west-1", "us-east-1")] == [
        "2\n",
        "3\n",
    ]
    status = run(bare, "status", "--local", "--region", "eu-west-1").stdout
    assert status.startswith("eu-west-1\t2\t2\t")


def test_other_commands_run_during_a_confirmation(bare: dict[str, str]) -> None:
    """While ``deploy`` waits for a confirmation, other commands can deploy and mint; after a yes it continues."""
    assert run(bare, "next", "--local").stdout == "1\n"
    ours, theirs = os.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "ticketctl", "deploy", "--local", "--public"],
        env=bare,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    story = b""
    while b"[y/N]" not in story:
        story += os.read(ours, 1000)
    assert run(bare, "deploy", "--local").returncode == 0
    assert run(bare, "next", "--local") == Result(0, "2\n", "")
    os.write(ours, b"y\n")
    url, _ = asking.communicate(timeout=120)
    os.close(ours)
    assert (asking.returncode, url.startswith(b"http://127.0.0.1:")) == (0, True)

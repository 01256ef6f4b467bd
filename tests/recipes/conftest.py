"""For each recipe: the embedded AWS, and a user who may do no more than ``docs/policies/mint-url.json`` allows."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.command_line import Ticketctl
from tests.support.faulty_proxy import FaultyProxy
from tests.support.iam_users import make_user, policy
from ticketctl.aws.account import Aws

Run = Callable[..., str]


def through(proxy: FaultyProxy, url: str) -> str:
    """The same URL at a proxy."""
    return url.replace(urlsplit(url).netloc, f"127.0.0.1:{proxy.port}")


@pytest.fixture
def caller(aws: Aws, ticketctl: Ticketctl, environ: dict[str, str], deployed: str) -> dict[str, str]:
    """The environment of a program whose stack has a counter ``orders``."""
    local = ("--local", "--stack", deployed)
    assert ticketctl("counter", "create", "orders", *local).returncode == 0
    return {
        **environ,
        **make_user(aws, f"recipe-{deployed}", *policy("mint-url", deployed)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TICKETCTL_STACK": deployed,
        "TICKETS_URL": ticketctl("url", *local).stdout.strip(),
    }


@pytest.fixture
def run(caller: dict[str, str], tmp_path: Path) -> Run:
    """Run a command in a folder of its own, as the caller; its standard output."""

    def run(*command: str, succeeds: bool = True, **variables: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=caller | variables, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode == 0) == succeeds, done.stderr
        return done.stdout if succeeds else done.stderr

    return run

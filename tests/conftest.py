"""Fixtures for every test module: a scripted HTTP server, an environment without AWS, one fresh synthesis."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import botocore_files
from tests.support.command_server import CommandServer
from tests.support.http_server import Server
from tests.support.synthesis import Assembly, once
from ticketctl.aws import template

pytest_plugins = ["tests.support.local_aws"]

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell; child processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

botocore_files.read_once()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--account", action="store_true", help="run tests/aws_account in your AWS account; it asks first")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("--account"):  # in one process, because it asks a question and its tests share a stack
        config.option.numprocesses, config.option.dist = None, "no"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--account"):
        return
    for item in items:
        if item.get_closest_marker("real_account"):
            item.add_marker(pytest.mark.skip(reason="only a real account can show it (--account)"))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def commands() -> Iterator[CommandServer]:
    """Runs the command line; each run has its own environment."""
    server = CommandServer({"PATH": os.environ["PATH"]})
    yield server
    server.close()


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Remove credentials, region and proxies, and use an empty home folder for the configuration of AWS tools."""
    for name in os.environ:
        if name.startswith(("AWS_", "TICKETCTL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws_credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """Synthesized once for all processes of a run: the first makes it, the others wait for it."""
    folder = once(tmp_path_factory.getbasetemp(), "assembly", _fresh)
    return Assembly(json.loads((folder / "fresh.json").read_text(encoding="utf-8")), folder)


def _fresh(folder: Path) -> None:
    made = template.fresh("Tickets", folder)
    (folder / "fresh.json").write_text(json.dumps(made), encoding="utf-8")

"""Fixtures for every test module: a scripted HTTP server, an environment without AWS, one fresh synthesis."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import Server
from tests.support.synthesis import Assembly
from ticketctl.aws import template


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials, no region, no proxy; the folder where the AWS configuration would be."""
    for name in os.environ:
        if name.startswith(("AWS_", "TICKETCTL_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws_config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws_credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    folder = tmp_path_factory.mktemp("assembly")
    return Assembly(template.fresh("Tickets", folder), folder)

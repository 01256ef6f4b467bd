"""The programs in ``docs/http-api.md``."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.other_tools import NODE

PAGE = Path(__file__).parents[2] / "docs" / "http-api.md"
COMMANDS = {
    "sh": ["sh", "-euc"],
    "js": [str(NODE), "--input-type=module", "--eval"],
    "python": [sys.executable, "-c"],
}


class Program(NamedTuple):
    """A program, and the output that the page shows below it (empty: none)."""

    language: str
    text: str
    output: str

    @property
    def signs(self) -> bool:
        return "AWS_REGION" in self.text

    def run(self, url: str, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMANDS[self.language], self.text],
            env={"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", "TICKETS_URL": url, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def programs() -> list[Program]:
    """Every program of the page, in order."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [
        Program(language, text, after if kind in ("json", "text") else "")
        for (language, text), (kind, after) in zip(blocks, [*blocks[1:], ("", "")], strict=True)
        if language in COMMANDS
    ]

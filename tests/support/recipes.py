"""The programs in the pages of ``docs/recipes``, as a reader would copy them."""

import json
import re
from pathlib import Path
from typing import Any, cast

from cfnlint.decode.cfn_yaml import loads  # type: ignore[import-untyped]

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
_PROGRAM = re.compile(r"^`(?P<name>[\w./-]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_SESSION = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (RECIPES / f"{name}.md").read_text(encoding="utf-8")


def programs(name: str) -> dict[str, str]:
    """The blocks of a page by the file name above each."""
    found = {match["name"]: match["text"] for match in _PROGRAM.finditer(page(name))}
    assert found, f"{name}.md has no program"
    return found


def copied(name: str, folder: Path) -> Path:
    """The folder, with every program of a page in it."""
    for file, text in programs(name).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def session(name: str) -> str:
    """What a page shows at the terminal: commands and their output."""
    (shown,) = _SESSION.findall(page(name))
    return str(shown)


def parsed_yaml(text: str) -> dict[str, Any]:
    """A YAML document; CloudFormation's short forms, such as ``!Ref``, are written out."""
    return cast(dict[str, Any], json.loads(json.dumps(loads(text))))

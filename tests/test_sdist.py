"""The source distribution has all that the repository has, so that the tests run from it."""

import subprocess
import tomllib

import pytest

from tests.support.pages import ROOT

ALWAYS = {".gitignore", "LICENSE", "README.md", "pyproject.toml"}
"""What Hatchling adds by itself."""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone knows what the repository has")
def test_all_of_the_repository_is_included() -> None:
    """Each file and folder at the top of the repository is in the list, and nothing else."""
    tree = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    included = {name.removeprefix("/") for name in targets["sdist"]["include"]}
    assert included | ALWAYS == {line.partition("/")[0] for line in tree.splitlines()}

"""``.ci/site_pages.py``: a site made with it from a small repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pages import ROOT

pytestmark = pytest.mark.heavy  # each test builds a site
FILES = {
    "mkdocs.yml": """
site_name: Example
hooks: [.ci/site_pages.py]
use_directory_urls: false
validation: {omitted_files: warn, absolute_links: warn, unrecognized_links: warn, anchors: warn}
""",
    "README.md": """# Example

[guide](docs/guide.md#one), [code](src/code.py), [license](LICENSE), [contributing](CONTRIBUTING.md), [web](https://example.org)

<img src="docs/picture.svg" alt="A picture.">
""",
    "CONTRIBUTING.md": "# Contributing\n\n[start](README.md), [recipe](docs/recipes/recipe.md)\n",
    "SECURITY.md": "# Security\n",
    "CHANGELOG.md": "# Changes\n",
    "LICENSE": "Free.\n",
    "docs/guide.md": "# Guide\n\n## One\n\n[code](../src/code.py), [recipe](recipes/recipe.md), [x](../.ci/check)\n",
    "docs/picture.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>\n",
    "docs/recipes/recipe.md": "# Recipe\n\n[code](../../src/code.py), [start](../../README.md), [1](../guide.md#one)\n",
    "src/code.py": '"""Says <hello>."""\n',
    ".ci/check": "#!/bin/sh\n",
}
"""Links in both directions between README.md, docs/, its subfolder and files outside docs/."""
REFERENCE = re.compile(r'(?:href|src)="([^"#:]+)(?:#[^":]*)?"')


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copy(ROOT / ".ci" / "site_pages.py", tmp_path / "repository" / ".ci")
    return tmp_path / "repository"


def build(repository: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(repository / "site")]
    environ = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repository, env=environ, capture_output=True, text=True, check=False)


def test_each_link_leads_to_a_page(repository: Path) -> None:
    """README.md is the first page, files have pages with their text, and every link leads to one of them."""
    built = build(repository)
    assert built.returncode == 0, built.stderr
    site = repository / "site"
    found = [path for path in site.rglob("*.html") if path.name != "404.html"]
    pages = {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in found}
    links = {page: set(REFERENCE.findall(text)) for page, text in pages.items()}
    assert {"guide.html", "files/src/code.py.html", "files/LICENSE.html", "contributing.html"} <= links["index.html"]
    assert {"index.html", "recipes/recipe.html"} <= links["contributing.html"]
    assert {"files/src/code.py.html", "files/ci/check.html"} <= links["guide.html"]
    assert {"../files/src/code.py.html", "../index.html", "../guide.html"} <= links["recipes/recipe.html"]
    assert "Says &lt;hello&gt;." in pages["files/src/code.py.html"]
    broken = [
        (page, link) for page in pages for link in links[page] if not (site / page).parent.joinpath(link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_a_broken_link_ends_the_build(repository: Path, page: str) -> None:
    """A link to a file that does not exist is a warning, which ends a strict build."""
    with (repository / page).open("a", encoding="utf-8") as file:
        file.write("\n[nothing](nothing.py)\n")
    built = build(repository)
    assert built.returncode != 0
    assert "nothing.py" in built.stdout + built.stderr

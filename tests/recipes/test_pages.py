"""What holds for every page of ``docs/recipes``."""

import re

import pytest

from tests.support.recipes import RECIPES, page, programs

PAGES = sorted(path.stem for path in RECIPES.glob("*.md") if path.stem not in ("index", "README"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page(name: str) -> None:
    """It begins with what the reader can do after it, has programs, and ends with the test that runs them."""
    title, first, *_, last = page(name).strip().split("\n\n")
    assert title.startswith("# ")
    assert first.startswith("After this page, ")
    assert programs(name)
    assert f"test_{name.replace('-', '_')}.py" in last


@pytest.mark.parametrize("name", PAGES)
def test_its_links(name: str) -> None:
    """Every link to another file of the repository leads to one."""
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", page(name)) if "://" not in target]
    assert targets
    for target in targets:
        assert (RECIPES / target).is_file(), target

"""The pages of the documentation, and what is in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
"""The text of each page, by its path in the repository."""

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    for indent, language, block in _BLOCK.findall(text):
        yield language, re.sub(f"^{indent}", "", block, flags=re.MULTILINE)


def without_blocks(text: str) -> str:
    """A page without its fenced blocks."""
    return _BLOCK.sub("", text)


def sections(text: str) -> dict[str, str]:
    """The text below each heading, without that of its subheadings."""
    parts = re.split(r"^#+ (.+)\n", without_blocks(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, row by row, without the lines that are made of dashes."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines if not re.fullmatch(r"[-: |]*", "|".join(cells))]


def code(text: str) -> list[str]:
    """The words and phrases that are marked as code."""
    return re.findall(r"`([^`\n]+)`", text)

"""The pictures of the documentation show what the commands print today. To refresh: ``python -m tests.pictures``."""

import re
from pathlib import Path

import pytest
from rich.text import Text

from tests.pictures import FOLDER, hotel
from tests.pictures.scenes import gist, scenes
from tests.pictures.svg import THEMES, described
from tests.pictures.terminal import screen


def picture(name: str, theme: str) -> str:
    return (FOLDER / f"{name}-{theme}.svg").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_pictures_show_what_the_commands_print(bare: dict[str, str]) -> None:
    """Each picture of a terminal carries its text, which a fresh run prints again, in both themes."""
    printed = {name: gist(Text.from_ansi(shown).plain) for name, shown in scenes(bare).items()}
    for theme in THEMES:
        assert {name: gist(described(picture(name, theme))) for name in printed} == printed


@pytest.mark.parametrize("theme", THEMES)
def test_hotel_is_drawn_by_the_code(theme: str) -> None:
    """The diagram is what the code draws from the arithmetic of lanes."""
    assert picture("hotel", theme) == hotel.draw(theme)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.name)
def test_pictures_need_nothing_from_elsewhere(path: Path) -> None:
    """No font, no image, no link, and no path of the machine that drew them."""
    text = path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^/\s\"<]+", text))
    assert addresses <= {"http://www.w3.org", "http://127.0.0.1:4566"}
    assert not re.search(r"@font-face|href=|@import|/home/|/root/|/tmp/|/Users/", text)
    assert len(text) < 25_000


def test_screen_follows_a_live_display() -> None:
    """A line that is erased or drawn again is shown once, as it was last."""
    bar = "\x1b[?25l\r\x1b[2Kminting 0\r\x1b[2K\x1b[1mminting 9\x1b[0m\r\n\x1b[?25h\r\x1b[1A\x1b[2K1002\r\n"
    assert screen(bar) == "1002"
    frames = "title  \r\na 1\r\nb 1\r\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2Ktitle\r\na 2\r\nb 2\r\n"
    assert screen(frames) == "title\na 2\nb 2"

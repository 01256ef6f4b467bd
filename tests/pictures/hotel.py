"""Hilbert's hotel: what becomes of the lanes of two regions when a third one joins."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

from tests.pictures.svg import FONT
from ticketctl.counters.lanes import Lane

ROOMS = range(1, 15)
FIRST, DONOR, NEWCOMER = "us-east-1", "eu-west-1", "ap-southeast-2"
LAST = {FIRST: 3, DONOR: 2}
"""The last ticket of each region at the moment at which the third one joins."""
_LEFT, _PITCH, _SIZE, _ROW = 165, 44, 34, 52


@dataclass(frozen=True)
class Colors:
    """The colors of a theme: page, text, aside, and one for each region."""

    page: str
    text: str
    aside: str
    regions: Mapping[str, str]


COLORS: Mapping[str, Colors] = MappingProxyType(
    {
        "light": Colors("#ffffff", "#1f2328", "#59636e", {FIRST: "#0969da", DONOR: "#8250df", NEWCOMER: "#bc4c00"}),
        "dark": Colors("#0d1117", "#e6edf3", "#9198a1", {FIRST: "#58a6ff", DONOR: "#bc8cff", NEWCOMER: "#f0883e"}),
    }
)


def draw(theme: str) -> str:
    """Draw the lanes before and after, in the colors of a theme."""
    first, donor = Lane(1, 1).split()
    given, kept = Lane(donor.after(LAST[DONOR]), donor.increment).split()
    picture = _Picture(COLORS[theme])
    picture.heading(f"Two regions, each with its own lane. Tickets up to {max(LAST.values())} are issued.")
    picture.lane(FIRST, "step 2", [number for number in ROOMS if number in first])
    picture.lane(DONOR, "step 2", [number for number in ROOMS if number in donor])
    picture.heading(f"{NEWCOMER} joins: {DONOR} keeps every second of its numbers and hands over the others.")
    picture.lane(FIRST, "step 2, as before", [number for number in ROOMS if number in first])
    issued = [number for number in ROOMS if number in donor and number <= LAST[DONOR]]
    picture.lane(DONOR, "step 4", issued + [number for number in ROOMS if number in kept])
    moved = [number for number in ROOMS if number in given]
    picture.moves(moved)
    picture.lane(NEWCOMER, "step 4", moved)
    picture.note("Every number is in exactly one lane, so the regions mint without asking each other.")
    return picture.svg()


class _Picture:
    """An SVG that grows downwards."""

    def __init__(self, colors: Colors) -> None:
        self._colors = colors
        self._shapes: list[str] = []
        self._texts: list[str] = []
        self._y = 14

    def heading(self, text: str) -> None:
        self._y += 30
        self._say(text, 20, self._y, self._colors.text, weight="bold")
        self._y += 18

    def note(self, text: str) -> None:
        self._y += 26
        self._say(text, 20, self._y, self._colors.aside)

    def lane(self, region: str, step: str, numbers: list[int]) -> None:
        """One row: the numbers of a region, those that are issued filled."""
        color = self._colors.regions[region]
        self._texts.append(f"{region}: {', '.join(map(str, numbers))}, … ({step})")
        self._say(region, 20, self._y + 22, color, weight="bold", listed=False)
        self._say(step, _x(ROOMS.stop) + 6, self._y + 22, self._colors.aside, listed=False)
        for number in numbers:
            self._room(number, color, is_issued=number <= LAST.get(region, 0))
        self._y += _ROW

    def moves(self, numbers: list[int]) -> None:
        """Arrows from a region's row to the next one."""
        color = self._colors.regions[NEWCOMER]
        for number in numbers:
            x, top = _x(number) + _SIZE // 2, self._y - _ROW
            dashed = f'stroke="{color}" stroke-width="1.5" stroke-dasharray="3 3" fill="none"'
            self._shapes += [
                f'<rect x="{_x(number)}" y="{top}" width="{_SIZE}" height="{_SIZE}" rx="5" {dashed}/>',
                f'<path d="M{x} {top + _SIZE + 2}V{self._y - 4}m-4 -5l4 5l4 -5" stroke="{color}" fill="none"/>',
            ]

    def svg(self) -> str:
        """The picture as a document, with all that it says as its description."""
        width, height = _x(ROOMS.stop) + 165, self._y + 20
        description = escape("\n".join(self._texts))
        body = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>A third region joins the sequence</title>",
            f"<desc>{description}</desc>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{self._colors.page}"/>',
            f'<g font-family="{FONT}" font-size="14">',
            *self._shapes,
            "</g>",
            "</svg>",
        ]
        return "\n".join(body) + "\n"

    def _room(self, number: int, color: str, *, is_issued: bool) -> None:
        fill, ink = (color, self._colors.page) if is_issued else ("none", color)
        box = f'width="{_SIZE}" height="{_SIZE}" rx="5" fill="{fill}" stroke="{color}" stroke-width="1.5"'
        middle = f'x="{_x(number) + _SIZE // 2}" y="{self._y + 22}" text-anchor="middle" fill="{ink}"'
        self._shapes += [
            f'<rect x="{_x(number)}" y="{self._y}" {box}/>',
            f"<text {middle}>{number}</text>",
        ]

    def _say(self, text: str, x: int, y: int, color: str, *, weight: str = "normal", listed: bool = True) -> None:
        self._texts += [text] * listed
        self._shapes.append(f'<text x="{x}" y="{y}" fill="{color}" font-weight="{weight}">{escape(text)}</text>')


def _x(number: int) -> int:
    return _LEFT + (number - ROOMS.start) * _PITCH

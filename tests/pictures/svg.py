"""A terminal's screen as an SVG that needs nothing from elsewhere and carries its text."""

import io
import re
from collections.abc import Mapping
from html import escape, unescape
from types import MappingProxyType

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.pictures.terminal import COLUMNS

FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
_ASPECT = 0.6  # width to height of a letter in these fonts
_ASIDE = "rgba(255,255,255,0.35)"  # Rich's border, which a light page does not show
_FORMAT = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" role="img">
<title>@title@</title>
<desc>@desc@</desc>
<style>
.{{unique_id}}-matrix {{{{ font-family: {FONT}; font-size: {{char_height}}px }}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal"><rect width="{{terminal_width}}" height="{{terminal_height}}"/></clipPath>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})" clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""
_ON_LIGHT = [
    *[(36, 41, 47), (207, 34, 46), (17, 99, 41), (125, 78, 0)],
    *[(9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)],
]
_ON_DARK = [
    *[(110, 118, 129), (255, 123, 114), (63, 185, 80), (210, 153, 34)],
    *[(88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
]
THEMES: Mapping[str, TerminalTheme] = MappingProxyType(
    {
        "light": TerminalTheme((255, 255, 255), (31, 35, 40), _ON_LIGHT),
        "dark": TerminalTheme((13, 17, 23), (230, 237, 243), _ON_DARK),
    }
)
BORDERS: Mapping[str, str] = MappingProxyType({"light": "#d1d9e0", "dark": "#3d444d"})


def draw(name: str, screen: str, *, theme: str) -> str:
    """Draw a screen, which has colors, with the colors of a theme."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    text = Text.from_ansi(screen)
    console.print(text, soft_wrap=True)
    drawn = console.export_svg(
        title="", theme=THEMES[theme], code_format=_FORMAT, font_aspect_ratio=_ASPECT, unique_id=f"{name}-{theme}"
    )
    drawn = "\n".join(filter(None, map(str.strip, drawn.splitlines()))).replace(_ASIDE, BORDERS[theme])
    return drawn.replace("@title@", f"ticketctl: {name}").replace("@desc@", escape(text.plain)) + "\n"


def described(svg: str) -> str:
    """The text that a picture shows."""
    found = re.search("<desc>(.*)</desc>", svg, re.DOTALL)
    return unescape(found[1]) if found else ""

"""``python -m tests.pictures``: draw every picture, from fresh runs."""

import os
import sys
import tempfile
from pathlib import Path

from tests.pictures import FOLDER
from tests.pictures.hotel import draw as draw_hotel
from tests.pictures.scenes import is_late, scenes
from tests.pictures.svg import THEMES, draw
from ticketctl.embedded.engine import LocalAws


def main() -> None:
    """Run the commands in an embedded AWS of their own, and write the pictures."""
    screens = _screens()
    FOLDER.mkdir(exist_ok=True)
    for theme in THEMES:
        (FOLDER / f"hotel-{theme}.svg").write_text(draw_hotel(theme), encoding="utf-8")
        for name, screen in screens.items():
            (FOLDER / f"{name}-{theme}.svg").write_text(draw(name, screen, theme=theme), encoding="utf-8")


def _screens() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as home:
        environ = {"PATH": os.environ["PATH"], "HOME": home, "TICKETCTL_HOME": home}
        try:
            screens = scenes(environ)
        finally:
            LocalAws(Path(home) / "local", environ=environ).stop()
    if is_late("".join(screens.values())):
        sys.exit("this machine is too busy: a ticket was not minted just now; run it again")
    return screens


if __name__ == "__main__":
    main()

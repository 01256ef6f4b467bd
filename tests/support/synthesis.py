"""What a synthesis of the stack makes."""

from pathlib import Path
from typing import NamedTuple


class Assembly(NamedTuple):
    """A new synthesis: the template, and the folder of the whole cloud assembly."""

    template: dict[str, object]
    folder: Path

"""The folders of ticketctl's files, and how it reads and writes them."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ticketctl.errors import FileError

Kind = Literal["config", "cache", "state"]

_XDG = {"config": ".config", "cache": ".cache", "state": ".local/state"}
_MACOS = {"config": "Application Support", "cache": "Caches", "state": "Application Support"}


def directory(kind: Kind, environ: Mapping[str, str]) -> Path:
    """Return the folder for one kind of file: ``TICKETCTL_HOME``, else the platform's. ``FileError`` without a home."""
    if folder := find_directory(kind, environ):
        return folder
    raise FileError(
        "there is no home folder: HOME is not set, and the system does not know this user",
        hint="set HOME, or TICKETCTL_HOME, to a folder of yours",
    )


def find_directory(kind: Kind, environ: Mapping[str, str]) -> Path | None:
    """Return the folder, or ``None`` if the user has no home folder, and so no file of this kind."""
    if home := environ.get("TICKETCTL_HOME"):
        try:
            return Path(home).expanduser().absolute()
        except RuntimeError as error:
            raise FileError(f"TICKETCTL_HOME is {home!r}: {error}", hint="set it to a folder of yours") from None
    if sys.platform != "darwin" and (moved := environ.get(f"XDG_{kind.upper()}_HOME")):
        return Path(moved) / "ticketctl"
    try:
        user = Path.home()
    except RuntimeError:
        return None
    return user / (f"Library/{_MACOS[kind]}" if sys.platform == "darwin" else _XDG[kind]) / "ticketctl"


def cache_file(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return the path of a cache file; ``None`` if there is no folder for it: everything works without a cache."""
    folder = find_directory("cache", environ)
    return folder and folder / name


def read_json(path: Path, *, hint: str) -> Any:
    """Return the document in a file, ``None`` if there is no file; ``FileError`` if it cannot be read."""
    try:
        if path.exists() and not path.is_file():
            raise FileError(f"{path} cannot be read: it is not a regular file", hint=hint)  # a pipe would block
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {error}", hint=hint) from None


def write_json(path: Path, document: Any) -> None:
    """Replace a file in one step, so that a reader never sees half of it; mode 0600."""
    import tempfile

    temporary = ""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, sort_keys=True)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise FileError(
            f"{path} cannot be written: {error.strerror or error}", hint="set TICKETCTL_HOME to a folder of yours"
        ) from None

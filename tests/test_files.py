"""``files``: the folders of ticketctl's own files, and how the files are read and written."""

import re
import stat
import sys
from pathlib import Path

import pytest

from ticketctl.errors import FileError
from ticketctl.files import Kind, directory, read_json, write_json


@pytest.mark.parametrize("kind", ["config", "cache", "state"])
def test_home_moves_everything(tmp_path: Path, kind: Kind) -> None:
    """TICKETCTL_HOME is the folder for all files, even if XDG variables are set."""
    assert directory(kind, {"TICKETCTL_HOME": str(tmp_path), "XDG_CACHE_HOME": "/elsewhere"}) == tmp_path


def test_home_with_a_tilde() -> None:
    """TICKETCTL_HOME may begin with ``~``."""
    assert directory("cache", {"TICKETCTL_HOME": "~/tickets"}) == Path.home() / "tickets"


def test_relative_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative TICKETCTL_HOME becomes absolute, so that a process in another folder finds it."""
    monkeypatch.chdir(tmp_path)
    assert directory("cache", {"TICKETCTL_HOME": "here"}) == tmp_path / "here"


@pytest.mark.parametrize(
    ("kind", "linux", "macos"),
    [
        ("config", ".config", "Library/Application Support"),
        ("cache", ".cache", "Library/Caches"),
        ("state", ".local/state", "Library/Application Support"),
    ],
)
def test_platform_folder(kind: Kind, linux: str, macos: str) -> None:
    """Without TICKETCTL_HOME, the folder depends on the platform."""
    platform = macos if sys.platform == "darwin" else linux
    assert directory(kind, {}) == Path.home() / platform / "ticketctl"


@pytest.mark.parametrize("kind", ["config", "cache", "state"])
def test_xdg(kind: Kind) -> None:
    """On Linux, XDG variables set the folders."""
    moved = directory(kind, {f"XDG_{kind.upper()}_HOME": "/xdg"})
    assert moved == (directory(kind, {}) if sys.platform == "darwin" else Path("/xdg/ticketctl"))


def test_round_trip(tmp_path: Path) -> None:
    """A document that was written is read back unchanged."""
    document = {"größe": [1, None, 2**60], "lone": "\udce9"}
    write_json(tmp_path / "a.json", document)
    assert read_json(tmp_path / "a.json", hint="") == document


def test_no_file(tmp_path: Path) -> None:
    """A missing file is no document, and no error."""
    assert read_json(tmp_path / "a.json", hint="") is None


@pytest.mark.parametrize("content", [b"", b"{", b'"caf\xe9"'])
def test_broken_file(tmp_path: Path, content: bytes) -> None:
    """If a file is not JSON, the error names it and says what to do."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=re.escape(f"{path} cannot be read: ")) as caught:
        read_json(path, hint="remove it")
    assert caught.value.hint == "remove it"


def test_unreadable_file(tmp_path: Path) -> None:
    """If a file cannot be opened, the error names it; there is no empty default."""
    with pytest.raises(FileError, match=re.escape(f"{tmp_path} cannot be read: ")):
        read_json(tmp_path, hint="")


def test_private(tmp_path: Path) -> None:
    """Only the owner may access a file and the folder that was created for it."""
    path = tmp_path / "new" / "a.json"
    write_json(path, {})
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent)] == [0o600, 0o700]


def test_replaced_in_one_step(tmp_path: Path) -> None:
    """A process with the old file open reads it to the end; only the new file is left in the folder."""
    path = tmp_path / "a.json"
    write_json(path, "old")
    with path.open(encoding="utf-8") as reader:
        write_json(path, "new")
        assert reader.read() == '"old"'
    assert {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()} == {"a.json": '"new"'}


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """If the folder cannot be created, the error names the file."""
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "a.json"
    with pytest.raises(FileError) as caught:
        write_json(path, {})
    assert (caught.value.message, caught.value.hint) == (
        f"{path} cannot be written: Not a directory",
        "set TICKETCTL_HOME to a folder of yours",
    )


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """If a file cannot be replaced, no temporary file is left."""
    path = tmp_path / "a.json"
    path.mkdir()
    with pytest.raises(FileError, match=re.escape(f"{path} cannot be written: ")):
        write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]

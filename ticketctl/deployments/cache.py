"""What is known of deployed stacks, so that ``next`` needs no look-up. CloudFormation stays the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ticketctl.errors import FileError
from ticketctl.files import read_json, write_json
from ticketctl.models import StackOutputs

VERSION = 1
_IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN")
_HINT = "remove the file: it is a cache"


def key_of(
    *,
    stack: str,
    region: str = "",
    local: bool = False,
    endpoint: str | None,
    profile: str | None,
    environ: Mapping[str, str],
) -> str:
    """Who asks for what and where. Another profile, key, file or role may mean another account.

    What it cannot see: the same profile that has come to mean another account. A private stack then answers
    403 and is looked up again.
    """
    if local:
        return "|".join(["embedded", "", "", region, stack])
    import hashlib

    identity = "\n".join(environ.get(name, "") for name in _IDENTITY)
    who = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity.strip() else ""
    return "|".join([endpoint or "aws", profile or "", who, region, stack])


class StackCache:
    """A file of ``StackOutputs``, each under what it was asked for with (see ``key_of``). Without a path: empty."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def get(self, key: str) -> StackOutputs | None:
        """The stack under that key, ``None`` where it is not known."""
        entry = _read(self.path, "stacks").get(key)
        try:
            return StackOutputs(**entry) if entry is not None else None
        except TypeError as error:
            raise FileError(f"{self.path} is not a cache of this version: {error}", hint=_HINT) from None

    def put(self, key: str, outputs: StackOutputs | None) -> None:
        """Remember a stack, or with ``None`` forget it."""
        _write(self.path, "stacks", key, None if outputs is None else asdict(outputs))


class RegionsCache:
    """A file of the regions in which stacks were deployed together, in their order. Without a path: empty."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def get(self, key: str) -> tuple[str, ...]:
        """The regions under that key (without a region); none where there is only one, or none is known."""
        return tuple(map(str, _read(self.path, "regions").get(key) or ()))

    def put(self, key: str, regions: Sequence[str]) -> None:
        """Remember the regions of a stack."""
        _write(self.path, "regions", key, list(regions) or None)

    def forget_embedded(self) -> None:
        """Forget the stacks of the embedded AWS, which is as new."""
        for key in [key for key in _read(self.path, "regions") if key.startswith("embedded|")]:
            _write(self.path, "regions", key, None)


def _read(path: Path | None, what: str) -> dict[str, Any]:
    document = read_json(path, hint=_HINT) if path else None
    if document is None:
        return {}
    entries = document.get(what) if isinstance(document, dict) else None
    if not isinstance(entries, dict) or document.get("version") != VERSION:
        raise FileError(f"{path} is not a cache of this version", hint=_HINT)
    return entries


def _write(path: Path | None, what: str, key: str, entry: Any) -> None:
    if path is None:
        return
    entries = {name: other for name, other in _read(path, what).items() if name != key}
    if entry is not None:
        entries[key] = entry
    write_json(path, {"version": VERSION, what: entries})

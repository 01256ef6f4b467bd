"""A cache of deployed stacks, so that ``next`` needs no look-up. CloudFormation stays the truth.

Nothing here raises an error: a file that cannot be read counts as empty, and one that cannot be written is skipped.
"""

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

from ticketctl.errors import FileError
from ticketctl.files import cache_file, read_json, write_json
from ticketctl.models import StackOutputs
from ticketctl.settings import REGION, is_http

VERSION = 1
CACHE_LOCK_SECONDS = 1.0  # a process that was stopped while it held the lock must not stop a mint
DEPLOYED_SECONDS = 60.0
"""How long a stack counts as just deployed."""
_IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN")

Note = Callable[[str], None]


def key_of(
    *,
    stack: str,
    region: str = "",
    local: bool = False,
    endpoint: str | None,
    profile: str | None,
    environ: Mapping[str, str],
) -> str:
    """The key of a stack: its name and region, and the profile, access key, files and role that lead to its account.

    If the same profile now belongs to another account, the key does not change. A private stack then answers
    403 and is looked up again.
    """
    if local:
        return "|".join(["embedded", "", "", region, stack])
    import hashlib

    names = _IDENTITY if profile is None else _IDENTITY[1:]  # with a profile, no access key of the environment is used
    identity = "\n".join(environ.get(name, "") for name in names)
    who = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity.strip() else ""
    return "|".join([endpoint or "aws", profile or "", who, region, stack])


def cache_path(name: str, environ: Mapping[str, str], note: Note) -> Path | None:
    """The path of a cache file; ``None`` if there is no folder for it, such as without a home folder."""
    try:
        path = cache_file(name, environ)
    except FileError as error:
        note(f"no cache: {error}")
        return None
    if path is None:
        note("no cache: there is no home folder")
    return path


class StackCache:
    """A file of ``StackOutputs`` by ``key_of``. Without a ``path`` nothing is kept; ``note`` gets a line per error."""

    def __init__(self, path: Path | None, note: Note = lambda line: None) -> None:
        self._file = _CacheFile(path, "stacks", note)

    def get(self, key: str) -> StackOutputs | None:
        """The stack under that key, ``None`` if it is not known."""
        entry = self._file.read().get(key)
        outputs = _outputs(entry)
        if entry is not None and outputs is None:
            self._file.note(f"ignored the entry {key} of {self._file.path}: it is not of this version")
        return outputs

    def put(self, key: str, outputs: StackOutputs | None) -> None:
        """Cache a stack; ``None`` removes its entry."""
        self._file.change({key: None if outputs is None else asdict(outputs)})


class RegionsCache:
    """A file of the regions in which a stack was deployed, in their order, by ``key_of`` without a region."""

    def __init__(self, path: Path | None, note: Note = lambda line: None) -> None:
        self._file = _CacheFile(path, "regions", note)

    def get(self, key: str) -> tuple[str, ...]:
        """The regions under that key; empty if there is only one, or none is known."""
        regions = self._file.read().get(key)
        if not isinstance(regions, list) or not all(isinstance(region, str) for region in regions):
            return ()
        return tuple(regions)

    def put(self, key: str, regions: Sequence[str]) -> None:
        """Cache the regions of a stack."""
        self._file.change({key: list(regions) or None})

    def forget_embedded(self) -> None:
        """Forget the stacks of the embedded AWS, after it was reset."""
        self._file.forget_embedded()


class TicketsCache:
    """A file of the last ticket of each counter at the last deployment, by ``key_of``."""

    def __init__(self, path: Path | None, note: Note = lambda line: None) -> None:
        self._file = _CacheFile(path, "tickets", note)

    def get(self, key: str) -> Mapping[str, int]:
        """The last tickets under that key, by counter; empty if none are known."""
        tickets = self._file.read().get(key)
        if not isinstance(tickets, dict):
            return {}
        return {name: last for name, last in tickets.items() if type(last) is int}

    def put(self, key: str, tickets: Mapping[str, int]) -> None:
        """Cache the last tickets of a table's counters."""
        self._file.change({key: dict(tickets) or None})

    def forget_embedded(self) -> None:
        """Forget the counters of the embedded AWS, after it was reset."""
        self._file.forget_embedded()


class DeployedCache:
    """A file of the moments at which this machine deployed a stack, in seconds since 1970, by ``key_of``."""

    def __init__(self, path: Path | None, note: Note = lambda line: None) -> None:
        self._file = _CacheFile(path, "deployed", note)

    def age(self, key: str, now: float) -> float:
        """The seconds since the deployment; infinite if there is none, or if it is in the future."""
        moment = self._file.read().get(key)
        if isinstance(moment, float) and moment <= now:
            return now - moment
        return math.inf

    def put(self, key: str, now: float) -> None:
        """Remember a deployment, and forget those that are old."""
        old = [other for other in self._file.read() if self.age(other, now) > DEPLOYED_SECONDS]
        self._file.change({**dict.fromkeys(old), key: now})


def _outputs(entry: Any) -> StackOutputs | None:
    """An entry as a stack; fields of a later version are ignored, a missing or damaged field makes it ``None``."""
    known = fields(StackOutputs)
    if not isinstance(entry, dict):
        return None
    if any(type(entry.get(field.name, ...)) not in (get_args(field.type) or (field.type,)) for field in known):
        return None
    outputs = StackOutputs(**{field.name: entry[field.name] for field in known})
    in_range = outputs.offset >= 0 and outputs.increment >= 1 and outputs.max_count >= 1
    is_usable = in_range and outputs.table and re.fullmatch(REGION, outputs.region)
    return outputs if is_usable and (outputs.url is None or is_http(outputs.url)) else None


class _CacheFile:
    """One JSON file of entries, which several processes may change at once."""

    def __init__(self, path: Path | None, what: str, note: Note) -> None:
        self.path = path
        self.note = note
        self._what = what

    def read(self) -> dict[str, Any]:
        """The entries; none if the file is missing, damaged or of another version."""
        if self.path is None:
            return {}
        try:
            document = read_json(self.path, hint="")
        except (FileError, RecursionError) as error:
            self.note(f"ignored the cache {self.path}: {error}")
            return {}
        if document is None:
            return {}
        entries = document.get(self._what) if isinstance(document, dict) else None
        if not isinstance(entries, dict) or document.get("version") != VERSION:
            self.note(f"ignored the cache {self.path}: it is not of this version")
            return {}
        return entries

    def forget_embedded(self) -> None:
        """Remove the entries of the embedded AWS."""
        self.change({key: None for key in self.read() if key.startswith("embedded|")})

    def change(self, entries: Mapping[str, Any]) -> None:
        """Replace entries, or with ``None`` remove them, and keep the others."""
        if self.path is None:
            return
        try:
            with _locked(self.path):
                before = self.read()
                after = {key: entry for key, entry in {**before, **entries}.items() if entry is not None}
                if after != before:
                    write_json(self.path, {"version": VERSION, self._what: after})
        except (FileError, OSError) as error:
            self.note(f"the cache was not updated: {error}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, so that no process overwrites what another has just written."""
    import fcntl

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A pipe in place of the file must not block a mint.
    with open(f"{path}.lock", "a", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o600)) as lock:
        ends = time.monotonic() + CACHE_LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.01)
        yield

"""What is known of deployed stacks, so that ``next`` needs no look-up. CloudFormation stays the truth."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ticketctl.errors import FileError
from ticketctl.files import read_json, write_json
from ticketctl.models import StackOutputs

VERSION = 1
_IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ROLE_ARN")
_HINT = "remove the file: it is a cache"


class StackCache:
    """A file of ``StackOutputs``, each under what it was asked for with (see ``key``)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def key(*, stack: str, region: str, endpoint: str | None, profile: str | None, environ: Mapping[str, str]) -> str:
        """Who asks for what and where. Another profile, key, file or role may mean another account.

        What it cannot see: the same profile that has come to mean another account. A private stack then answers
        403 and is looked up again.
        """
        identity = "\n".join(environ.get(name, "") for name in _IDENTITY)
        who = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity.strip() else ""
        return "|".join([endpoint or "aws", profile or "", who, region, stack])

    def get(self, key: str) -> StackOutputs | None:
        """The stack under that key, ``None`` where it is not known."""
        entry = self._entries().get(key)
        try:
            return StackOutputs(**entry) if entry is not None else None
        except TypeError as error:
            raise FileError(f"{self.path} is not a cache of this version: {error}", hint=_HINT) from None

    def put(self, key: str, outputs: StackOutputs | None) -> None:
        """Remember a stack, or with ``None`` forget it."""
        entries = {name: entry for name, entry in self._entries().items() if name != key}
        if outputs is not None:
            entries[key] = asdict(outputs)
        write_json(self.path, {"version": VERSION, "stacks": entries})

    def _entries(self) -> dict[str, Any]:
        document = read_json(self.path, hint=_HINT)
        if document is None:
            return {}
        stacks = document.get("stacks") if isinstance(document, dict) else None
        if not isinstance(stacks, dict) or document.get("version") != VERSION:
            raise FileError(f"{self.path} is not a cache of this version", hint=_HINT)
        return stacks

"""The state of the embedded AWS on disk: one SQLite file with atomic writes.

SQLite's write-ahead log is an append-only journal with compaction: a commit appends and syncs (``synchronous=FULL``),
a checkpoint compacts, and a record that a crash cut off is dropped when the file is opened. Each item of a table is a
row, so a mint writes one row. Everything else is one document per service, written if it changed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

FORMAT = 1


class ItemChange(NamedTuple):
    """The current value of a table's item, in JSON; ``item`` is ``None`` if it was deleted."""

    table_arn: str
    partition_key: str
    sort_key: str
    item: str | None


class StoreError(Exception):
    """The file cannot be read or written; the message names it and says why."""


class Store:
    """The file at ``path``, created if it does not exist. Not thread-safe: use it in one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = path.with_name(f"{path.name}-wal")
        try:
            with ExitStack() as failed:
                if is_new := not (os.path.lexists(path) or self._journal.exists()):
                    failed.callback(path.unlink, missing_ok=True)
                self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                failed.callback(self._database.close)
                self._prepare(is_new=is_new)
                failed.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error

    def _prepare(self, *, is_new: bool) -> None:
        if not (is_new or self._path.stat().st_size):  # SQLite would make a new database and remove the journal
            raise OSError("it is empty: its counters are lost; to start again at 1: ticketctl local reset")
        ((version,),) = self._database.execute("PRAGMA user_version")
        if version > FORMAT:
            raise OSError(f"it was written by a newer ticketctl (format {version} of {FORMAT})")
        self._database.executescript(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1;"
            "BEGIN IMMEDIATE;"
            "CREATE TABLE IF NOT EXISTS services (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS items (table_arn TEXT, partition_key TEXT, sort_key TEXT, item TEXT,"
            " PRIMARY KEY (table_arn, partition_key, sort_key)) WITHOUT ROWID;"
            "CREATE TABLE IF NOT EXISTS probes (id INTEGER PRIMARY KEY, count INTEGER NOT NULL);"
            f"PRAGMA user_version = {FORMAT}; COMMIT;"
        )
        self._inodes = {file: file.stat().st_ino for file in (self._path, self._journal)}

    def close(self) -> None:
        """Compact the file and close it."""
        self._database.close()

    def services(self) -> dict[str, str]:
        """The saved document of each service."""
        try:
            return dict(self._database.execute("SELECT name, document FROM services"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def items(self) -> Iterator[ItemChange]:
        """The items that changed after the document of their service was written, in no order."""
        try:
            yield from map(ItemChange._make, self._database.execute("SELECT * FROM items"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def write(self, documents: Mapping[str, str], changes: Iterable[ItemChange], *, replaces_items: bool) -> None:
        """Save documents and changes atomically; ``replaces_items``: the documents contain all earlier items."""
        try:
            self._check_files()
            self._database.execute("BEGIN IMMEDIATE")
            try:
                self._database.executemany("REPLACE INTO services VALUES (?, ?)", documents.items())
                if replaces_items:
                    self._database.execute("DELETE FROM items")
                self._database.executemany("REPLACE INTO items VALUES (?, ?, ?, ?)", changes)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def probe(self) -> None:
        """Write a small row to see if writing works again."""
        try:
            self._check_files()
            self._database.execute("REPLACE INTO probes VALUES (1, 1 + coalesce((SELECT count FROM probes), 0))")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _check_files(self) -> None:
        """Raise ``OSError`` if a file was removed or replaced: writes to it would succeed and then be lost."""
        for path, inode in self._inodes.items():
            if os.stat(path).st_ino != inode:  # noqa: PTH116 - runs for every mint, and pathlib is slower
                raise OSError(f"{path.name} was replaced")

"""What the embedded AWS knows, on disk: one SQLite file, in which a write is either whole or not there.

SQLite's write-ahead log is the append-only journal with compaction that durability needs: a commit appends and syncs
(``synchronous=FULL``), a checkpoint compacts, and a record that was cut off by a crash is dropped when the file is
opened. Items of tables are rows of their own, so that a mint writes one row; everything else is one document for each
service, written if it has changed.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FORMAT = 1


class Change(NamedTuple):
    """An item of a table as it is now, in JSON; ``item`` is ``None`` for one that is gone."""

    table_arn: str
    partition_key: str
    sort_key: str
    item: str | None


class StoreError(Exception):
    """The file cannot be read or written; the text says why and names it."""


class Store:
    """The file at ``path``, made if there is none. Not safe for threads: one thread uses it after another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
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
            self._inode = path.stat().st_ino
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        """Compact the file and close it."""
        self._database.close()

    def services(self) -> dict[str, str]:
        """The saved document of each service."""
        try:
            return dict(self._database.execute("SELECT name, document FROM services"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def items(self) -> Iterator[Change]:
        """The items that were written after the document of their service, in no order."""
        try:
            yield from map(Change._make, self._database.execute("SELECT * FROM items"))
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def write(self, documents: Mapping[str, str], changes: Iterable[Change], *, replaces_items: bool) -> None:
        """Save documents and changes in one step; ``replaces_items``: the documents have every item up to now."""
        try:
            self._check_place()
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
        """Write something small, to find out whether writing works again."""
        try:
            self._check_place()
            self._database.execute("REPLACE INTO probes VALUES (1, 1 + coalesce((SELECT count FROM probes), 0))")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _check_place(self) -> None:
        """What is written to a file that was removed or replaced is lost, though every write succeeds."""
        if os.stat(self._path).st_ino != self._inode:  # noqa: PTH116 - on the path of every mint
            raise OSError("another file has taken its place")

"""What the embedded AWS has answered is durable: after a kill, on a full disk, after an interrupted start.

``TICKETCTL_TEST_EFFORT=10`` runs ten times as many rounds.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.command_line import Result, run, start
from tests.support.effort import times
from tests.support.embedded_aws import REGION
from tests.support.faulty_proxy import SEED
from ticketctl.aws.account import Aws
from ticketctl.embedded.durability import NOT_SAVED
from ticketctl.embedded.engine import LocalAws, is_alive, is_engine
from ticketctl.embedded.store import FORMAT, ItemChange, Store, StoreError

KILLS, INTERRUPTS = times(3), times(4)
MINTERS = 8
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/Tickets"


def folder(environ: dict[str, str]) -> Path:
    return Path(environ["TICKETCTL_HOME"]) / "local"


def engines_of(environ: dict[str, str]) -> set[int]:
    """Return the pids of the engines of this folder, without zombies."""
    name = str(folder(environ)).encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if name in (line := (process / "cmdline").read_bytes()).split(b"\0") and b"embedded.server" in line:
                found.add(int(process.name))
        except OSError:
            continue
    return found


class Minters:
    """Threads that run ``fetch`` again and again, half of them through the URL and half from the table."""

    def __init__(self, environ: dict[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self.tickets: list[int] = []
        self.results: list[Result] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._mint, args=(number,)) for number in range(MINTERS)]

    def __enter__(self) -> "Minters":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _mint(self, number: int) -> None:
        via = ("--via", "dynamodb") if number % 2 else ()
        while not self._ended.is_set():
            result = run(self._environ, "fetch", "40", "--block", "1", "--local", *via)
            with self._lock:
                self.results.append(result)
                self.tickets += [int(line) for line in result.stdout.split()]


def test_a_deleted_stack_leaves_little(bare: dict[str, str]) -> None:
    """The templates of deleted stacks and executed change sets are not saved with each later change."""
    for step in ("deploy", "destroy", "deploy", "destroy"):
        assert run(bare, step, "--local", "--yes", "--quiet").returncode == 0
    assert run(bare, "local", "down").returncode == 0
    store = Store(folder(bare) / "state.db")
    assert len(store.services()["cloudformation"]) < 40_000
    store.close()


def test_kill_at_any_moment(bare: dict[str, str]) -> None:
    """After each SIGKILL under load, every delivered ticket stays spent and the stack still exists."""
    chance = random.Random(SEED)  # noqa: S311 - it chooses moments
    assert run(bare, "next", "--local").stdout == "1\n"
    with Minters(bare) as minters:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.3, 1.5))
            engine = LocalAws(folder(bare), environ=bare).ensure()
            os.kill(engine.pid, signal.SIGKILL)
            while is_engine(engine.pid):
                time.sleep(0.01)
    tickets = minters.tickets
    assert len(set(tickets)) == len(tickets), f"seed {SEED}"
    odd = [result for result in minters.results if result.returncode not in (0, 7, 8)]
    assert not odd, odd
    last = json.loads(run(bare, "status", "--local", "--json").stdout)["counters"][0]["last"]
    assert last >= max(tickets)
    after = run(bare, "next", "--local")
    assert (after.returncode, after.stderr) == (0, "")
    assert int(after.stdout) == last + 1
    sys.stderr.write(f"{len(tickets)} tickets over {KILLS} kills\n")


def test_kill_while_deploying(bare: dict[str, str]) -> None:
    """If the engine is killed during a deployment, the same command resumes it, and the counter continues."""
    chance = random.Random(SEED)  # noqa: S311 - it chooses moments
    for ticket in range(1, 1 + times(2)):
        arguments = ("deploy", "--local", "--yes", "--public" if ticket % 2 else "--no-public")
        with start(bare, *arguments) as deploying:
            time.sleep(chance.uniform(0.5, 2.0))
            for pid in engines_of(bare):
                os.kill(pid, signal.SIGKILL)
            deploying.communicate(timeout=120)
        again = run(bare, *arguments)
        assert again.returncode == 0, f"seed {SEED}: {again}"
        minted = run(bare, "next", "--local")
        assert (minted.returncode, minted.stdout) == (0, f"{ticket}\n"), f"seed {SEED}: {minted}"


def test_interrupted_start(bare: dict[str, str]) -> None:
    """If a first command is interrupted at any moment, at most one engine runs, and the record names it."""
    chance = random.Random(SEED)  # noqa: S311 - it chooses moments
    for _ in range(INTERRUPTS):
        starting = start(bare, "next", "--local")
        time.sleep(chance.uniform(0.0, 1.2))
        starting.send_signal(signal.SIGINT)
        starting.communicate(timeout=60)
        local = LocalAws(folder(bare), environ=bare)
        deadline = time.monotonic() + 20
        while engines_of(bare) and local.running() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        engine = local.running()
        assert engines_of(bare) == ({engine.pid} if engine else set()), f"seed {SEED}"
        local.stop()
        assert engines_of(bare) == set()


def test_engine_ends_without_its_record(bare: dict[str, str]) -> None:
    """If an engine's record is removed, the engine ends by itself."""
    run(bare, "local", "up")
    (engine,) = engines_of(bare)
    (folder(bare) / "engine.json").unlink()
    deadline = time.monotonic() + 20
    while is_alive(engine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engines_of(bare) == set()


def test_a_second_engine_refuses(bare: dict[str, str]) -> None:
    """A second engine in the same folder exits immediately and keeps the first engine's record."""
    run(bare, "local", "up")
    record = (folder(bare) / "engine.json").read_bytes()
    command = [sys.executable, "-m", "ticketctl.embedded.server", str(folder(bare))]
    second = subprocess.run(command, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert (second.returncode, second.stderr) == (1, f"another embedded AWS already uses {folder(bare)}\n")
    assert (folder(bare) / "engine.json").read_bytes() == record


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """Mount a file system of 4 MiB at a folder."""
    place.mkdir(mode=0o700, parents=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_full_disk(bare: dict[str, str], via: str) -> None:
    """On a full disk a mint fails and says why; once there is space it continues, without duplicates."""
    mint = ("next", "--local", "--via", via)
    with small_disk(folder(bare)):
        assert run(bare, *mint).stdout == "1\n"
        filler = folder(bare) / "filler"
        fill(filler)
        delivered = []  # the file may have free pages left
        while not (failed := run(bare, *mint, "--timeout", "2")).returncode:
            delivered.append(int(failed.stdout))
            assert len(delivered) < 100, "the disk was not full"
        assert (failed.returncode, failed.stdout) == (7, "")
        assert "cannot save its state" in failed.stderr, failed
        filler.unlink()
        after = run(bare, *mint)
        assert after.returncode == 0, after
        os.kill(next(iter(engines_of(bare))), signal.SIGKILL)
        last = run(bare, *mint)
        numbers = [1, *delivered, int(after.stdout), int(last.stdout)]
        assert numbers == sorted(set(numbers))
        LocalAws(folder(bare), environ=bare).stop()


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
def test_transaction_on_a_full_disk(bare: dict[str, str]) -> None:
    """A transaction that was not written is written when it is sent again, with the same token: it is no replay."""
    with small_disk(folder(bare)):
        assert run(bare, "next", "--local").stdout == "1\n"
        engine = LocalAws(folder(bare), environ=bare).running()
        assert engine
        aws = Aws(REGION, endpoint_url=engine.endpoint_url, embedded=engine.credentials)
        client, table = aws.client("dynamodb"), aws.client("dynamodb").list_tables()["TableNames"][0]

        def put() -> None:
            item = {"partition": {"S": "large"}, "filling": {"S": "." * 100_000}}
            client.transact_write_items(
                TransactItems=[{"Put": {"TableName": table, "Item": item}}], ClientRequestToken="token"
            )

        filler = folder(bare) / "filler"
        fill(filler)
        with pytest.raises(ClientError, match=NOT_SAVED):
            put()
        filler.unlink()
        put()
        assert "Item" in client.get_item(TableName=table, Key={"partition": {"S": "large"}}, ConsistentRead=True)
        aws.close()
        LocalAws(folder(bare), environ=bare).stop()


def fill(path: Path) -> None:
    """Write to the file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


def test_removed_state(bare: dict[str, str]) -> None:
    """If the state file is removed while the engine runs, mints fail instead of issuing unrecorded tickets."""
    assert run(bare, "next", "--local").stdout == "1\n"
    (folder(bare) / "state.db").unlink()
    refused = run(bare, "next", "--local", "--timeout", "2")
    assert (refused.returncode, refused.stdout) == (7, "")
    assert "cannot save its state" in refused.stderr
    down = run(bare, "local", "down")
    assert (down.returncode, engines_of(bare)) == (3, set())
    assert down.stderr.endswith("was removed while the engine ran: its counters are lost\n")


def test_removed_state_beside_its_journal(bare: dict[str, str]) -> None:
    """If the state file is removed after a kill, the journal shows that there was one: no counter starts again at 1."""
    assert run(bare, "next", "--local").stdout == "1\n"
    os.kill(next(iter(engines_of(bare))), signal.SIGKILL)
    (folder(bare) / "state.db").unlink()
    refused = run(bare, "next", "--local")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "state.db: it is empty" in refused.stderr
    assert run(bare, "local", "reset", "--yes").returncode == 0
    assert run(bare, "next", "--local").stdout == "1\n"


def test_removed_journal(bare: dict[str, str]) -> None:
    """If the journal is removed while the engine runs, mints fail instead of issuing tickets that a kill would lose."""
    assert run(bare, "next", "--local").stdout == "1\n"
    (folder(bare) / "state.db-wal").unlink()
    refused = run(bare, "next", "--local", "--timeout", "2")
    assert (refused.returncode, refused.stdout) == (7, "")
    assert "cannot save its state" in refused.stderr
    assert run(bare, "local", "down").returncode == 0
    assert run(bare, "next", "--local").stdout == "2\n"


def test_damaged_state_stops_the_start(bare: dict[str, str]) -> None:
    """If the state file is damaged, the command fails and names the file; it never starts again at 1."""
    assert run(bare, "next", "--local").stdout == "1\n"
    run(bare, "local", "down")
    (folder(bare) / "state.db").write_bytes(b"no database" * 1000)
    damaged = run(bare, "next", "--local")
    assert (damaged.returncode, damaged.stdout) == (3, "")
    reason = f"the state cannot be opened: {folder(bare)}/state.db: file is not a database"
    assert damaged.stderr.startswith(f"error: the embedded AWS did not start; its log ends with: {reason}\n")


def test_emptied_state_stops_the_start(tmp_path: Path) -> None:
    """A file without content is no new one: its counters would start again at 1."""
    path = tmp_path / "state.db"
    path.touch()
    with pytest.raises(StoreError, match=r"state\.db: it is empty"):
        Store(path)


def test_state_of_a_newer_release_stops_the_start(tmp_path: Path) -> None:
    """A file that a newer ticketctl wrote is not opened, and not changed."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {FORMAT + 1}")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"state\\.db: it was written by a newer ticketctl \\(format {FORMAT + 1}"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_created_is_not_left_behind(tmp_path: Path) -> None:
    """If the first start fails, the next one is a first start."""
    (tmp_path / "state.db-journal").mkdir()  # so SQLite cannot write
    with pytest.raises(StoreError):
        Store(tmp_path / "state.db")
    (tmp_path / "state.db-journal").rmdir()
    Store(tmp_path / "state.db").close()


def test_cut_record(tmp_path: Path) -> None:
    """If the last record was cut off, all earlier records are kept."""
    path = tmp_path / "state.db"
    store = Store(path)
    for number in (1, 2, 3):
        store.write({}, [ItemChange(TABLE, '"p"', '""', json.dumps({"n": number}))], replaces_items=False)
    log = path.with_name("state.db-wal")
    whole = log.read_bytes()
    store.write({}, [ItemChange(TABLE, '"p"', '""', json.dumps({"n": 4}))], replaces_items=False)
    longer = log.read_bytes()
    killed = tmp_path / "killed"
    killed.mkdir()
    for cut in range(len(whole), len(longer), 97):
        (killed / "state.db").write_bytes(path.read_bytes())
        (killed / "state.db-wal").write_bytes(longer[:cut] + b"\xff" * 50)
        survivor = Store(killed / "state.db")
        assert [json.loads(change.item or "")["n"] for change in survivor.items()] == [3]
        survivor.close()
    store.close()


def test_write_is_whole_or_not_there(tmp_path: Path) -> None:
    """Documents and items are written together; if the write fails, the old ones are kept."""
    store = Store(tmp_path / "state.db")
    store.write({"iam": "{}"}, [ItemChange(TABLE, '"p"', '""', "1")], replaces_items=False)

    def failing() -> Iterator[ItemChange]:
        yield ItemChange(TABLE, '"q"', '""', "1")
        raise OSError("no more")

    with pytest.raises(StoreError, match=r"state\.db: no more"):
        store.write({"iam": "changed"}, failing(), replaces_items=True)
    assert (store.services(), [change.partition_key for change in store.items()]) == ({"iam": "{}"}, ['"p"'])
    store.close()

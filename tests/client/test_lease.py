"""``lease``: numbers from memory, and no duplicates in spite of failures."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory_counter import NOT_MINTED, UNKNOWN, Background, Clock, Mint
from ticketctl.client.buffer import LockedIterator
from ticketctl.client.lease import Lease
from ticketctl.errors import AccessError, NotMintedError, OutcomeUnknownError, UsageError
from ticketctl.models import Block


def take(lease: Lease, count: int) -> list[int]:
    return [next(lease) for _ in range(count)]


def leased(mint: Mint, block_size: int = 16, *, background: Background | None = None) -> Lease:
    return Lease(mint, block_size=block_size, spawn=background or Background())


def test_numbers_come_in_order() -> None:
    """A loop gets the numbers in order, across blocks."""
    assert list(islice(leased(Mint(), 10), 35)) == list(range(1, 36))


def test_numbers_move_in_their_lane() -> None:
    """A lease yields the numbers of its blocks, with the counter's increment."""
    mint = Mint()

    def every_third(count: int, key: str) -> Block:
        block = mint(count, key)
        return Block("orders", first=3 * block.first, last=3 * block.last, count=count, increment=3)

    lease = Lease(every_third, block_size=4, spawn=Background())
    assert take(lease, 6) == [3, 6, 9, 12, 15, 18]


def test_next_and_loops_draw_from_the_same_numbers() -> None:
    """``next`` and several loops over one lease never get the same number."""
    lease = leased(Mint())
    one, other = iter(lease), iter(lease)
    assert [next(lease), next(one), next(other), next(one), next(lease)] == [1, 2, 3, 4, 5]


def test_a_loop_that_is_left_loses_nothing() -> None:
    """After a loop was left, the lease continues with the next number."""
    lease = leased(Mint(), 100)
    for number in lease:
        if number == 42:
            break
    assert next(lease) == 43


@pytest.mark.parametrize(("block_size", "taken"), [(16, 2), (10_000, 1250), (9, 2), (2, 1)])
def test_the_next_block_is_minted_ahead(block_size: int, taken: int) -> None:
    """The next block is requested when an eighth of a block is used, and not earlier."""
    mint = Mint()
    lease = leased(mint, block_size)
    take(lease, taken)
    assert mint.sizes == [block_size]
    next(lease)
    assert mint.sizes == [block_size, block_size]


def test_nothing_is_minted_before_it_is_needed() -> None:
    """A lease mints nothing until a number is requested."""
    mint = Mint()
    assert (leased(mint).close(), mint.calls) == (0, [])


def test_each_block_has_a_key_of_its_own() -> None:
    """Each block has a different key; otherwise two blocks would be the same."""
    mint = Mint()
    take(leased(mint, 4), 40)
    keys = [key for _, key in mint.calls]
    assert len(set(keys)) == len(keys) > 10


# --- outages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [NOT_MINTED, UNKNOWN], ids=repr)
def test_a_short_outage_is_not_noticed(failure: Exception) -> None:
    """If a background mint fails, it is retried while there are numbers, and the caller does not notice."""
    mint = Mint()
    lease = leased(mint, 16)
    take(lease, 2)
    mint.failures = [failure] * 6
    assert take(lease, 30) == list(range(3, 33))


@pytest.mark.parametrize("failure", [NOT_MINTED, UNKNOWN], ids=repr)
def test_a_longer_outage_raises_its_error(failure: Exception) -> None:
    """When all numbers are used up, ``next`` and loops raise the error; later calls retry."""
    mint = Mint()
    lease = leased(mint, 16)
    take(lease, 2)
    mint.failures = [failure] * 10
    assert take(lease, 14) == list(range(3, 17))
    for _ in range(10 - 7):
        with pytest.raises(type(failure)) as caught:
            next(lease)
        assert caught.value is failure
    assert list(islice(lease, 5)) == [17, 18, 19, 20, 21]


FINAL = [AccessError("forbidden"), ValueError("a bug")]


@pytest.mark.parametrize("failure", FINAL, ids=repr)
def test_no_mint_ahead_after_a_final_error(failure: Exception) -> None:
    """After an error that is not an outage, the lease mints only when no number is left, once per call."""
    mint = Mint()
    lease = leased(mint, 16)
    take(lease, 2)
    mint.failures = [failure] * 3
    assert take(lease, 14) == list(range(3, 17))
    for calls in (2, 3, 4):
        with pytest.raises(type(failure)):
            next(lease)
        assert len(mint.calls) == calls
    assert list(islice(lease, 16)) == list(range(17, 33))
    assert len(mint.calls) == 6  # it mints ahead again


@pytest.mark.parametrize("failure", [NOT_MINTED, *FINAL], ids=repr)
def test_a_loop_can_continue_after_an_error(failure: Exception) -> None:
    """An iterator that raised an error can be used again: its next call retries."""
    mint = Mint()
    mint.failures = [failure]
    numbers = iter(leased(mint, 16))
    with pytest.raises(type(failure)):
        next(numbers)
    assert list(islice(numbers, 20)) == list(range(1, 21))


def test_an_unknown_outcome_loses_no_number() -> None:
    """A retry has the same key, so a lost answer loses no number."""
    mint = Mint()
    lease = leased(mint, 16)
    mint.failures = [UNKNOWN]
    with pytest.raises(OutcomeUnknownError):
        next(lease)
    mint.failures = [NOT_MINTED]
    with pytest.raises(NotMintedError):
        next(lease)
    assert next(lease) == 1
    assert len(set(mint.calls)) == 1


def test_one_more_mint_before_the_error() -> None:
    """If a background mint fails after the numbers are used up, one more mint is tried before the error is raised."""
    mint, background = Mint(), Background()
    lease = leased(mint, 16, background=background)
    take(lease, 2)
    background.paused = True
    assert next(lease) == 3
    mint.failures = [NOT_MINTED]
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(take, lease, 20)
        while mint.last < 32:  # the mint of the waiting call
            background.run()
        assert rest.result() == list(range(4, 24))
    assert mint.failures == []


# --- closing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "left"), [(0, 0), (1, 15), (2, 14), (3, 29), (16, 16), (17, 15)])
def test_close_says_what_is_left(taken: int, left: int) -> None:
    """``close`` returns how many numbers are left, also when called again; these are never handed out."""
    lease = leased(Mint())
    take(lease, taken)
    assert (lease.close(), lease.close()) == (left, left)


def test_close_waits_for_a_block_under_way() -> None:
    """``close`` waits for a block that is being minted and counts it."""
    mint, started, go_on = Mint(), threading.Event(), threading.Event()

    def slowly(count: int, key: str) -> Block:
        if mint.calls:
            started.set()
            go_on.wait()
        return mint(count, key)

    lease = Lease(slowly, block_size=16)
    take(lease, 3)
    started.wait()
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(lease.close)
        go_on.set()
        assert closing.result() == 29


def test_a_closed_lease_hands_out_nothing() -> None:
    """After ``close``, ``next`` and loops raise an error, also those that were waiting."""
    with leased(Mint()) as lease:
        loop = iter(lease)
        assert next(loop) == 1
    for numbers in (lease, loop, iter(lease)):
        with pytest.raises(UsageError, match="closed"):
            next(numbers)


# --- the size of blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_second", "size"), [(0.001, 100), (1, 100), (10, 600), (100, 6000), (1000, 10_000), (10**9, 10_000)]
)
def test_a_block_lasts_about_a_minute(per_second: float, size: int) -> None:
    """The next block has as many tickets as ``seconds`` need at the current rate, within the limits."""
    mint, clock = Mint(), Clock()
    lease = Lease(mint, clock=clock, spawn=Background())
    take(lease, 1250)
    clock.now += 1250 / per_second
    next(lease)
    assert mint.sizes == [10_000, pytest.approx(size, abs=1)]


def test_a_block_grows_again() -> None:
    """The size of blocks follows the rate, down and up."""
    mint, clock = Mint(), Clock()
    lease = Lease(mint, clock=clock, seconds=10.0, spawn=Background())
    for number in islice(lease, 20_000):
        clock.now += 1.0 if number < 10_000 else 0.001
    assert mint.sizes[:2] == [10_000, 100]
    assert mint.sizes[-1] == pytest.approx(10_000, abs=1)


def test_a_small_block_size_bounds_every_block() -> None:
    """No block is larger than ``block_size``, even if ``min_block`` is larger."""
    mint = Mint()
    take(leased(mint, 7), 50)
    assert set(mint.sizes) == {7}


@pytest.mark.parametrize(
    "sizes",
    [{"block_size": 0}, {"block_size": 10_001}, {"min_block": 0}, {"seconds": 0.0}, {"seconds": float("nan")}],
    ids=repr,
)
def test_invalid_sizes(sizes: dict[str, float]) -> None:
    """An invalid size is an error before anything is minted."""
    mint = Mint()
    with pytest.raises(UsageError):
        Lease(mint, **sizes)  # type: ignore[arg-type]
    assert mint.calls == []


# --- threads ------------------------------------------------------------------------------------------


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Make Python switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("block_size", [3, 100])
def test_threads_share_a_lease(block_size: int) -> None:
    """Eight threads, some with ``next`` and some with loops, get every number exactly once, each in ascending order."""
    mint = Mint()
    lease = Lease(mint, block_size=block_size, min_block=block_size)

    def with_next() -> list[int]:
        return take(lease, 1000)

    def with_a_loop() -> list[int]:
        return list(islice(lease, 1000))

    def with_short_loops() -> list[int]:
        return [number for _ in range(100) for number in islice(lease, 10)]

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(draw) for draw in [with_next, with_a_loop, with_short_loops, with_next] * 2]
        drawn = [job.result() for job in jobs]
    numbers = sorted(number for part in drawn for number in part)
    assert numbers == list(range(1, 8001))
    assert all(part == sorted(part) for part in drawn)
    assert lease.close() == mint.last - len(numbers)


@pytest.mark.usefixtures("hasty_threads")
def test_closing_while_threads_draw() -> None:
    """Every minted number is either handed out once or counted by ``close``."""
    mint = Mint()
    lease = Lease(mint, block_size=50)
    begun = threading.Barrier(9)

    def draw() -> list[int]:
        numbers: list[int] = []
        begun.wait()
        with suppress(UsageError):
            while True:
                numbers.append(next(lease))
        return numbers

    def draw_in_a_loop() -> list[int]:
        numbers: list[int] = []
        begun.wait()
        with suppress(UsageError):
            for number in lease:
                numbers.append(number)  # noqa: PERF402 - extend would lose them when the lease is closed
        return numbers

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(draw) for _ in range(4)] + [pool.submit(draw_in_a_loop) for _ in range(4)]
        begun.wait()
        while mint.last < 5000:
            pass
        left = lease.close()
        numbers = sorted(number for job in jobs for number in job.result())
    assert len(set(numbers)) == len(numbers) == mint.last - left


@pytest.mark.usefixtures("hasty_threads")
def test_an_outage_reaches_every_thread_that_waits() -> None:
    """Eight threads that wait during eight failed mints all get a number in the end, and none hangs."""
    mint = Mint()
    mint.failures = [NOT_MINTED] * 8
    lease = Lease(mint, block_size=16)

    def draw() -> int:
        while True:
            with suppress(NotMintedError):
                return next(lease)

    with ThreadPoolExecutor(8) as pool:
        assert sorted(job.result() for job in [pool.submit(draw) for _ in range(8)]) == list(range(1, 9))


@pytest.mark.usefixtures("hasty_threads")
def test_numbers_without_a_gil() -> None:
    """The iterator for a Python without a GIL gives each number to only one thread."""
    numbers = LockedIterator(range(20_000))
    with ThreadPoolExecutor(4) as pool:
        drawn = [number for part in pool.map(lambda _: list(numbers), range(4)) for number in part]
    assert sorted(drawn) == list(range(20_000))


# --- any sequence -------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.integers(1, 30)),
        st.tuples(st.just("loop"), st.integers(1, 30)),
        st.tuples(st.just("fail"), st.integers(1, 12)),
        st.tuples(st.just("lose"), st.integers(1, 12)),
        st.tuples(st.just("wait"), st.integers(0, 100)),
    ),
    max_size=40,
)


@given(block_size=st.integers(1, 40), min_block=st.integers(1, 40), steps=STEPS)
def test_any_sequence_has_no_duplicates(block_size: int, min_block: int, steps: list[tuple[str, int]]) -> None:
    """Numbers ascend without a gap through every outage, and all minted numbers are handed out or left."""
    mint, clock = Mint(), Clock()
    lease = Lease(mint, block_size=block_size, min_block=min_block, clock=clock, spawn=Background())
    numbers: list[int] = []
    for step, amount in steps:
        match step:
            case "next":
                with suppress(NotMintedError, OutcomeUnknownError):
                    for _ in range(amount):
                        numbers.append(next(lease))  # noqa: PERF401 - what came before an error counts
            case "loop":
                with suppress(NotMintedError, OutcomeUnknownError):
                    for number in islice(lease, amount):
                        numbers.append(number)  # noqa: PERF402 - the same
            case "fail":
                mint.failures += [NOT_MINTED] * amount
            case "lose":
                mint.failures += [UNKNOWN] * amount
            case "wait":
                clock.now += amount
    assert numbers == list(range(1, len(numbers) + 1))
    lost = mint.last - len(numbers) - lease.close()
    assert lost in (0, mint.calls[-1][0] if mint.calls else 0)
    assert max(mint.sizes, default=0) <= block_size


# --- processes ----------------------------------------------------------------------------------------

COUNTER = """
import fcntl, os, signal, sys, threading, time
from itertools import islice
from ticketctl.client.lease import Lease
from ticketctl.models import Block

def mint(count, key):
    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    last = int(os.pread(file, 20, 0) or 0)
    os.pwrite(file, str(last + count).encode(), 0)
    fcntl.flock(file, fcntl.LOCK_UN)  # closing the file does not, if a child has inherited it
    os.close(file)
    return Block("orders", last + 1, last + count, count, 1)
"""


def run(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that mints from a counter in a file."""
    file = tmp_path / "script.py"
    file.write_text(COUNTER + script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(file), str(tmp_path / "counter")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def numbers_in(run: subprocess.CompletedProcess[str]) -> list[int]:
    assert run.returncode == 0, run.stderr
    return [int(number) for number in run.stdout.split()]


FORKS = {
    "next": """
lease = Lease(mint, block_size=40)
mine = [next(lease) for _ in range(10)]
children = 0
for _ in range(3):
    if os.fork() == 0:
        print(*(next(lease) for _ in range(100)), flush=True)
        os._exit(0)
    mine += [next(lease) for _ in range(10)]
for _ in range(3):
    assert os.wait()[1] == 0
print(*mine)
""",
    "in the middle of a loop": """
lease = Lease(mint, block_size=40)
mine, parent = [], os.getpid()
for number in lease:
    mine.append(number)
    if len(mine) in (10, 15, 100) and os.getpid() == parent and os.fork() == 0:
        mine = []
    if len(mine) == 200:
        break
if os.getpid() == parent:
    for _ in range(3):
        assert os.wait()[1] == 0
print(*mine, flush=True)
""",
    "while threads draw": """
lease = Lease(mint, block_size=40)
drawn = [[] for _ in range(4)]
running = True
def draw(numbers):
    while running:
        numbers.extend(islice(lease, 7))
        numbers.append(next(lease))
threads = [threading.Thread(target=draw, args=(numbers,)) for numbers in drawn]
sys.setswitchinterval(1e-6)
for thread in threads:
    thread.start()
children = []
for _ in range(20):
    if (child := os.fork()) == 0:
        sys.setswitchinterval(0.005)
        print(*(next(lease) for _ in range(100)), flush=True)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
running = False
for thread in threads:
    thread.join()
print(*(number for numbers in drawn for number in numbers))
""",
    "while a block is under way": """
slow = threading.Event()
def slowly(count, key):
    if threading.current_thread() is not threading.main_thread() and slow.is_set():
        time.sleep(0.3)
    return mint(count, key)
lease = Lease(slowly, block_size=40)
mine = [next(lease) for _ in range(5)]
slow.set()
mine.append(next(lease))
if os.fork() == 0:
    slow.clear()
    print(*(next(lease) for _ in range(100)), flush=True)
    os._exit(0)
mine += [next(lease) for _ in range(200)]
assert os.wait()[1] == 0
print(*mine)
""",
    "multiprocessing": """
import multiprocessing
lease = Lease(mint, block_size=40)
def work(_):
    return [next(lease) for _ in range(100)]
next(lease)
with multiprocessing.get_context("fork").Pool(3) as pool:
    for part in pool.map(work, range(6), chunksize=1):
        print(*part)
print(*work(0))
""",
}


@pytest.mark.parametrize("script", FORKS.values(), ids=FORKS)
def test_a_forked_child_never_gets_its_parents_numbers(script: str, tmp_path: Path) -> None:
    """A parent and its children never get the same number, wherever the fork happens."""
    numbers = numbers_in(run(script, tmp_path))
    assert len(numbers) >= 200
    assert len(set(numbers)) == len(numbers)


def test_a_lease_cannot_be_sent_to_another_process(tmp_path: Path) -> None:
    """A lease cannot be pickled, so "spawn" cannot pass it to another process, and it is not copied by accident."""
    ended = run("import pickle\npickle.dumps(Lease(mint))", tmp_path)
    assert "cannot pickle" in ended.stderr


INTERRUPTED = """
class Interrupted(Exception):
    pass

def interrupt(_, frame):
    if "/ticketctl/" in frame.f_code.co_filename:  # threading's own locks do not outlive this
        raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
lease = Lease(mint, block_size=16, spawn=lambda work: work())
numbers, interruptions = [], 0
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
while len(numbers) < 20000:
    try:
        numbers.append(next(lease))
    except Interrupted:
        interruptions += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert interruptions > 10, interruptions
print(*numbers)
"""


def test_a_signal_handler_that_raises_makes_no_duplicate(tmp_path: Path) -> None:
    """An exception from a signal handler may lose numbers, but there are no duplicates, and the lease continues."""
    numbers = numbers_in(run(INTERRUPTED, tmp_path))
    assert len(set(numbers)) == len(numbers) == 20_000


DRAWS_IN_A_HANDLER = """
from ticketctl.errors import UsageError

lease = Lease(mint, block_size=3, min_block=3)
numbers, refusals, handled = [], 0, 0

def draw(*_):
    global refusals, handled
    handled += 1
    try:
        numbers.append(next(lease))
    except UsageError:
        refusals += 1

signal.signal(signal.SIGALRM, draw)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
while handled < 3000:
    number = next(lease)
    numbers.append(number)
signal.setitimer(signal.ITIMER_REAL, 0)
assert 0 < refusals < handled, (refusals, handled)
print(*numbers)
"""


def test_a_signal_handler_that_draws_never_hangs(tmp_path: Path) -> None:
    """A signal handler gets a number, or a ``UsageError`` if it interrupted the lease itself; no duplicates."""
    numbers = numbers_in(run(DRAWS_IN_A_HANDLER, tmp_path))
    assert len(set(numbers)) == len(numbers) > 0


HANGS = """
def hangs(count, key):
    if key not in seen and seen:
        under_way.set()
        time.sleep(3600)
    seen.add(key)
    return mint(count, key)
seen, under_way = set(), threading.Event()
lease = Lease(hangs, block_size=16)
for _ in range(3):
    print(next(lease))
under_way.wait()
"""
WAITS = """
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
for number in lease:
    pass
"""


@pytest.mark.parametrize(
    ("end", "returncode", "last_line"),
    [
        ("", 0, ""),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
        (WAITS, -signal.SIGINT, "KeyboardInterrupt"),
    ],
    ids=["ends", "Ctrl-C", "Ctrl-C while it waits for a block"],
)
def test_a_program_ends_with_a_block_under_way(end: str, returncode: int, last_line: str, tmp_path: Path) -> None:
    """A lease whose mint hangs blocks neither the end of a program nor Ctrl-C."""
    ended = run(HANGS + end, tmp_path)
    assert (ended.returncode, ended.stdout) == (returncode, "1\n2\n3\n")
    assert (ended.stderr.splitlines() or [""])[-1] == last_line


def test_numbers_while_python_shuts_down(tmp_path: Path) -> None:
    """If no thread can be started, the thread that needs a block mints it."""
    script = """
import atexit
lease = Lease(mint, block_size=10)
atexit.register(lambda: print(*islice(lease, 35)))
"""
    assert numbers_in(run(script, tmp_path)) == list(range(1, 36))

"""The handler compared with the article's: same Python, same table, one embedded AWS, a new process each time."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.table import Row
from tests.support.function_url import event
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.session import Session
from ticketctl.embedded.engine import Engine, LocalAws
from ticketctl.handler import bundle_root
from ticketctl.settings import resolve

COLD_RUNS = 15
WARM_RUNS = 5
WARM_MINTS = 500
ARTICLE = Path(__file__).with_name("article_handler.py")
# The peak is read from the process's own memory map, because ru_maxrss starts with the parent's value after a fork.
CHILD = """
import json, resource, sys, time, types
folder, event, mints, keyed = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "keyed"
context = types.SimpleNamespace(aws_request_id="r", get_remaining_time_in_millis=lambda: 10_000)
sys.path.insert(0, folder)
began = time.process_time()
from index import handler
first = json.loads(handler(event, context)["body"])["hand_crafted_int"]
cold = time.process_time() - began
for _ in range(min(mints, 50)):
    handler(event, context)
began = time.process_time()
for number in range(mints):
    if keyed:
        event["headers"]["idempotency-key"] = f"once:{number}"
    last = handler(event, context)
warm = time.process_time() - began
if mints:
    assert json.loads(last["body"])["hand_crafted_int"] == first + mints + 50, last
try:
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
except FileNotFoundError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"cold": cold * 1e3, "warm": warm * 1e3 / max(mints, 1), "peak": peak}))
"""
Figures = Mapping[str, float]
Measure = Callable[..., Figures]
"""``(folder, mints, keyed=False)``."""


def rows() -> Iterator[Row]:
    """Measure cold start, warm mint and memory; the handlers alternate, so that both run under the same conditions."""
    with measuring() as (measure, ours, theirs):
        cold = [(measure(ours, 0), measure(theirs, 0)) for _ in range(COLD_RUNS)]
        runs = [
            (measure(ours, WARM_MINTS), measure(ours, WARM_MINTS, keyed=True), measure(theirs, WARM_MINTS))
            for _ in range(WARM_RUNS)
        ]
    warm, keyed = [(plain, article) for plain, _, article in runs], [(ours, article) for _, ours, article in runs]
    yield row("handler: import and first mint, CPU", cold, "cold", "ms", 0.25)
    yield row("handler: each further mint, CPU", warm, "warm", "ms", 0.45)
    yield row("handler: each further mint with a key, CPU", keyed, "warm", "ms", 0.45)
    yield row(f"handler: peak memory, {WARM_MINTS} mints", warm, "peak", "MiB", 0.6)


def row(what: str, runs: list[tuple[Figures, Figures]], name: str, unit: str, target: float) -> Row:
    """A row with the medians of one figure over all runs."""
    ours, theirs = (median(figures[name] for figures in side) for side in zip(*runs, strict=True))
    return Row(what, ours, theirs, unit, target)


@contextmanager
def measuring() -> Iterator[tuple[Measure, Path, Path]]:
    """Deploy the stack ``Tickets``; yield a function that measures a handler on it, and both handlers' folders."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        environ = {"PATH": os.environ["PATH"], "HOME": name, "TICKETCTL_HOME": name}
        local = LocalAws(home / "local", environ=environ)
        try:
            engine = local.ensure()
            with RegionalStack(Session(resolve({"local": True}, environ), environ=environ)) as connection:
                table = connection.locator.look_up().table
            # As in Lambda, the handler is index.py and is not compiled in advance.
            folders = [home / "ours", home / "theirs"]
            for folder, handler in zip(folders, (bundle_root() / "lambda" / "create_ticket.py", ARTICLE), strict=True):
                folder.mkdir()
                shutil.copyfile(handler, folder / "index.py")
            yield measure_with(lambda_environment(engine, table)), folders[0], folders[1]
        finally:
            local.stop()


def lambda_environment(engine: Engine, table: str) -> dict[str, str]:
    """The environment variables of both handlers."""
    return {
        **engine.variables("us-east-1"),
        "TABLE_NAME": table,
        "DEFAULT_PARTITION": "us-east-1",
        "OFFSET": "1",
        "INCREMENT": "1",
        "MAX_COUNT": "10000",
    }


def measure_with(environ: dict[str, str]) -> Measure:
    """Return a function that runs a folder's handler in a new process and returns CPU (ms) and memory (MiB)."""

    def measure(folder: Path, mints: int, *, keyed: bool = False) -> Figures:
        command = [sys.executable, "-I", "-B", "-c", CHILD, str(folder), json.dumps(event()), str(mints)]
        command.append("keyed" if keyed else "")
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        figures: Figures = json.loads(run.stdout)
        return figures

    return measure

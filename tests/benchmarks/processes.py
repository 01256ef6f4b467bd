"""Measuring whole processes: time, CPU and memory."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

LAUNCHER = """
import json, os, sys, time
nowhere = os.open(os.devnull, os.O_WRONLY)
began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - began
print(json.dumps([wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss / 1024]))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Starts a command from a small process, because the measured peak of a child is at least its parent's."""


@dataclass(frozen=True)
class Cost:
    """The cost of a process: wall-clock and CPU time in milliseconds, peak memory in MiB."""

    wall: float
    cpu: float
    peak: float


def run(command: Sequence[str], environ: Mapping[str, str], *, cwd: str | None = None) -> Cost:
    """Run a command to its end and discard its output; raise an error if it fails."""
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(launch, env=dict(environ), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return Cost(*json.loads(done.stdout))


def taking_turns(commands: Mapping[str, Sequence[str]], environ: Mapping[str, str], *, runs: int) -> dict[str, Cost]:
    """Return the medians of several runs of each command, which alternate so that conditions are the same."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            costs[name].append(run(command, environ))
    return {name: middle(each) for name, each in costs.items()}


def middle(costs: Iterable[Cost]) -> Cost:
    """Return the median of each figure."""
    several = list(costs)
    return Cost(*(median(getattr(cost, figure) for cost in several) for figure in ("wall", "cpu", "peak")))

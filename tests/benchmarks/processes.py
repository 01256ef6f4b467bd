"""Measuring whole processes: how long they take, how much CPU and memory."""

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Cost:
    """What a process cost: wall-clock and CPU time in milliseconds, the peak of its memory in MiB."""

    wall: float
    cpu: float
    peak: float


def run(command: Sequence[str], environ: Mapping[str, str], *, cwd: str | None = None) -> Cost:
    """Run a command to its end, its output into a file that is thrown away; raises where it fails."""
    began = time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:  # a file, as a pipe would add its reader's time
        process = subprocess.Popen(command, env=dict(environ), cwd=cwd, stdout=nowhere, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {said.decode()}")
    wall = (time.perf_counter() - began) * 1e3
    return Cost(wall, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss / 1024)


def taking_turns(commands: Mapping[str, Sequence[str]], environ: Mapping[str, str], *, runs: int) -> dict[str, Cost]:
    """The medians of so many runs of each command; they take turns, so that all meet the same machine."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            costs[name].append(run(command, environ))
    return {name: middle(each) for name, each in costs.items()}


def middle(costs: Iterable[Cost]) -> Cost:
    """The median of each figure."""
    several = list(costs)
    return Cost(*(median(getattr(cost, figure) for cost in several) for figure in ("wall", "cpu", "peak")))

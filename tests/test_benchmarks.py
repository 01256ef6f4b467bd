"""The table of the benchmarks: the text of a row, for any figures."""

import subprocess
import sys

import pytest

from tests.benchmarks.table import Row


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        (Row("a", 1.0, 4.0, "ms", 0.25), ("a", "1 ms", "4 ms", "0.25", "≤ 0.25", "met")),
        (Row("a", 1.1, 4.0, "ms", 0.25), ("a", "1.1 ms", "4 ms", "0.28", "≤ 0.25", "MISSED")),
        (Row("a", 30.0, 3.0, "k/s", 10, at_least=True), ("a", "30 k/s", "3 k/s", "10.00", "≥ 10", "met")),
        (Row("a", 2.9, 3.0, "k/s", 10, at_least=True), ("a", "2.9 k/s", "3 k/s", "0.97", "≥ 10", "MISSED")),
    ],
)
def test_a_row_says_whether_its_target_is_met(row: Row, cells: tuple[str, ...]) -> None:
    """A target is an upper or lower bound of the ratio, and a row that misses its target says so."""
    assert row.cells() == cells


def test_an_unknown_benchmark_is_named() -> None:
    """A mistyped module name is an error on one line that lists the existing ones."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "nothing"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("no benchmark nothing; there is handler")

"""Figures side by side: ours and what it is compared with, measured in one run.

``python -m tests.benchmarks`` prints the table, ``python -m tests.benchmarks handler`` some modules' rows.
A module of this package with ``rows() -> Iterator[Row]`` stands in ``__main__.MODULES``.
"""

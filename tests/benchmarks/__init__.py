"""Benchmarks that measure ticketctl and an alternative in one run.

``python -m tests.benchmarks`` prints the table, ``python -m tests.benchmarks handler`` the rows of some modules.
Each module of this package that has ``rows() -> Iterator[Row]`` is listed in ``__main__.MODULES``.
"""

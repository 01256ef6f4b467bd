"""``python -m tests.benchmarks [MODULE ...]``: run the benchmarks, and print each row when it is measured."""

import sys
from importlib import import_module

from tests.benchmarks.table import HEADER, line

MODULES = ("handler", "commands", "library")
BY_NAME = ("claims",)
"""Only if named: they need Java, and minutes."""


def main(names: list[str]) -> int:
    """Print the rows of the named modules, or of all; exit code 1 if a target is missed."""
    if unknown := set(names) - {*MODULES, *BY_NAME}:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(MODULES + BY_NAME)}")
    print(line(HEADER), flush=True)  # noqa: T201 - the table is what this program is for
    met = True
    for name in names or MODULES:
        for row in import_module(f"tests.benchmarks.{name}").rows():
            print(line(row.cells()), flush=True)  # noqa: T201 - the same
            met = met and row.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

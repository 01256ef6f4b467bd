"""How much the tests with no natural end try: examples, kills, mints with faults.

``TICKETCTL_TEST_EFFORT=10`` multiplies the numbers by ten and draws new examples in each run; Hypothesis prints how to
repeat a failure. By default every run has the same examples.
"""

import os

EFFORT = float(os.environ.get("TICKETCTL_TEST_EFFORT") or 1)
DERANDOMIZED = EFFORT == 1


def times(count: int) -> int:
    """Return the number multiplied by the variable, and at least 1."""
    return max(1, round(count * EFFORT))

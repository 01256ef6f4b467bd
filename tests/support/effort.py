"""How much the tests try that could try for ever: examples, kills, mints with faults.

``TICKETCTL_TEST_EFFORT=10`` multiplies them by ten and draws new examples in each run; Hypothesis prints how to
repeat a failure. Without it every run draws the same examples.
"""

import os

EFFORT = float(os.environ.get("TICKETCTL_TEST_EFFORT") or 1)
DERANDOMIZED = EFFORT == 1


def times(count: int) -> int:
    """So many by default, more or fewer by the variable, but one at least."""
    return max(1, round(count * EFFORT))

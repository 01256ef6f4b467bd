"""Calling several regions at the same time, and what it means if some of them fail."""

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from ticketctl.errors import PartialError, TicketctlError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Outcomes = Mapping[str, Answer | TicketctlError]
"""The answer or the error of each region, by its name."""


def side_by_side(each: Mapping[str, Asked], call: Callable[[Asked], Answer]) -> Outcomes[Answer]:
    """Call for each region at the same time; the answers or errors by region."""

    def attempt(asked: Asked) -> Answer | TicketctlError:
        try:
            return call(asked)
        except TicketctlError as error:
            return error

    if len(each) == 1:
        return {name: attempt(asked) for name, asked in each.items()}
    outcomes: dict[str, Answer | TicketctlError] = {}
    bugs: list[Exception] = []

    def work(name: str, asked: Asked) -> None:
        try:
            outcomes[name] = attempt(asked)
        except Exception as bug:
            bugs.append(bug)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in each.items()]  # Ctrl-C leaves them
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
    return {name: outcomes[name] for name in each}


def succeeded(outcomes: Outcomes[Answer]) -> dict[str, Answer]:
    """The answers of the regions that did not fail."""
    return {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, TicketctlError)}


def failures(outcomes: Outcomes[Answer]) -> dict[str, TicketctlError]:
    """The errors of the regions that failed."""
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, TicketctlError)}


def raise_first_failure(outcomes: Outcomes[Answer]) -> dict[str, Answer]:
    """The answers; raises the first error if there is any."""
    for error in failures(outcomes).values():
        raise error
    return succeeded(outcomes)


def raise_failures(outcomes: Outcomes[Answer], what: str) -> None:
    """Raise ``PartialError`` if some regions failed, or the first error if all did."""
    failed = failures(outcomes)
    if not failed:
        return
    if len(failed) == len(outcomes):
        raise next(iter(failed.values()))
    done = ", ".join(succeeded(outcomes))
    why = "; ".join(f"{name}: {error.message}" for name, error in failed.items())
    hint = next((error.hint for error in failed.values() if error.hint), "")
    raise PartialError(f"{what} in {done}, but not in {why}", hint=hint)

"""Detects a counter that moved back since the last deployment from this machine: its table was restored, or is new.

The last tickets are in a cache: without it there is no warning, and never an error.
"""

import itertools
import shlex
from collections.abc import Callable, Mapping

from ticketctl.counters.survey import SCRATCH, Survey
from ticketctl.deployments.cache import TicketsCache, cache_path, key_of
from ticketctl.deployments.outcomes import succeeded
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.errors import NotDeployedError
from ticketctl.settings import Settings

MOST = 1_000
"""How many counters of a table are read and cached: the first of a scan, whose order does not change."""


class LastTickets:
    """The last ticket of each counter by region, as the tables have them when a deployment begins.

    ``found``: what was read of the tables already, if several regions share the sequence.
    """

    def __init__(self, regions: Regions, found: Survey | None) -> None:
        self._regions = regions
        if found is None:
            self._now: Mapping[str, Mapping[str, int]] = succeeded(regions.each(_read))
        else:
            self._now = {name: _in_region(found, name) for name in regions.names if name not in regions.unread}

    def warn_of_older(self, warn: Callable[[str], None]) -> None:
        """Warn about each counter that is behind its last ticket at the last deployment."""
        for region, now in self._now.items():
            all_are_known = len(now) < MOST
            for name, before in _cache(self._regions.at(region)).get(_key(self._regions.at(region))).items():
                last = now.get(name)
                if (last is None and all_are_known) or (last is not None and last < before):
                    warn(_older(self._regions.home.settings, region, name, before, last))

    def remember(self) -> None:
        """Cache the last tickets as those of the last deployment."""
        for region, now in self._now.items():
            _cache(self._regions.at(region)).put(_key(self._regions.at(region)), now)


def forget(stack: RegionalStack) -> None:
    """Forget the counters of a region whose table is deleted."""
    _cache(stack).put(_key(stack), {})


def _older(settings: Settings, region: str, name: str, before: int, last: int | None) -> str:
    now = "does not exist" if last is None else f"is at {last}"
    options = f" --stack {settings.stack}" * (settings.stack != "Tickets") + " --local" * settings.local
    return (
        f"the counter {name!r} in {region} {now}, but at the last deployment from here it was at {before}: "
        "if its table was restored or recreated, it mints numbers again. Before anything mints, move it past the "
        f"largest number in use: ticketctl counter advance {shlex.quote(name)} --to N{options}"
    )


def _read(stack: RegionalStack) -> Mapping[str, int]:
    try:
        counters = list(itertools.islice(stack.session.counters(stack.settings.stack).all(), MOST))
    except NotDeployedError:  # the table is deleted, and with it every counter
        return {}
    return {counter.partition: counter.last for counter in counters if not SCRATCH.fullmatch(counter.partition)}


def _in_region(found: Survey, region: str) -> Mapping[str, int]:
    holdings = [entry.holding for lanes in found.entries.values() for entry in lanes if entry.region == region]
    return {held.counter.partition: held.counter.last for held in holdings[:MOST] if held is not None}


def _cache(stack: RegionalStack) -> TicketsCache:
    return TicketsCache(cache_path("tickets.json", stack.session.environ, stack.session.note), stack.session.note)


def _key(stack: RegionalStack) -> str:
    settings = stack.settings
    return key_of(
        stack=settings.stack,
        region=stack.region,
        local=settings.local,
        endpoint=settings.endpoint_url,
        profile=settings.profile,
        environ=stack.session.environ,
    )

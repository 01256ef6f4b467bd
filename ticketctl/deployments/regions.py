"""A stack in all its regions: calling them at the same time, minting with failover, and finding the regions."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ticketctl.deadline import Deadline
from ticketctl.deployments.cache import Note, RegionsCache, TicketsCache, cache_path, key_of
from ticketctl.deployments.outcomes import Outcomes, failures, raise_first_failure, side_by_side, succeeded
from ticketctl.deployments.regional_stack import RegionalStack, max_block
from ticketctl.errors import NotDeployedError, NotMintedError, RefusedError, TicketctlError
from ticketctl.minting import failover
from ticketctl.minting.failover import Failover
from ticketctl.minting.source import CONNECT_SECONDS
from ticketctl.models import MintRequest, StackOutputs
from ticketctl.settings import Settings, resolve

if TYPE_CHECKING:
    from ticketctl.counters.survey import Member
    from ticketctl.counters.table import Counters

Answer = TypeVar("Answer")


class Regions:
    """The regions that the settings name, in their order; threads may mint from them at once.

    ``home`` is the connection to the first of them. ``note`` gets a line about each skipped region.
    """

    def __init__(
        self,
        home: RegionalStack,
        *,
        environ: Mapping[str, str],
        spread: bool = False,
        note: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.home = home
        self.names = home.settings.regions
        self._environ = environ
        self._note = note
        self.warn = warn
        self._lock = threading.RLock()
        self._stacks = dict.fromkeys(self.names[:1], home)
        self.mint = Failover(self._able, spread=spread, note=note).mint
        """Take tickets from the first region that gives them."""
        self.unread: dict[str, TicketctlError] = {}
        """The regions that ``members`` and ``elsewhere`` could not read, and why."""

    def close(self) -> None:
        """Close the connections to all regions."""
        self.home.close()

    def at(self, region: str) -> RegionalStack:
        """The connection to a region."""
        with self._lock:
            if region not in self._stacks:
                self._stacks[region] = self.home.in_region(region)
            return self._stacks[region]

    def _able(self, request: MintRequest) -> Sequence[RegionalStack]:
        """The regions that may serve a request, in their order."""
        if request.partition in self.names:  # the name of a region's default counter, which only that region has
            return [self.at(request.partition)]
        if request.is_typed or len(self.names) < 2:  # the receipt of a typed key is in the first region
            return [self.home]
        return [self.at(name) for name in self.names]

    def look_up(self) -> None:
        """Look up the stack again in every region that answers."""
        self.each(lambda stack: stack.locator.look_up())

    def max_block(self, deadline: Deadline) -> int:
        """The most tickets that one mint can take in every region that can tell."""
        if len(self.names) < 2:
            return max_block(self.home, deadline)
        known = self.each(lambda stack: max_block(stack, deadline))
        sizes = [size for size in known.values() if isinstance(size, int)]
        return min(sizes) if sizes else raise_first_failure(known)[self.names[0]]

    def each(self, call: Callable[[RegionalStack], Answer], regions: Iterable[str] | None = None) -> Outcomes[Answer]:
        """Call for each region at the same time; the answer or the error of each, in their order."""
        self.home.settings.require_region()
        names = self.names if regions is None else regions
        connections = {name: self.at(name) for name in names}
        if len(connections) > 1:
            self.home.session.aws.regions()  # create what the threads share before they start
        return side_by_side(connections, call)

    def members(
        self, *, also: Iterable[str] = (), tolerant: bool = False, known: Mapping[str, StackOutputs] | None = None
    ) -> "Sequence[Member]":
        """Every region with a table of this sequence: those named or remembered, and those that their counters name.

        ``also`` are more regions to read. ``tolerant``: warn of those that cannot be read if others can.
        ``known`` are stacks that need no look-up, by region.
        """
        if self.home.table is not None:
            return [self._member_of_table(self.home.table)]
        names = [*self.names, *self.before(), *also]
        found: dict[str, tuple[Member, frozenset[str]] | None] = {}
        while new := [name for name in dict.fromkeys(names) if name not in found]:
            outcomes = self.each(partial(self._member, known=known or {}), new)
            failed = failures(outcomes)
            for name, error in failed.items():
                if not tolerant or not (found or succeeded(outcomes)):
                    raise error
                self.warn(f"{name} cannot be read: {error.message}")
            self.unread |= failed
            found |= succeeded(outcomes) | dict.fromkeys(failed)
            names += sorted(other for there in found.values() if there for other in there[1])
        return [there[0] for name in dict.fromkeys(names) if (there := found[name])]

    def _member_of_table(self, table: str) -> "Member":
        """A table that was named. ``RefusedError`` if it is a part of a sequence: the other regions must be asked."""
        from ticketctl.counters.handover import sharing_regions
        from ticketctl.counters.lanes import Lane
        from ticketctl.counters.survey import Member

        counters = self.home.session.counters(table)
        others = sorted(sharing_regions(counters) - {self.home.region})
        if others:
            raise RefusedError(
                f"the table {table} shares its sequence with {', '.join(others)}", hint="use --stack instead of --table"
            )
        return Member(counters, Lane(1, 1))

    def _member(
        self, stack: RegionalStack, known: Mapping[str, StackOutputs]
    ) -> "tuple[Member, frozenset[str]] | None":
        """A region, and those that its default counter names; ``None`` if it has no table.

        A stack's output names its table. Without a stack, a table that it left has the stack's name.
        """
        from ticketctl.counters.lanes import Lane
        from ticketctl.counters.survey import Member

        named = stack.session.counters(stack.settings.stack)
        try:
            outputs = known.get(stack.region) or stack.locator.describe()
        except (NotDeployedError, RefusedError):  # a stack that is no ticket server: it matters only beside a table
            if _sharing(named) is None:
                return None
            raise
        table = stack.session.counters(outputs.table) if outputs else named
        others = _sharing(table)
        if others is None:
            return None
        if outputs is None:
            return Member(table, retired=True), others
        start = Lane(outputs.offset, outputs.increment) if outputs.offset else None
        return Member(table, start), others

    def account(self) -> str:
        """The account, from the first region that can be reached."""
        for name in self.names[:-1]:
            with suppress(NotMintedError):  # the next region knows the account as well
                return self.at(name).session.aws.account()
        return self.at(self.names[-1]).session.aws.account()

    def elsewhere(self) -> Sequence[str]:
        """All other regions of the account that have a table with the stack's name."""
        from ticketctl.aws.tables import tables_elsewhere

        there, unread = tables_elsewhere(self.home.session.aws, self.home.settings.stack)
        self.unread |= unread
        return there

    def describe_unread(self) -> str:
        """The regions that could not be read, and why."""
        regions: dict[str, list[str]] = {}
        for name, error in self.unread.items():
            regions.setdefault(error.message, []).append(name)
        return "; ".join(f"{', '.join(names)} ({why})" for why, names in regions.items())

    def before(self) -> tuple[str, ...]:
        """The regions of the last deployment, from the cache."""
        return deployed_before(vars(self.home.settings), self._environ)

    def remember(self, regions: Sequence[str]) -> None:
        """Remember the regions of the stack if there are, or were, several."""
        key = _regions_key(vars(self.home.settings), self._environ)
        _regions_cache(self._environ, self._note).put(key, regions if len(regions) > 1 or self.before() else ())


def _sharing(table: "Counters") -> frozenset[str] | None:
    """The regions that the default counter of a table names; ``None`` if there is no such table."""
    from ticketctl.counters.handover import sharing_regions

    try:
        return sharing_regions(table)
    except NotDeployedError:
        return None


def resolve_settings(flags: Mapping[str, Any], environ: Mapping[str, str], note: Note = lambda line: None) -> Settings:
    """The settings from flags, the environment, files, and the regions of the last deployment."""

    def profile_region(profile: str | None) -> str | None:
        from ticketctl.aws.credentials import profile_region

        return profile_region(profile)

    return resolve(
        flags, environ, profile_region=profile_region, deployed=lambda values: deployed_before(values, environ, note)
    )


def connect_seconds(settings: Settings) -> float:
    """The seconds that one connection may take: fewer if there is another region to try."""
    return failover.FAILOVER_CONNECT_SECONDS if len(settings.regions) > 1 else CONNECT_SECONDS


def deployed_before(
    values: Mapping[str, Any], environ: Mapping[str, str], note: Note = lambda line: None
) -> tuple[str, ...]:
    """The regions of the last deployment of the stack in ``values``; see ``settings.resolve``."""
    return _regions_cache(environ, note).get(_regions_key(values, environ))


def forget_embedded(environ: Mapping[str, str]) -> None:
    """Forget the regions and counters of stacks in the embedded AWS, after it was reset."""
    _regions_cache(environ).forget_embedded()
    TicketsCache(cache_path("tickets.json", environ, lambda line: None)).forget_embedded()


def _regions_cache(environ: Mapping[str, str], note: Note = lambda line: None) -> RegionsCache:
    return RegionsCache(cache_path("regions.json", environ, note), note)


def _regions_key(values: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    return key_of(
        stack=values["stack"],
        local=values["local"],
        endpoint=values["endpoint_url"],
        profile=values["profile"],
        environ=environ,
    )

"""One stack in one region, and the source of its tickets: its Function URL or its table."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ticketctl.deadline import Deadline
from ticketctl.deployments.claims import StackClaims
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.session import Session
from ticketctl.deployments.spread import Spreading
from ticketctl.errors import NotDeployedError, TicketctlError, UnreachableError
from ticketctl.minting.retry import LEAST_SECONDS
from ticketctl.minting.source import Source, host_of
from ticketctl.models import Block, Counter, MintRequest, StackOutputs

if TYPE_CHECKING:
    from ticketctl.aws.account import Aws
    from ticketctl.counters.table import Counters
    from ticketctl.http_client import HttpClient
    from ticketctl.minting.function_url import FunctionUrl


class RegionalStack:
    """One stack in the region of a session, which is closed with it. Threads may mint from it at once.

    ``table``: mint from this table, whether or not a stack owns it; default: that of the settings. The lane in which
    its default counter would start is unknown, so the counter must exist, unless the user typed --table.
    """

    def __init__(
        self, session: Session, *, table: str | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.session = session
        self.settings = session.settings
        self.locator = Locator(session)
        self.table = table or self.settings.table
        self._may_begin = table is None and self.settings.origins.get("table") == "--table"
        self._sleep = sleep
        self._open_source: tuple[Source, int] | None = None
        self._http: HttpClient | None = None
        self.claims = StackClaims(session, self.locator, self.table)
        self._opening = threading.RLock()  # one thread opens the source for all
        self._opened = ExitStack()
        self._opened.callback(session.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def in_region(self, region: str) -> "RegionalStack":
        """The same stack in another region; closed together with this one."""
        return self._opened.enter_context(RegionalStack(self.session.in_region(region)))

    @property
    def region(self) -> str:
        """The name of its region."""
        return self.settings.require_region()

    @property
    def named_region(self) -> str | None:
        """The region that tickets come from; a URL that was typed may be anywhere."""
        return None if self.settings.url else self.settings.region

    @property
    def place(self) -> str:
        """The name of a possible gap: the region, or the host of a typed URL."""
        return host_of(self.settings.url) if self.settings.url else self.region

    def url(self) -> str:
        """The Function URL; with ``--local`` on the engine's current port. Raises an error if there is none."""
        return self._url_of(self.locator.locate().outputs)

    def _url_of(self, outputs: StackOutputs) -> str:
        if outputs.url is None:
            raise NotDeployedError(
                f"the stack {outputs.stack} in {outputs.region} is table-only: it has no Function URL, "
                "and tickets are minted from its table",
                hint=f"ticketctl deploy --region {outputs.region}",
            )
        if (endpoint := self.session.aws.endpoint_url) is None:
            return outputs.url
        from ticketctl.embedded.engine import reachable_url

        return reachable_url(outputs.url, endpoint)

    def mints_from_table(self, deadline: Deadline) -> bool:
        """Whether tickets come from the table: as the settings say, or because the stack has no URL."""
        if self.table is not None or self.settings.via == "dynamodb":
            return True
        if self.settings.requires_url:
            return False
        with self.session.starting(deadline):
            return self.locator.locate(deadline).outputs.url is None

    def attempt(self, request: MintRequest, deadline: Deadline, *, looks_up: bool) -> Block:
        """Take tickets in one attempt.

        The cached stack may be stale: if the source denies the request, or is unreachable and ``looks_up`` is true,
        CloudFormation is asked once, and then the source is tried again.
        """
        source, generation = self._source(deadline)
        try:
            block = source.mint(request, deadline)
        except TicketctlError as error:
            if isinstance(error, UnreachableError) and not looks_up:
                raise
            block, generation = self._mint_again(error, source, generation, request, deadline)
        self.locator.mark_working(generation)
        return replace(block, region=self.named_region)

    def _mint_again(
        self, error: TicketctlError, source: Source, generation: int, request: MintRequest, deadline: Deadline
    ) -> tuple[Block, int]:
        """Take tickets after ``error``, and the generation that gave them.

        If the stack was just deployed, a refusal is retried for a few seconds, and only then is it looked up.
        """
        spreading = Spreading(self.locator, deadline)
        while (pause := spreading.pause_after(error)) is not None:
            self._sleep(pause)
            try:
                return source.mint(request, deadline), generation
            except TicketctlError as later:
                error = later
        source, generation = self._source_after(error, generation, deadline)
        return source.mint(request, deadline), generation

    def counter(self, partition: str | None, deadline: Deadline) -> Counter:
        """Read a counter through the source."""
        source, generation = self._source(deadline)
        try:
            counter = source.counter(partition, deadline)
        except TicketctlError as error:
            source, generation = self._source_after(error, generation, deadline)
            counter = source.counter(partition, deadline)
        self.locator.mark_working(generation)
        return replace(counter, region=self.named_region)

    def counters(self) -> "Counters":
        """The counters of the table: the one that was named, or the stack's, as CloudFormation describes it.

        Raises ``RefusedError`` if the table that was named has another key.
        """
        if self.table is None:
            return self.session.counters(self.locator.confirm().table)
        counters = self.session.counters(self.table)
        counters.require_key()
        return counters

    def function_url(self, deadline: Deadline) -> tuple["FunctionUrl", int]:
        """The Function URL with its signer, and the generation of the stack that it is from."""
        from ticketctl.minting.function_url import FunctionUrl

        if self.settings.url:
            url, signs_at_once, generation = self.settings.url, False, self.locator.generation
        else:
            with self.session.starting(deadline):
                located = self.locator.locate(deadline)
                if located.outputs.url is None and not located.is_confirmed:  # the function may have been added
                    self.locator.look_up(deadline)
                    located = self.locator.locate(deadline)
                url = self._url_of(located.outputs)
            signs_at_once, generation = located.outputs.auth != "NONE", located.generation
        signer = cache(lambda: self._signer(url))
        function_url = FunctionUrl(
            url,
            sign=lambda *request: signer().signed_headers(*request),
            signs_at_once=signs_at_once,
            place=self.named_region,
        )
        return function_url, generation

    def _signer(self, url: str) -> "Aws":
        """Who signs for a Function URL: its host names its region."""
        host = urlsplit(url).hostname or ""
        _, _, rest = host.partition(".lambda-url.")
        if not self.settings.url or not rest:
            return self.session.aws
        from ticketctl.aws.account import Aws

        first = not self.settings.has_explicit_profile
        return Aws(rest.partition(".")[0], profile=self.settings.profile, environment_first=first)

    def _source(self, deadline: Deadline) -> tuple[Source, int]:
        """The source, and the generation of the stack that it was opened with."""
        with self.session.holding(self._opening, deadline):
            if self._open_source is None or self._open_source[1] != self.locator.generation:
                by_table = self.mints_from_table(deadline)
                self._open_source = self.table_source(deadline) if by_table else self._url_source(deadline)
            return self._open_source

    def _source_after(self, error: TicketctlError, generation: int, deadline: Deadline) -> tuple[Source, int]:
        """The source after a look-up of the stack; raises ``error`` if a retry cannot help, or would be too short."""
        helps = self.table is None and self.locator.refresh_after(error, generation, deadline)
        if not helps or deadline.left() < LEAST_SECONDS:
            raise error
        return self._source(deadline)

    def _url_source(self, deadline: Deadline) -> tuple[Source, int]:
        from ticketctl.http_client import HttpClient
        from ticketctl.minting.function_url import UrlSource

        function_url, generation = self.function_url(deadline)
        if self._http is None:
            self._http = HttpClient(direct=self.settings.local)
            self._opened.callback(self._http.close)
        return UrlSource(function_url, self._http, connect=self.session.connect), generation

    def table_source(self, deadline: Deadline) -> tuple[Source, int]:
        """The source that mints from the table, and the generation of the stack that it is from."""
        from ticketctl.minting.dynamodb import DynamoDBSource

        with self.session.starting(deadline):
            if self.table is not None:
                sender, first = self.session.sender(self.table), 1 if self._may_begin else None
                source = DynamoDBSource(sender, self.table, region=self.region, offset=first)
                return source, self.locator.generation
            located = self.locator.locate(deadline)
            known = located.outputs
            source = DynamoDBSource(
                self.session.sender(known.table),
                known.table,
                region=known.region,
                increment=known.increment,
                offset=(known.offset or None) if located.is_confirmed else None,
            )
            return source, located.generation


def max_block(stack: RegionalStack, deadline: Deadline) -> int:
    """The most tickets that one mint can take from a stack."""
    if stack.settings.url or stack.mints_from_table(deadline):
        return 10_000
    with stack.session.starting(deadline):
        return stack.locator.locate(deadline).outputs.max_count

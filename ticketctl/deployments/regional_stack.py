"""One stack in one region: its account, what CloudFormation says of it, and its source of tickets."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ticketctl.aws.account import Aws
from ticketctl.aws.tables import tables_elsewhere
from ticketctl.deadline import Deadline, call_within
from ticketctl.deployments.cache import Note, StackCache, cache_path, key_of
from ticketctl.embedded.engine import LocalAws, reachable_url
from ticketctl.errors import (
    AccessError,
    NoRegionError,
    NotDeployedError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
)
from ticketctl.files import directory
from ticketctl.minting.source import CONNECT_SECONDS, Source, host_of
from ticketctl.models import Block, Counter, MintRequest, StackOutputs
from ticketctl.settings import Settings

if TYPE_CHECKING:
    from ticketctl.aws.cloudformation import CloudFormation
    from ticketctl.aws.dynamodb import SendUntil
    from ticketctl.counters.table import Counters
    from ticketctl.minting.function_url import FunctionUrl

DYNAMODB_SECONDS = 3.0
SDK_SECONDS = (3.0, 1.0, 0.3, 0.1)
_PERHAPS_STALE = (AccessError, NotDeployedError, UnreachableError)


class RegionalStack:
    """One stack in one region, the first that the settings name. Threads may mint from it at once.

    ``report`` is told of what takes a while, ``note`` of what only ``--verbose`` shows. ``connect`` is the seconds
    that one connection may take. ``table``: mint from this table, whether or not a stack owns it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        connect: float = CONNECT_SECONDS,
        report: Callable[[str], None] = lambda line: None,
        table: str | None = None,
        note: Note = lambda line: None,
    ) -> None:
        self.settings = settings
        self._table = table
        self._environ = environ
        self._connect = connect
        self._report = report
        self._note = note
        self._cache = StackCache(cache_path("stacks.json", environ, note), note)
        self._known: StackOutputs | None = None
        self._known_for_sure = False
        self._source_now: Source | None = None
        self._parent: RegionalStack | None = None
        self._opened = ExitStack()
        self._finding = threading.RLock()  # one thread finds the stack for all
        self.looks = 0
        """How often the stack was looked up; a source that was opened before the last look-up may be stale."""
        self.answered = -1
        """After how many looks a source answered last: what answered once may have been replaced since."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def in_region(self, region: str) -> "RegionalStack":
        """The same stack in another region, with the same session; closed together with this one."""
        other = RegionalStack(
            self.settings.in_region(region),
            environ=self._environ,
            connect=self._connect,
            report=self._report,
            note=self._note,
        )
        other._parent = self
        return self._opened.enter_context(other)

    @property
    def region(self) -> str:
        """The name of its region."""
        return self.settings.require_region()

    @cached_property
    def local(self) -> LocalAws:
        """The embedded AWS."""
        return LocalAws(directory("state", self._environ) / "local", environ=self._environ, report=self._report)

    @cached_property
    def aws(self) -> Aws:
        """AWS, or with ``--local`` the embedded AWS, which is started if it is not running."""
        region = self.settings.require_region()
        if self._parent is not None:
            return self._parent.aws.in_region(region)
        if self.settings.local:
            engine = self.local.ensure()
            aws = Aws(region, endpoint_url=engine.endpoint_url, embedded=engine.credentials)
        else:
            aws = Aws(region, profile=self.settings.profile, endpoint_url=self.settings.endpoint_url)
        self._opened.callback(aws.close)
        return aws

    def _follow_engine(self) -> bool:
        """Connect to the engine again if it was restarted, since its key changed; return True if it was."""
        engine = self.local.ensure()
        known = self.__dict__.get("aws")
        if known is None or (known.endpoint_url, known.embedded) == (engine.endpoint_url, engine.credentials):
            return False
        del self.__dict__["aws"]
        if self._parent is not None:
            self._parent._follow_engine()
        return True

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """With ``--local``, hold the lock on deploying; AWS itself keeps two deployments of a stack apart."""
        if not self.settings.local:
            yield
            return
        self.local.ensure()  # which takes the lock itself
        with self.local.exclusively():
            yield

    def cloudformation(
        self,
        report: Callable[[str], None] = lambda line: None,
        *,
        timeout: float = 30.0,
        retries: int = 1,
        deadline: Deadline | None = None,
    ) -> "CloudFormation":
        """CloudFormation in the stack's region; ``timeout`` is in seconds, for each request."""
        from ticketctl.aws.cloudformation import CloudFormation

        client = self.aws.client(
            "cloudformation", timeout=timeout, connect=self._connect, retries=retries, deadline=deadline
        )
        return CloudFormation(client, profile=self.settings.profile, report=report)

    def outputs(self, deadline: Deadline | None = None) -> StackOutputs:
        """The deployed stack, from the cache or else from CloudFormation."""
        if self._known is None:
            self.settings.require_region()
            self._known = self._cache.get(self._key)
        return self._known or self.look_up(deadline)

    def look_up(self, deadline: Deadline | None = None) -> StackOutputs:
        """The deployed stack as CloudFormation says; with ``--local`` it is deployed if it is not."""
        with self._finding:
            if self.settings.local:
                self._follow_engine()
            self._known_for_sure, self._source_now = True, None
            self.looks += 1
            self._known = self.describe(deadline) or (self._deploy_locally() if self.settings.local else None)
            self._cache.put(self._key, self._known)
            if self._known is None:
                raise NotDeployedError(
                    f"the stack {self.settings.stack} is not deployed in {self._account()}/{self.aws.region}",
                    hint="ticketctl deploy",
                )
            return self._known

    def remember(self, outputs: StackOutputs) -> None:
        """Use a stack that CloudFormation has just described, without another look-up."""
        with self._finding:
            self._known, self._known_for_sure, self._source_now = outputs, True, None
            self.looks += 1
            self._cache.put(self._key, outputs)

    def forget(self) -> None:
        """Forget the stack, here and in the cache."""
        self._known, self._source_now = None, None
        self._cache.put(self._key, None)

    def url(self) -> str:
        """The Function URL; with ``--local`` on the engine's current port."""
        return reachable_url(self.outputs().url, self.aws.endpoint_url)

    def attempt(self, request: MintRequest, deadline: Deadline, *, looks_up: bool) -> Block:
        """Take tickets in one attempt.

        What is remembered of the stack may be stale: if the source refuses, or (``looks_up``) is unreachable,
        CloudFormation is asked once, and the source again.
        """
        source, looks = self._source(deadline)
        try:
            block = source.mint(request, deadline)
        except TicketctlError as error:
            if (isinstance(error, UnreachableError) and not looks_up) or not self.refreshed(error, looks, deadline):
                raise
            source, looks = self._source(deadline)
            block = source.mint(request, deadline)
        self.answered = looks
        return replace(block, region=self.named_region)

    def counter(self, partition: str | None, deadline: Deadline) -> Counter:
        """Read a counter through the source."""
        source, looks = self._source(deadline)
        try:
            counter = source.counter(partition, deadline)
        except TicketctlError as error:
            if not self.refreshed(error, looks, deadline):
                raise
            source, looks = self._source(deadline)
            counter = source.counter(partition, deadline)
        self.answered = looks
        return replace(counter, region=self.named_region)

    def counters(self) -> "Counters":
        """The counters of the stack's table, as CloudFormation says now."""
        known = self.outputs() if self._known_for_sure else self.look_up()
        return self.counters_of(known.table)

    def counters_of(self, table: str, *, retries: int = 3) -> "Counters":
        """The counters of a table, whether or not a stack owns it."""
        from ticketctl.counters.table import Counters

        client = self.aws.client("dynamodb", timeout=self.settings.timeout, connect=self._connect, retries=retries)
        return Counters(client, table, region=self.aws.region, profile=self.settings.profile)

    def max_block(self, deadline: Deadline) -> int:
        """The most tickets that one mint can take."""
        if self._table or self.settings.url or self.settings.via == "dynamodb":
            return 10_000
        with self._starting(deadline):
            return self.outputs(deadline).max_count

    @property
    def named_region(self) -> str | None:
        """The region that tickets come from; a URL that was typed may be anywhere."""
        return None if self.settings.url else self.settings.region

    @property
    def place(self) -> str:
        """What a possible gap is named after: the region, or the host of a typed URL."""
        return host_of(self.settings.url) if self.settings.url else self.region

    def refreshed(self, error: TicketctlError, looks: int, deadline: Deadline) -> bool:
        """Refresh a stale stack after ``error``; return True if a retry may help.

        ``looks`` is how often CloudFormation was asked before the source was opened that failed. If CloudFormation
        cannot be asked, ``error`` stays the answer.
        """
        unborn = isinstance(error, UnknownCounterError) and self.settings.via == "dynamodb"
        if self._table or self.settings.url or not (unborn or isinstance(error, _PERHAPS_STALE)):
            return False
        with self._finding, self._starting(deadline):
            if self.looks != looks:
                return True
            if self.settings.local and self._follow_engine():
                self._source_now = None
                self.looks += 1
                return True
            if self._known_for_sure and self.answered != looks:
                return False
            before = self._known
            try:
                after = self.look_up(deadline)
            except NotDeployedError:
                raise
            except TicketctlError:
                return False
            return after != before or unborn

    def _starting(self, deadline: Deadline) -> AbstractContextManager[None]:
        """The embedded AWS may have to start and to deploy the stack first: that time does not count."""
        return deadline.paused() if self.settings.local else nullcontext()

    def _source(self, deadline: Deadline) -> tuple[Source, int]:
        """The source, and how often CloudFormation had been asked when it was opened."""
        with self._finding:
            if self._source_now is None:
                self._source_now = self._open_source(deadline)
            return self._source_now, self.looks

    def _open_source(self, deadline: Deadline) -> Source:
        """The one place that chooses the source."""
        if self._table is not None or self.settings.via == "dynamodb":
            return self._table_source(deadline)
        return self._url_source(deadline)

    def _url_source(self, deadline: Deadline) -> Source:
        from ticketctl.http_client import HttpClient
        from ticketctl.minting.function_url import UrlSource

        source = UrlSource(self.function_url(deadline), HttpClient(direct=self.settings.local), connect=self._connect)
        self._opened.callback(source.close)
        return source

    def function_url(self, deadline: Deadline) -> "FunctionUrl":
        """The Function URL, and who signs for it."""
        from ticketctl.minting.function_url import FunctionUrl

        with self._finding, self._starting(deadline):
            url = self.settings.url or reachable_url(self.outputs(deadline).url, self.aws.endpoint_url)
            signs_at_once = not self.settings.url and self.outputs(deadline).auth != "NONE"
        signer = cache(lambda: self._signer(url))
        return FunctionUrl(
            url,
            sign=lambda *request: signer().signed_headers(*request),
            signs_at_once=signs_at_once,
            place=self.named_region,
        )

    def _table_source(self, deadline: Deadline) -> Source:
        from ticketctl.minting.dynamodb import DynamoDBSource

        with self._starting(deadline):
            if self._table is not None:  # its counter must exist: nothing says in which lane a new one would begin
                return DynamoDBSource(self.sender(self._table), self._table, region=self.region)
            known = self.outputs(deadline)
            return DynamoDBSource(
                self.sender(known.table),
                known.table,
                region=known.region,
                increment=known.increment,
                offset=(known.offset or None) if self._known_for_sure else None,
            )

    def sender(self, table: str) -> "SendUntil":
        """What sends a mint's requests to a table: each once, without the SDK where the credentials need none."""
        from ticketctl.aws.dynamodb import needs_sdk, plain_sender, timed_sdk_sender
        from ticketctl.http_client import HttpClient

        target, timeout = f"the table {table} in {self.region}", min(self.settings.timeout, DYNAMODB_SECONDS)
        if self.aws.plain_credentials is None or (not self.aws.embedded and needs_sdk(self.region, self._environ)):
            return timed_sdk_sender(self.aws, target, timeout=timeout, connect=self._connect)
        transport = HttpClient(direct=self.aws.embedded is not None)
        self._opened.callback(transport.close)
        return plain_sender(self.aws, transport, target, timeout=timeout, connect=self._connect)

    def _signer(self, url: str) -> Aws:
        """Who signs for a Function URL: its host names its region."""
        host = urlsplit(url).hostname or ""
        _, _, rest = host.partition(".lambda-url.")
        if not self.settings.url or not rest:
            return self.aws
        return Aws(rest.partition(".")[0], profile=self.settings.profile)

    def describe(self, deadline: Deadline | None = None) -> StackOutputs | None:
        """The deployed stack as CloudFormation says now, ``None`` if there is none; nothing is deployed or kept.

        Without a ``deadline`` each request has the setting ``timeout``.
        """
        if deadline is None or self.settings.local:
            return self._described(self.settings.timeout, retries=1)
        left = deadline.left()
        try:
            return call_within(deadline, lambda: self._described(left, retries=0))
        except TimeoutError as error:
            raise UnreachableError(f"CloudFormation did not answer: {error}", hint="try again") from error

    def _described(self, timeout: float, *, retries: int) -> StackOutputs | None:
        from ticketctl.aws.cloudformation import outputs_of

        stack = self.cloudformation(timeout=timeout, retries=retries).find_ours(self.settings.stack)
        return None if stack is None or not stack.outputs else outputs_of(stack, self.aws.region)

    def _deploy_locally(self) -> StackOutputs | None:
        """Deploy the stack with its defaults, unless another region has its sequence: its tickets would be repeated."""
        with self.local.exclusively():
            if found := self.describe():
                return found
            is_one = self._parent is None and len(self.settings.regions) == 1
            if not is_one or any(tables_elsewhere(self.aws, self.settings.stack)):
                return None
            self._report(f"deploying {self.settings.stack} into the embedded AWS ({self.aws.region})")
            stacks = self.cloudformation()
            stacks.prepare(self.settings.stack)
            stacks.execute(stacks.plan(self.settings.stack, self.template(), {}))
            return self.describe()

    def template(self) -> str:
        """The template of the stack as it is sent to CloudFormation."""
        from ticketctl.aws.template import as_body, for_embedded, load

        document = load(self.settings.stack)
        return as_body(for_embedded(document, self.region) if self.settings.local else document)

    def _account(self) -> str:
        try:
            return self.aws.account()
        except (AccessError, NoRegionError):
            return "this account"

    @property
    def _key(self) -> str:
        return key_of(
            stack=self.settings.stack,
            region=self.settings.require_region(),
            local=self.settings.local,
            endpoint=self.settings.endpoint_url,
            profile=self.settings.profile,
            environ=self._environ,
        )

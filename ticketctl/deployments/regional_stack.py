"""From settings to something that answers in one region: the account, the deployed stack, a source of tickets."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from ticketctl.aws.account import Aws
from ticketctl.aws.tables import tables_elsewhere
from ticketctl.counters.lanes import Lane
from ticketctl.deployments.cache import StackCache, key_of
from ticketctl.embedded.engine import LocalAws, reachable_url
from ticketctl.errors import (
    AccessError,
    NoRegionError,
    NotDeployedError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
)
from ticketctl.files import cache_file, directory
from ticketctl.minting.retry import call_with_retries
from ticketctl.minting.source import CONNECT_SECONDS, Source
from ticketctl.models import Block, Counter, StackOutputs
from ticketctl.settings import Settings

if TYPE_CHECKING:
    from create_ticket import Send
    from ticketctl.aws.cloudformation import CloudFormation
    from ticketctl.counters.table import Counters
    from ticketctl.minting.function_url import FunctionUrl

Answer = TypeVar("Answer")
DYNAMODB_SECONDS = 3.0
_PERHAPS_STALE = (AccessError, NotDeployedError, UnreachableError)


class RegionalStack:
    """One stack in one region, the first that the settings name. Threads may mint from it at once.

    ``report`` is told of what takes a while. ``connect`` is how many seconds
    it may take to reach something that mints or tells where that is.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        connect: float = CONNECT_SECONDS,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.settings = settings
        self._environ = environ
        self._connect = connect
        self._report = report
        self._cache = StackCache(cache_file("stacks.json", environ))
        self._known: StackOutputs | None = None
        self._known_for_sure = False
        self._source_now: Source | None = None
        self._near: RegionalStack | None = None
        self._opened = ExitStack()
        self._finding = threading.RLock()  # of several threads one finds the stack, and all go on with it
        self.looks = 0
        """How often CloudFormation was asked for the stack: what was opened before the last time may be stale."""
        self.answered = -1
        """After how many looks a source answered last: what answered once may have been replaced since."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened on the way."""
        self._opened.close()

    def in_region(self, region: str) -> "RegionalStack":
        """The same stack in another region, with the same session; closed together with this one."""
        other = RegionalStack(
            self.settings.in_region(region),
            environ=self._environ,
            connect=self._connect,
            report=self._report,
        )
        other._near = self
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
        """AWS, or with ``--local`` the embedded one, which is started if need be."""
        region = self.settings.require_region()
        if self._near is not None:
            return self._near.aws.in_region(region)
        if self.settings.local:
            engine = self.local.ensure()
            aws = Aws(region, endpoint_url=engine.endpoint_url, embedded=engine.credentials)
        else:
            aws = Aws(region, profile=self.settings.profile, endpoint_url=self.settings.endpoint_url)
        self._opened.callback(aws.close)
        return aws

    def _follow_engine(self) -> bool:
        """Whether another engine runs than before; it has another key, and what was made for the old one is dropped."""
        engine = self.local.ensure()
        known = self.__dict__.get("aws")
        if known is None or (known.endpoint_url, known.embedded) == (engine.endpoint_url, engine.credentials):
            return False
        del self.__dict__["aws"]
        if self._near is not None:
            self._near._follow_engine()
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
        self, report: Callable[[str], None] = lambda line: None, *, timeout: float = 30.0, retries: int = 1
    ) -> "CloudFormation":
        """CloudFormation in the stack's region; ``timeout`` is in seconds, for each request."""
        from ticketctl.aws.cloudformation import CloudFormation

        client = self.aws.client("cloudformation", timeout=timeout, connect=self._connect, retries=retries)
        return CloudFormation(client, profile=self.settings.profile, report=report)

    def outputs(self) -> StackOutputs:
        """The deployed stack: as remembered, else as CloudFormation says."""
        if self._known is None:
            self.settings.require_region()
            self._known = self._cache.get(self._key)
        return self._known or self.look_up()

    def look_up(self) -> StackOutputs:
        """The deployed stack as CloudFormation says; with ``--local`` it is deployed where it is not."""
        with self._finding:
            if self.settings.local:
                self._follow_engine()
            self._known_for_sure, self._source_now = True, None
            self.looks += 1
            self._known = self.describe() or (self._deploy_locally() if self.settings.local else None)
            self._cache.put(self._key, self._known)
            if self._known is None:
                raise NotDeployedError(
                    f"the stack {self.settings.stack} is not deployed in {self._account()}/{self.aws.region}",
                    hint="ticketctl deploy",
                )
            return self._known

    def forget(self) -> None:
        """Drop what is remembered of the stack."""
        self._known, self._source_now = None, None
        self._cache.put(self._key, None)

    def url(self) -> str:
        """The Function URL at the address where it can be reached from here."""
        return reachable_url(self.outputs().url, self.aws.endpoint_url)

    def mint(self, count: int, *, key: str | None = None) -> Block:
        """Take ``count`` tickets from the source that the settings name, trying again where that is safe."""
        return call_with_retries(
            lambda within: self.attempt(count, key=key, within=within, looks_up=True),
            timeout=self.settings.timeout,
            keyed=key is not None,
        )

    def attempt(self, count: int, *, key: str | None, within: float, looks_up: bool) -> Block:
        """Take ``count`` tickets in one try of ``within`` seconds.

        ``looks_up``: where nothing can be reached, CloudFormation is asked whether it is elsewhere now.
        """
        partition = self.settings.partition
        block = self._ask(lambda source: source.mint(partition, count, key=key, within=within), looks_up=looks_up)
        return replace(block, region=self.named_region)

    def counter(self) -> Counter:
        """Where the counter stands that the settings name."""
        counter = self._ask(lambda source: source.counter(self.settings.partition))
        return replace(counter, region=self.named_region)

    def counters(self) -> "Counters":
        """The counters of the stack's table, as CloudFormation says now."""
        known = self.outputs() if self._known_for_sure else self.look_up()
        return self.counters_of(known.table, lane=Lane(known.offset or 1, known.increment))

    def counters_of(self, table: str, *, lane: Lane = Lane(1, 1), retries: int = 3) -> "Counters":  # noqa: B008 - frozen
        """The counters of a table, whether or not a stack owns it."""
        from ticketctl.counters.table import Counters

        client = self.aws.client("dynamodb", timeout=self.settings.timeout, connect=self._connect, retries=retries)
        return Counters(client, table, region=self.aws.region, lane=lane, profile=self.settings.profile)

    @property
    def max_block(self) -> int:
        """The most tickets that one mint can take."""
        if self.settings.url or self.settings.via == "dynamodb":
            return 10_000
        return self.outputs().max_count

    @property
    def named_region(self) -> str | None:
        """The region that tickets come from; a URL that was typed may be anywhere."""
        return None if self.settings.url else self.settings.region

    def _ask(self, call: Callable[[Source], Answer], *, looks_up: bool = True) -> Answer:
        """Ask the source. What was remembered may be out of date: then CloudFormation is asked once, and it again."""
        source, looks = self._source()
        try:
            answer = call(source)
        except TicketctlError as error:
            if (isinstance(error, UnreachableError) and not looks_up) or not self.refreshed(error, looks):
                raise
            source, looks = self._source()
            answer = call(source)
        self.answered = looks
        return answer

    def refreshed(self, error: TicketctlError, looks: int) -> bool:
        """Whether to ask again what failed with ``error`` after so many ``looks``: something new is known since.

        If need be CloudFormation is asked; where that fails, ``error`` stays the answer.
        """
        unborn = isinstance(error, UnknownCounterError) and self.settings.via == "dynamodb"
        if self.settings.url or not (unborn or isinstance(error, _PERHAPS_STALE)):
            return False
        with self._finding:
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
                after = self.look_up()
            except NotDeployedError:
                raise
            except TicketctlError:
                return False
            return after != before or unborn

    def _source(self) -> tuple[Source, int]:
        """The source, and after how many looks it was opened."""
        with self._finding:
            if self._source_now is None:
                by_table = self.settings.via == "dynamodb"
                self._source_now = self._table(self.outputs()) if by_table else self._url_source()
            return self._source_now, self.looks

    def _url_source(self) -> Source:
        from ticketctl.http_client import HttpClient
        from ticketctl.minting.function_url import UrlSource

        transport = HttpClient(direct=self.settings.local)
        source = UrlSource(self.function_url(), transport, timeout=self.settings.timeout, connect=self._connect)
        self._opened.callback(source.close)
        return source

    def function_url(self) -> "FunctionUrl":
        """The Function URL, and who signs for it."""
        from ticketctl.minting.function_url import FunctionUrl

        with self._finding:
            url = self.settings.url or self.url()
            signs_at_once = not self.settings.url and self.outputs().auth != "NONE"
        signer = cache(lambda: self._signer(url))
        return FunctionUrl(url, sign=lambda *request: signer().signed_headers(*request), signs_at_once=signs_at_once)

    def _table(self, known: StackOutputs) -> Source:
        from ticketctl.minting.dynamodb import DynamoDBSource

        return DynamoDBSource(
            self.sender(known.table),
            known.table,
            region=known.region,
            increment=known.increment,
            offset=(known.offset or None) if self._known_for_sure else None,
        )

    def sender(self, table: str) -> "Send":
        """What sends a mint's requests to a table: each once, without the SDK where the credentials need none."""
        from ticketctl.aws.dynamodb import needs_sdk, plain_sender, sdk_sender
        from ticketctl.http_client import HttpClient

        target, timeout = f"the table {table} in {self.region}", min(self.settings.timeout, DYNAMODB_SECONDS)
        if self.aws.plain_credentials is None or (not self.aws.embedded and needs_sdk(self.region, self._environ)):
            client = self.aws.client("dynamodb", timeout=timeout, connect=self._connect, retries=0)
            return sdk_sender(client, target, profile=self.settings.profile)
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

    def describe(self) -> StackOutputs | None:
        """The deployed stack as CloudFormation says now, ``None`` where there is none; nothing is deployed or kept."""
        from ticketctl.aws.cloudformation import outputs_of

        stack = self.cloudformation(timeout=self.settings.timeout).find_ours(self.settings.stack)
        return None if stack is None or not stack.outputs else outputs_of(stack, self.aws.region)

    def _deploy_locally(self) -> StackOutputs | None:
        """Deploy it as it is on a bare machine; not where another region has its sequence, which it would repeat."""
        with self.local.exclusively():
            if found := self.describe():
                return found
            is_one = self._near is None and len(self.settings.regions) == 1
            if not is_one or any(tables_elsewhere(self.aws, self.settings.stack)):
                return None
            self._report(f"deploying {self.settings.stack} into the embedded AWS ({self.aws.region})")
            stacks = self.cloudformation()
            stacks.make_ready(self.settings.stack)
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

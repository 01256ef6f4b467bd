"""From settings to something that answers: the account, the deployed stack, a source of tickets."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from ticketctl.aws import Aws
from ticketctl.cache import StackCache
from ticketctl.errors import (
    AccessError,
    NoRegionError,
    NotDeployedError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
)
from ticketctl.files import directory
from ticketctl.local import LocalAws, reachable_url
from ticketctl.models import Block, Counter, StackOutputs
from ticketctl.retry import until_known
from ticketctl.settings import Settings
from ticketctl.sources import Source

if TYPE_CHECKING:
    from ticketctl.cloudformation import CloudFormation
    from ticketctl.counters import Counters
    from ticketctl.sources.url import FunctionUrl

Answer = TypeVar("Answer")
DYNAMODB_SECONDS = 3.0
_PERHAPS_STALE = (AccessError, NotDeployedError, UnreachableError)


class Connection:
    """One stack in one region, as the settings name it. Threads may mint from it at once.

    ``report`` is told of what takes a while, ``warn`` of what the user must know.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        report: Callable[[str], None] = lambda line: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.settings = settings
        self._environ = environ
        self._report = report
        self._warn = warn
        self._cache = StackCache(directory("cache", environ) / "stacks.json")
        self._known: StackOutputs | None = None
        self._known_for_sure = False
        self._source_now: Source | None = None
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

    @cached_property
    def local(self) -> LocalAws:
        """The embedded AWS."""
        return LocalAws(directory("state", self._environ) / "local", environ=self._environ, warn=self._warn)

    @cached_property
    def aws(self) -> Aws:
        """AWS, or with ``--local`` the embedded one, which is started if need be."""
        region = self.settings.require_region()
        if self.settings.local:
            aws = Aws(region, endpoint_url=self.local.ensure().endpoint_url, embedded=True)
        else:
            aws = Aws(region, profile=self.settings.profile, endpoint_url=self.settings.endpoint_url)
        self._opened.callback(aws.close)
        return aws

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """With ``--local``, hold the lock on deploying; AWS itself keeps two deployments of a stack apart."""
        if not self.settings.local:
            yield
            return
        self.local.ensure()  # which takes the lock itself
        with self.local.exclusively():
            yield

    def cloudformation(self, report: Callable[[str], None] = lambda line: None) -> "CloudFormation":
        """CloudFormation in the stack's region."""
        from ticketctl.cloudformation import CloudFormation

        client = self.aws.client("cloudformation", timeout=30.0, retries=1)
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
            self._known_for_sure, self._source_now = True, None
            self.looks += 1
            self._known = self._find() or (self._deploy_locally() if self.settings.local else None)
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

        def attempt(within: float) -> Block:
            return self._ask(lambda source: source.mint(self.settings.partition, count, key=key, within=within))

        return until_known(attempt, timeout=self.settings.timeout, keyed=key is not None)

    def counter(self) -> Counter:
        """Where the counter stands that the settings name."""
        return self._ask(lambda source: source.counter(self.settings.partition))

    def counters(self) -> "Counters":
        """The counters of the stack's table, as CloudFormation says now."""
        known = self.outputs() if self._known_for_sure else self.look_up()
        return self.counters_of(known.table, offset=known.offset, increment=known.increment)

    def counters_of(self, table: str, *, offset: int = 1, increment: int = 1) -> "Counters":
        """The counters of a table, whether or not a stack owns it."""
        from ticketctl.counters import Counters

        client = self.aws.client("dynamodb", timeout=self.settings.timeout)
        return Counters(
            client,
            table,
            region=self.aws.region,
            offset=offset,
            increment=increment,
            profile=self.settings.profile,
        )

    @property
    def max_block(self) -> int:
        """The most tickets that one mint can take."""
        if self.settings.url or self.settings.via == "dynamodb":
            return 10_000
        return self.outputs().max_count

    def _ask(self, call: Callable[[Source], Answer]) -> Answer:
        """Ask the source. What was remembered may be out of date: then CloudFormation is asked once, and it again."""
        source, looks = self._source()
        try:
            answer = call(source)
        except TicketctlError as error:
            if not self.refreshed(error, looks):
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
        from ticketctl.sources.url import UrlSource

        source = UrlSource(self.function_url(), timeout=self.settings.timeout, direct=self.settings.local)
        self._opened.callback(source.close)
        return source

    def function_url(self) -> "FunctionUrl":
        """The Function URL, and who signs for it."""
        from ticketctl.sources.url import FunctionUrl

        with self._finding:
            url = self.settings.url or self.url()
            signs_at_once = not self.settings.url and self.outputs().auth != "NONE"
        signer = cache(lambda: self._signer(url))
        return FunctionUrl(url, sign=lambda *request: signer().signed_headers(*request), signs_at_once=signs_at_once)

    def _table(self, known: StackOutputs) -> Source:
        from ticketctl.sources.dynamodb import DynamoDBSource, sender

        timeout = min(self.settings.timeout, DYNAMODB_SECONDS)
        client = self.aws.client("dynamodb", timeout=timeout, retries=0)  # what mints is sent once
        return DynamoDBSource(
            sender(client, f"the table {known.table} in {known.region}", profile=self.settings.profile),
            known.table,
            region=known.region,
            increment=known.increment,
            offset=known.offset if self._known_for_sure else None,
        )

    def _signer(self, url: str) -> Aws:
        """Who signs for a Function URL: its host names its region."""
        host = urlsplit(url).hostname or ""
        _, _, rest = host.partition(".lambda-url.")
        if not self.settings.url or not rest:
            return self.aws
        return Aws(rest.partition(".")[0], profile=self.settings.profile)

    def _find(self) -> StackOutputs | None:
        from ticketctl.cloudformation import outputs_of

        stack = self.cloudformation().find_ours(self.settings.stack)
        return None if stack is None or not stack.outputs else outputs_of(stack, self.aws.region)

    def _deploy_locally(self) -> StackOutputs | None:
        from ticketctl import template

        with self.local.exclusively():
            if found := self._find():
                return found
            self._report(f"deploying {self.settings.stack} into the embedded AWS ({self.aws.region})")
            stacks = self.cloudformation()
            stacks.make_ready(self.settings.stack)
            stacks.execute(stacks.plan(self.settings.stack, template.as_body(template.load(self.settings.stack)), {}))
            return self._find()

    def _account(self) -> str:
        try:
            return self.aws.account()
        except (AccessError, NoRegionError):
            return "this account"

    @property
    def _key(self) -> str:
        if self.settings.local:
            return StackCache.key(
                stack=self.settings.stack,
                region=self.settings.require_region(),
                endpoint="embedded",
                profile=None,
                environ={},
            )
        return StackCache.key(
            stack=self.settings.stack,
            region=self.settings.require_region(),
            endpoint=self.settings.endpoint_url,
            profile=self.settings.profile,
            environ=self._environ,
        )

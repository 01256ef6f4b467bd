"""The AWS session of one region: its clients, and with ``--local`` the embedded AWS that they talk to."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from ticketctl.deadline import Deadline
from ticketctl.deployments.cache import Note
from ticketctl.files import directory
from ticketctl.minting.source import CONNECT_SECONDS
from ticketctl.settings import Settings

if TYPE_CHECKING:
    from ticketctl.aws.account import Aws
    from ticketctl.aws.cloudformation import CloudFormation
    from ticketctl.aws.dynamodb import SendUntil
    from ticketctl.counters.table import Counters
    from ticketctl.embedded.engine import LocalAws

DYNAMODB_SECONDS = 3.0


class Session:
    """AWS, or with ``--local`` the embedded AWS, in the first region that the settings name. Threads may share it.

    ``report`` gets a line about each step that takes long, ``note`` the lines that only ``--verbose`` shows.
    ``connect`` is the seconds that one connection may take. ``parent`` is the same session in another region.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        connect: float = CONNECT_SECONDS,
        report: Callable[[str], None] = lambda line: None,
        note: Note = lambda line: None,
        parent: "Session | None" = None,
    ) -> None:
        self.settings = settings
        self.environ = environ
        self.connect = connect
        self.report = report
        self.note = note
        self._parent = parent
        self._aws: Aws | None = None
        self._senders: dict[tuple[Aws, str, bool], SendUntil] = {}
        self._lock = threading.RLock()
        self._opened = ExitStack()

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def in_region(self, region: str) -> "Session":
        """The same session in another region, which shares the credentials."""
        return Session(
            self.settings.in_region(region),
            environ=self.environ,
            connect=self.connect,
            report=self.report,
            note=self.note,
            parent=self,
        )

    @property
    def is_only_region(self) -> bool:
        """Whether the settings name this region and no other."""
        return self._parent is None and len(self.settings.regions) == 1

    @property
    def local(self) -> "LocalAws":
        """The embedded AWS."""
        from ticketctl.embedded.engine import LocalAws

        return LocalAws(directory("state", self.environ) / "local", environ=self.environ, report=self.report)

    @property
    def aws(self) -> "Aws":
        """AWS, or with ``--local`` the embedded AWS, which is started if it is not running."""
        with self._lock:
            if self._aws is None:
                self._aws = self._connected()
            return self._aws

    def _connected(self) -> "Aws":
        from ticketctl.aws.account import Aws

        region = self.settings.require_region()
        if self._parent is not None:
            return self._parent.aws.in_region(region)
        if self.settings.local:
            engine = self.local.ensure()
            aws = Aws(region, endpoint_url=engine.endpoint_url, embedded=engine.credentials)
        else:
            aws = Aws(
                region,
                profile=self.settings.profile,
                endpoint_url=self.settings.endpoint_url,
                environment_first=not self.settings.has_explicit_profile,
            )
        self._opened.callback(aws.close)
        return aws

    def follow_engine(self) -> bool:
        """Use the current key of the embedded AWS, which changes with each start; return True if it has changed."""
        engine = self.local.ensure()
        with self._lock:
            known = self._aws
            if known is None or (known.endpoint_url, known.embedded) == (engine.endpoint_url, engine.credentials):
                return False
            self._aws = None
            if self._parent is not None:
                self._parent.follow_engine()
            return True

    def starting(self, deadline: Deadline) -> AbstractContextManager[None]:
        """Pause the deadline with ``--local``: the embedded AWS may have to start and to deploy the stack first."""
        return deadline.paused() if self.settings.local else nullcontext()

    def holding(
        self, lock: "threading.Lock | threading.RLock", deadline: Deadline | None
    ) -> AbstractContextManager[object]:
        """Hold a lock, and wait for it until the deadline; with ``--local`` without a limit, see ``starting``."""
        return lock if deadline is None or self.settings.local else deadline.holding(lock)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """With ``--local``, hold the lock on deployments; AWS itself allows one deployment of a stack at a time."""
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
    ) -> "CloudFormation":
        """CloudFormation in the region; ``timeout`` is in seconds, for each request."""
        from ticketctl.aws.cloudformation import CloudFormation

        client = self.aws.client("cloudformation", timeout=timeout, connect=self.connect, retries=retries)
        return CloudFormation(client, profile=self.settings.profile, report=report)

    def counters(self, table: str) -> "Counters":
        """The counters of a table, whether or not a stack owns it."""
        from ticketctl.counters.table import Counters

        client = self.aws.client("dynamodb", timeout=self.settings.timeout, connect=self.connect)
        return Counters(client, table, region=self.aws.region, profile=self.settings.profile)

    def sender(self, table: str, *, sdk: bool = False) -> "SendUntil":
        """Return a function that sends a mint's requests to a table: each once, without the SDK if it is not needed.

        ``sdk``: always with the SDK, which checks the requests and supports transactions. The same table has the
        same sender again, with its connections.
        """
        with self._lock:
            key = self.aws, table, sdk
            if key not in self._senders:
                self._senders[key] = self._new_sender(table, sdk=sdk)
            return self._senders[key]

    def _new_sender(self, table: str, *, sdk: bool) -> "SendUntil":
        from ticketctl.aws.dynamodb import needs_sdk, plain_sender, timed_sdk_sender
        from ticketctl.http_client import HttpClient

        region = self.settings.require_region()
        target, timeout = f"the table {table} in {region}", min(self.settings.timeout, DYNAMODB_SECONDS)
        if sdk or self.aws.plain_credentials is None or (not self.aws.embedded and needs_sdk(region, self.environ)):
            return timed_sdk_sender(self.aws, target, timeout=timeout, connect=self.connect)
        transport = HttpClient(direct=self.aws.embedded is not None)
        self._opened.callback(transport.close)
        return plain_sender(self.aws, transport, target, timeout=timeout, connect=self.connect)

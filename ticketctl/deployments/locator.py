"""Finds a stack: in the cache or with CloudFormation, which is asked again if the cached stack may be stale."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from ticketctl.aws.sdk_errors import proxies_in_force
from ticketctl.deadline import Deadline, call_within
from ticketctl.deployments.cache import DEPLOYED_SECONDS, DeployedCache, StackCache, cache_path, key_of
from ticketctl.deployments.session import DYNAMODB_SECONDS, Session
from ticketctl.errors import (
    AccessError,
    NotDeployedError,
    RefusedError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
)
from ticketctl.models import StackOutputs
from ticketctl.settings import Settings

_SIGNS_OF_A_STALE_STACK = (AccessError, NotDeployedError, UnreachableError)


class Located(NamedTuple):
    """A stack that was found.

    Its ``generation`` rises with each look-up: what was opened with an older one may be stale. ``is_confirmed``:
    CloudFormation described the stack to this process; otherwise it is from the cache.
    """

    outputs: StackOutputs
    generation: int
    is_confirmed: bool


class Locator:
    """Finds the stack of a session in its region. Threads may share it: one of them looks up for all."""

    def __init__(self, session: Session, *, clock: Callable[[], float] = time.time) -> None:
        self._session = session
        self._clock = clock
        self._settings = session.settings
        self._cache = StackCache(cache_path("stacks.json", session.environ, session.note), session.note)
        self._deployed = DeployedCache(cache_path("deployed.json", session.environ, session.note), session.note)
        self._lock = threading.RLock()
        self._known: StackOutputs | None = None
        self._is_confirmed = False
        self._was_asked = False
        """Whether this process has asked CloudFormation, with or without an answer."""
        self._generation = 0
        self._working_generation = -1

    @property
    def generation(self) -> int:
        """The generation of what is known of the stack; see ``Located``."""
        return self._generation

    def locate(self, deadline: Deadline | None = None) -> Located:
        """The deployed stack, from the cache or else from CloudFormation."""
        with self._session.holding(self._lock, deadline):
            if self._known is None:
                self._known = self._cache.get(self._key)
            known = self._known or self.look_up(deadline)
            return Located(known, self._generation, self._is_confirmed)

    def confirm(self) -> StackOutputs:
        """The deployed stack as CloudFormation has described it to this process."""
        with self._lock:
            located = self.locate()
            return located.outputs if located.is_confirmed else self.look_up()

    def look_up(self, deadline: Deadline | None = None) -> StackOutputs:
        """The deployed stack as CloudFormation describes it now; with ``--local`` it is deployed if it is not."""
        with self._session.holding(self._lock, deadline):
            if self._settings.local:
                self._session.follow_engine()
            self._generation += 1
            self._was_asked = True
            found = self.describe(deadline) or (self._deploy_locally() if self._settings.local else None)
            self._require_no_replicas(found, deadline)
            self._keep(found)
            if found is None:
                raise NotDeployedError(
                    f"the stack {self._settings.stack} is not deployed in {self._account(deadline)}/{self._region}",
                    hint="ticketctl deploy",
                )
            return found

    def _require_no_replicas(self, found: StackOutputs | None, deadline: Deadline | None) -> None:
        """Forget the stack and raise ``RefusedError`` if this process would mint from a copy of a global table.

        A table that cannot be described is not refused, because minting does not need that permission.
        """
        if found is None or self._settings.via != "dynamodb":
            return

        from ticketctl.aws.tables import Tables

        def look() -> None:
            client = self._session.aws.client("dynamodb", timeout=DYNAMODB_SECONDS, retries=0)
            Tables(client, profile=self._settings.profile).require_no_replicas(found.table)

        until = Deadline(DYNAMODB_SECONDS) if deadline is None else deadline.within(DYNAMODB_SECONDS)
        try:
            with suppress(TimeoutError):
                call_within(until, look)
        except RefusedError:
            self._keep(None)
            raise

    def describe(self, deadline: Deadline | None = None) -> StackOutputs | None:
        """The deployed stack as CloudFormation describes it now, ``None`` if there is none; nothing is cached.

        Without a ``deadline`` each request has the setting ``timeout``.
        """
        if deadline is None or self._settings.local:
            return self._described(self._settings.timeout, retries=1)
        left = deadline.left()
        try:
            return call_within(deadline, lambda: self._described(left, retries=0))
        except TimeoutError as error:
            if self._session.aws.asked_source is not None:
                raise self._session.aws.slow_credentials() from None
            what = f"CloudFormation in {self._region} did not answer: {error}{proxies_in_force()}"
            raise UnreachableError(what, hint="try again") from error

    def _described(self, timeout: float, *, retries: int) -> StackOutputs | None:
        from ticketctl.aws.stacks import outputs_of

        stack = self._session.cloudformation(timeout=timeout, retries=retries).find_ours(self._settings.stack)
        return None if stack is None or not stack.outputs else outputs_of(stack, self._region)

    def remember(self, outputs: StackOutputs) -> None:
        """Use a stack that CloudFormation has just described, without another look-up."""
        with self._lock:
            self._generation += 1
            self._was_asked = True
            self._keep(outputs)

    def mark_deployed(self) -> None:
        """Remember that the stack has just been deployed."""
        self._deployed.put(self._key, self._clock())

    def policy_may_spread(self, error: TicketctlError) -> bool:
        """Whether a missing permission may be one of a stack whose deployment has not reached every host of AWS."""
        settings = self._settings
        if type(error) is not AccessError or settings.via != "url" or settings.url or settings.local:
            return False
        return self._deployed.age(self._key, self._clock()) <= DEPLOYED_SECONDS

    def forget(self) -> None:
        """Forget the stack, here and in the cache."""
        with self._lock:
            self._generation += 1
            self._keep(None)

    def mark_working(self, generation: int) -> None:
        """Remember that the stack of that generation answered: if it fails later, it may have been replaced.

        Takes no lock, so that an event loop does not wait for a look-up.
        """
        self._working_generation = generation

    def refresh_after(self, error: TicketctlError, generation: int, deadline: Deadline) -> bool:
        """Look up a stack that may be stale after ``error``; return True if a retry may help.

        ``generation`` is that of the stack that failed. If CloudFormation cannot be asked, a retry does not help.
        """
        is_from_table = self._settings.via == "dynamodb" or (self._known is not None and self._known.url is None)
        has_no_counter = isinstance(error, UnknownCounterError) and is_from_table
        if self._settings.url or not (has_no_counter or isinstance(error, _SIGNS_OF_A_STALE_STACK)):
            return False
        with self._session.holding(self._lock, deadline), self._session.starting(deadline):
            if self._generation != generation:
                return True
            if self._settings.local and self._session.follow_engine():
                self._generation += 1
                return True
            if self._was_asked and self._working_generation != generation:  # another look-up does not help
                return False
            before = self._known
            try:
                after = self.look_up(deadline)
            except NotDeployedError:
                raise
            except TicketctlError:
                return False
            return after != before or has_no_counter

    def _keep(self, outputs: StackOutputs | None) -> None:
        self._known, self._is_confirmed = outputs, outputs is not None
        self._cache.put(self._key, outputs)

    def _deploy_locally(self) -> StackOutputs | None:
        """Deploy the stack with its defaults, unless another region has its sequence: its tickets would be repeated."""
        from ticketctl.aws.tables import tables_elsewhere
        from ticketctl.deployments.adoption import require_importable

        name = self._settings.stack
        with self._session.local.exclusively():
            if found := self.describe():
                return found
            if not self._session.is_only_region or any(tables_elsewhere(self._session.aws, name)):
                return None
            self._session.report(f"deploying {name} into the embedded AWS ({self._region})")
            stacks = self._session.cloudformation()
            stacks.prepare(name)
            require_importable(self._session, stacks)
            stacks.execute(stacks.plan(name, template_body(self._settings), {}))
            return self.describe()

    def _account(self, deadline: Deadline | None) -> str:
        """The account for an error message, which must neither wait for it nor fail because of it."""
        aws = self._session.aws
        try:
            return aws.account() if deadline is None else call_within(deadline, aws.account)
        except (TicketctlError, TimeoutError):
            return "this account"

    @property
    def _region(self) -> str:
        return self._settings.require_region()

    @property
    def _key(self) -> str:
        return key_of(
            stack=self._settings.stack,
            region=self._region,
            local=self._settings.local,
            endpoint=self._settings.endpoint_url,
            profile=self._settings.profile,
            environ=self._session.environ,
        )


def template_body(settings: Settings, table_only: Mapping[str, str] | None = None) -> str:
    """The template of the stack as it is sent to CloudFormation; see ``template.for_table_only``."""
    from ticketctl.aws.template import as_body, for_embedded, for_table_only, load

    document = load(settings.stack)
    if table_only is not None:
        document = for_table_only(document, table_only)
    return as_body(for_embedded(document, settings.require_region()) if settings.local else document)

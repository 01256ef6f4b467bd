"""One AWS account and region: its clients, and the signatures of requests that need no client."""

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

from ticketctl.aws.account_regions import listed_regions
from ticketctl.aws.credentials import LockedSession, embedded_session, profile_session
from ticketctl.aws.sdk_errors import broken_setup, no_credentials, translated_errors
from ticketctl.deadline import Deadline, call_within
from ticketctl.errors import NotMintedError

_PLAIN_URL = re.compile(r"https?://[\w.:-]+(/[\w~-][\w.~-]*)*/?", re.ASCII)  # needs no escaping and no normalization
LISTING_SECONDS = 3.0  # for the list of regions, which a deployment can do without


class Aws:
    """AWS with one profile in one region, or the embedded AWS at ``endpoint_url``.

    ``embedded`` is the embedded AWS's access key and secret: with it, none of the user's credentials and configuration
    are read. ``environment_first``: credentials in the environment come before those of the profile, as with
    ``AWS_PROFILE`` of the AWS CLI. Thread-safe.
    """

    def __init__(
        self,
        region: str,
        *,
        profile: str | None = None,
        endpoint_url: str | None = None,
        embedded: tuple[str, str] | None = None,
        environment_first: bool = False,
    ) -> None:
        self.region = region
        self.profile = profile
        self.endpoint_url = endpoint_url
        self.embedded = embedded
        self._session = LockedSession(
            lambda asking: (
                embedded_session(*embedded)
                if embedded
                else profile_session(profile, asking, environment_first=environment_first)
            )
        )
        self._account_regions: Mapping[str, bool | None] | None = None
        self._opened: WeakSet[Any] = WeakSet()  # a client that nobody uses any more is closed by Python

    def in_region(self, region: str) -> "Aws":
        """The same account in another region, with the same session."""
        other = Aws(region, profile=self.profile, endpoint_url=self.endpoint_url, embedded=self.embedded)
        other._session = self._session
        self._opened.add(other)
        return other

    def regions(self) -> list[str]:
        """Every region that has DynamoDB in the partition (``aws``, ``aws-cn``, …) of this region."""
        with self._session as session:
            partition = session.get_partition_for_region(self.region)
            return list(session.get_available_regions("dynamodb", partition_name=partition))

    def account_regions(self) -> Mapping[str, bool | None]:
        """Every region that may have a table, and whether the account has enabled it; ``None`` if that is unknown.

        AWS is asked once, unless the endpoint is not AWS's: then there is nothing to enable.
        """
        if self._account_regions is None:
            known: dict[str, bool | None] = dict.fromkeys(self.regions())
            if self.embedded is None and self.endpoint_url is None:
                known |= listed_regions(lambda service: self.client(service, timeout=LISTING_SECONDS, retries=0))
            self._account_regions = known
        return self._account_regions

    def client(
        self,
        service: str,
        *,
        timeout: float = 10.0,
        connect: float = 3.0,
        retries: int = 3,
        deadline: Deadline | None = None,
    ) -> Any:
        """Make a botocore client, which looks up credentials.

        ``timeout`` is the seconds for each request, ``retries`` how often the SDK may retry one.
        ``deadline`` bounds the look-up; without it, a user may take time to type an MFA code.
        """
        from botocore.config import Config

        try:
            if deadline is not None:
                call_within(deadline, self.credentials)
        except TimeoutError:
            raise self.slow_credentials() from None
        config = Config(
            connect_timeout=min(timeout, connect),
            read_timeout=timeout,
            retries={"total_max_attempts": 1 + retries, "mode": "standard"},
            proxies={} if self.embedded else None,
            user_agent_extra="ticketctl",
        )
        translated = translated_errors(f"{service} in {self.region}", profile=self.profile)
        with translated, broken_setup(), self._session as session:
            client = session.create_client(
                service, region_name=self.region, endpoint_url=self.endpoint_url, config=config
            )
        self._opened.add(client)
        return client

    def close(self) -> None:
        """Close the connections of every client."""
        with suppress(KeyError):  # until none is left
            while True:
                self._opened.pop().close()

    def account(self) -> str:
        """The account that the credentials belong to."""
        with translated_errors(f"sts in {self.region}", profile=self.profile):
            return str(self.client("sts", timeout=5.0, retries=1).get_caller_identity()["Account"])

    @property
    def plain_credentials(self) -> tuple[str, str, str] | None:
        """Key, secret and token (or "") if they need no look-up: the embedded AWS's, or those of the environment.

        With a profile there are none: see ``Settings.profile``.
        """
        if self.embedded:
            return *self.embedded, ""
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if self.profile is not None or not key or not secret:
            return None
        return key, secret, os.environ.get("AWS_SECURITY_TOKEN") or os.environ.get("AWS_SESSION_TOKEN", "")

    def signed_headers(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: Deadline,
        *,
        service: str = "lambda",
    ) -> dict[str, str]:
        """The headers of a request, signed with SigV4; the deadline bounds the look-up of credentials."""
        plain = self.plain_credentials
        if plain is not None and _PLAIN_URL.fullmatch(url):
            return _signed(method, url, headers, body, plain, (self.region, service))
        try:
            credentials = call_within(deadline, self.credentials)
        except TimeoutError:
            raise self.slow_credentials() from None
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
        SigV4Auth(credentials, service, self.region).add_auth(request)
        return dict(request.headers.items())

    def credentials(self) -> Any:
        """The credentials as they are now, refreshed if they are about to expire."""
        with translated_errors("the credentials", profile=self.profile), broken_setup(), self._session as session:
            credentials = session.get_credentials()
            if credentials is None:
                raise no_credentials(self.profile)
            with self._session.asking(credentials.method):
                return credentials.get_frozen_credentials()

    def credential_source(self) -> str:
        """Where the credentials come from, as botocore names it, such as ``env`` or ``sso``."""
        if self.embedded:
            return "the embedded AWS"
        with translated_errors("the credentials", profile=self.profile), broken_setup(), self._session as session:
            credentials = session.get_credentials()
            if credentials is None:
                raise no_credentials(self.profile)
            return str(credentials.method)

    @property
    def asked_source(self) -> str | None:
        """The credential source that is being asked now."""
        return self._session.source

    def slow_credentials(self) -> NotMintedError:
        """The error if the deadline passed before credentials were found; nothing was sent."""
        hint = "try again with a longer --timeout"
        if self.asked_source is None:
            return NotMintedError("no time was left to send the request; nothing was minted", hint=hint)
        owner = f" of the profile {self.profile!r}" if self.profile else ""
        return NotMintedError(
            f"the AWS credentials{owner} took too long (source: {self.asked_source}); nothing was minted",
            hint=f"{hint}, or check the source with: aws sts get-caller-identity",
        )


def _signed(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: tuple[str, str, str],
    scope: tuple[str, str],
) -> dict[str, str]:
    """The headers, signed by the handler's own code: loading botocore takes longer than a mint."""
    from ticketctl.handler import handler

    parts = urlsplit(url)
    added = {"X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())}
    if credentials[2]:
        added["X-Amz-Security-Token"] = credentials[2]
    # AWS requires only these to be signed; other values may have repeated spaces, which would need normalization.
    lower = {name.lower(): value for name, value in {**headers, **added}.items()}
    aws_headers = {name: value for name, value in lower.items() if name.startswith("x-amz-")}
    authorization = handler.authorization(
        method,
        parts.path or "/",
        {"host": parts.netloc, **aws_headers},
        body,
        credentials=handler.Credentials(*credentials),
        region=scope[0],
        service=scope[1],
    )
    return {**headers, **added, "Authorization": authorization}

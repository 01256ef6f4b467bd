"""One AWS account and region: the session, its clients, its credentials, and its errors in our words."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from ticketctl.errors import (
    AccessError,
    ExpiredCredentialsError,
    FileError,
    NoCredentialsError,
    NotDeployedError,
    NotMintedError,
    OutcomeUnknownError,
    ProfileNotFoundError,
    RefusedError,
    SetupError,
    ThrottledError,
    TicketctlError,
    UnreachableError,
    UsageError,
)

THROTTLES = {"ThrottlingException", "Throttling", "ProvisionedThroughputExceededException", "RequestLimitExceeded"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
NOT_ENABLED = {"UnrecognizedClientException", "InvalidClientTokenId", "OptInRequired"}
"""What AWS answers in a region that the account has not enabled: it does not know the credentials there."""
_DENIED = NOT_ENABLED | {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "NotAuthorized",
}
_PLAIN_URL = re.compile(r"https?://[\w.:-]+(/[\w~-][\w.~-]*)*/?", re.ASCII)  # nothing to escape or to normalise
METADATA_ADDRESS = ("169.254.169.254", 80)
METADATA_SECONDS = 0.25


class Aws:
    """AWS as one profile sees it in one region, or the embedded AWS at ``endpoint_url``.

    ``embedded`` is the embedded AWS's access key and secret: then no credentials and no configuration of the user's
    are read. Safe for threads.
    """

    def __init__(
        self,
        region: str,
        *,
        profile: str | None = None,
        endpoint_url: str | None = None,
        embedded: tuple[str, str] | None = None,
    ) -> None:
        self.region = region
        self.profile = profile
        self.endpoint_url = endpoint_url
        self.embedded = embedded
        self._session = _Once(lambda: _embedded_session(*embedded) if embedded else _session(profile))
        self._opened = ExitStack()

    def in_region(self, region: str) -> "Aws":
        """The same account in another region, with the same session."""
        other = Aws(region, profile=self.profile, endpoint_url=self.endpoint_url, embedded=self.embedded)
        other._session = self._session
        self._opened.callback(other.close)
        return other

    def regions(self) -> list[str]:
        """Every region of this one's partition (``aws``, ``aws-cn``, …) that has DynamoDB."""
        with self._session as session:
            partition = session.get_partition_for_region(self.region)
            return list(session.get_available_regions("dynamodb", partition_name=partition))

    def client(self, service: str, *, timeout: float = 10.0, connect: float = 3.0, retries: int = 3) -> Any:
        """A botocore client. ``timeout`` is in seconds, for each request; ``retries``: what the SDK may resend."""
        from botocore.config import Config

        config = Config(
            connect_timeout=min(timeout, connect),
            read_timeout=timeout,
            retries={"total_max_attempts": 1 + retries, "mode": "standard"},
            proxies={} if self.embedded else None,
            user_agent_extra="ticketctl",
        )
        where = translated_errors(f"{service} in {self.region}", profile=self.profile)
        with where, _broken_setup(), self._session as session:
            client = session.create_client(
                service, region_name=self.region, endpoint_url=self.endpoint_url, config=config
            )
        self._opened.callback(client.close)
        return client

    def close(self) -> None:
        """Close the connections of every client."""
        self._opened.close()

    def account(self) -> str:
        """The account that the credentials belong to."""
        with translated_errors(f"sts in {self.region}", profile=self.profile):
            return str(self.client("sts", timeout=5.0, retries=1).get_caller_identity()["Account"])

    @property
    def plain_credentials(self) -> tuple[str, str, str] | None:
        """Key, secret and token (or "") that need no look-up: the embedded AWS's, or those of the environment."""
        if self.embedded:
            return *self.embedded, ""
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if self.profile is not None or not key or not secret:
            return None
        return key, secret, os.environ.get("AWS_SECURITY_TOKEN") or os.environ.get("AWS_SESSION_TOKEN", "")

    def signed_headers(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, service: str = "lambda"
    ) -> dict[str, str]:
        """The headers of a request, signed with SigV4."""
        plain = self.plain_credentials
        if plain is not None and _PLAIN_URL.fullmatch(url):
            return _signed(method, url, headers, body, plain, (self.region, service))
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        with translated_errors("the credentials", profile=self.profile), _broken_setup(), self._session as session:
            credentials = session.get_credentials()
            if credentials is None:
                raise _no_credentials(self.profile)
            request = AWSRequest(method=method, url=url, data=body, headers=dict(headers))
            SigV4Auth(credentials.get_frozen_credentials(), service, self.region).add_auth(request)
        return dict(request.headers.items())


def _signed(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: tuple[str, str, str],
    scope: tuple[str, str],
) -> dict[str, str]:
    """The same with the handler's own signature: loading botocore takes longer than a mint."""
    from ticketctl.handler import handler

    parts = urlsplit(url)
    added = {"X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())}
    if credentials[2]:
        added["X-Amz-Security-Token"] = credentials[2]
    # AWS wants these signed, and no others: values with spaces in a row would have to be written otherwise.
    amazons = {name.lower(): value for name, value in {**headers, **added}.items() if name.lower().startswith("x-amz-")}
    authorization = handler.authorization(
        method,
        parts.path or "/",
        {"host": parts.netloc, **amazons},
        body,
        credentials=handler.Credentials(*credentials),
        region=scope[0],
        service=scope[1],
    )
    return {**headers, **added, "Authorization": authorization}


class _Once:
    """A botocore session, made when it is first needed; one thread at a time may use it, as botocore wants it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._made: Any = None

    def __enter__(self) -> Any:
        self._lock.acquire()
        try:
            if self._made is None:
                self._made = self._make()
        except BaseException:
            self._lock.release()
            raise
        return self._made

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def profile_region(profile: str | None) -> str | None:
    """The region that the AWS configuration names for a profile."""
    with translated_errors("the AWS configuration", profile=profile), _broken_setup():
        region: str | None = _session(profile).get_config_variable("region")
        return region


class _QuickMetadata:
    """botocore's provider of instance roles behind a quick look whether the instance metadata answers at all.

    Off EC2 nothing does, and botocore waits a second for each of two calls to find that out.
    """

    METHOD = "iam-role"
    CANONICAL_NAME = "Ec2InstanceMetadata"

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def load(self) -> Any:
        """The instance's credentials, ``None`` where there is no instance."""
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        moved = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
        if not any(os.environ.get(name) for name in moved):
            try:
                socket.create_connection(METADATA_ADDRESS, timeout=METADATA_SECONDS).close()
            except OSError:
                return None
        return self._provider.load()


def _session(profile: str | None) -> Any:
    from botocore.exceptions import ProfileNotFound
    from botocore.session import Session

    session = Session(profile=profile)
    try:
        resolver = session.get_component("credential_provider")
    except ProfileNotFound:
        known = ", ".join(session.available_profiles) or "none"
        raise ProfileNotFoundError(
            f"the AWS profile {profile!r} does not exist; there are: {known}", hint="aws configure sso"
        ) from None
    provider = resolver.get_provider(_QuickMetadata.METHOD)
    resolver.insert_before(_QuickMetadata.METHOD, _QuickMetadata(provider))
    resolver.providers.remove(provider)
    return session


def _embedded_session(key: str, secret: str) -> Any:
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as VARIABLES
    from botocore.session import Session

    variables = {name: (None, None, default, None) for name, (_, _, default, _) in VARIABLES.items()}
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = Session(session_vars=variables | files)
    session.set_credentials(key, secret)
    return session


@contextmanager
def _broken_setup() -> Iterator[None]:
    """Botocore lets some faults of files, variables and programs through as they are."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"the AWS configuration cannot be used: {error}", hint="aws configure list") from error


@contextmanager
def translated_errors(target: str, *, profile: str | None = None, spends: bool = False) -> Iterator[None]:
    """Turn what botocore raises into an error of ours. ``spends``: the request may have minted.

    Only what says that nothing was sent, or that AWS refused, counts as not minted.
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        details = error.response.get("Error", {})
        code, message = details.get("Code", ""), details.get("Message", "") or str(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise refused(code, message, status, target=target, profile=profile, spends=spends) from error
    except exceptions.ProfileNotFound as error:
        raise ProfileNotFoundError(str(error)) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise _no_credentials(profile) from error
    except exceptions.CredentialRetrievalError as error:
        raise NoCredentialsError(str(error), hint="mend the profile's credential_process or role") from error
    except (exceptions.TokenRetrievalError, exceptions.SSOError) as error:
        raise _expired(str(error), profile) from error
    except (
        exceptions.EndpointConnectionError,
        exceptions.ConnectTimeoutError,
        exceptions.ProxyConnectionError,
    ) as error:
        raise UnreachableError(f"{target} cannot be reached: {error}{proxies_in_force()}", hint="try again") from error
    except (
        exceptions.HTTPClientError,
        exceptions.SSLError,
        exceptions.ChecksumError,
        ResponseParserError,
    ) as error:
        if spends and "CERTIFICATE_VERIFY_FAILED" not in str(error):  # that one comes before anything is sent
            raise OutcomeUnknownError(
                f"{target} did not answer: {error}; a ticket may have been spent",
                hint="ticketctl status",
            ) from error
        raise UnreachableError(f"{target} did not answer: {error}{proxies_in_force()}", hint="try again") from error
    except exceptions.ConfigParseError as error:
        raise FileError(str(error), hint="mend the file, or name another with AWS_CONFIG_FILE") from error
    except (exceptions.InvalidRegionError, exceptions.InvalidEndpointConfigurationError) as error:
        raise UsageError(str(error)) from error
    except exceptions.BotoCoreError as error:  # nothing of it has to do with an answer
        raise SetupError(str(error), hint="mend the AWS configuration: aws configure list") from error


def refused(code: str, message: str, status: int, *, target: str, profile: str | None, spends: bool) -> TicketctlError:
    """The error for one that AWS answered with. ``spends``: the request may have minted."""
    if code in _EXPIRED:
        return _expired(message, profile)
    if code in _DENIED:
        return AccessError(f"{target}: {message}", hint="ask for this permission, or use another --profile")
    if code == "ResourceNotFoundException":
        return NotDeployedError(f"{target} does not exist", hint="ticketctl deploy")
    if code in THROTTLES:
        return ThrottledError(f"{target}: {code}; nothing was minted", hint="try again")
    if status >= 500 and spends:
        return OutcomeUnknownError(f"{target} failed with {code or status}; a ticket may have been spent")
    if 400 <= status < 500 and not spends:
        return RefusedError(f"{target}: {code}: {message}")
    return NotMintedError(f"{target}: {code}: {message}")


def _no_credentials(profile: str | None) -> NoCredentialsError:
    where = f"the profile {profile!r}" if profile else "the environment, ~/.aws, SSO, containers and instance roles"
    return NoCredentialsError(
        f"no AWS credentials; looked at {where}",
        hint="aws configure sso, or aws login; or try it without AWS: ticketctl next --local",
    )


def _expired(message: str, profile: str | None) -> ExpiredCredentialsError:
    return ExpiredCredentialsError(
        f"the AWS credentials of the profile {profile or 'default'!r} are not valid any more: {message}",
        hint=f"aws sso login --profile {profile or 'default'}",
    )


def proxies_in_force() -> str:
    """The proxies that the environment sets, for an error about a connection; without their passwords."""
    from urllib.request import getproxies

    proxies = ", ".join(f"{scheme}={url.rpartition('@')[2]}" for scheme, url in sorted(getproxies().items()))
    return f" (proxies in force: {proxies})" if proxies else ""

"""One AWS account and region: session, clients, credentials, and the SDK's errors as errors of ticketctl."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from ticketctl.deadline import Deadline, call_within
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
"""AWS's errors in a region that the account has not enabled, which does not know the credentials."""
_DENIED = NOT_ENABLED | {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "NotAuthorized",
}
_HIDDEN = "(invalid URL, not shown)"
_PLAIN_URL = re.compile(r"https?://[\w.:-]+(/[\w~-][\w.~-]*)*/?", re.ASCII)  # needs no escaping and no normalization
METADATA_ADDRESS = ("169.254.169.254", 80)
METADATA_SECONDS = 0.25
Asking = Callable[[str], AbstractContextManager[None]]


class Aws:
    """AWS with one profile in one region, or the embedded AWS at ``endpoint_url``.

    ``embedded`` is the embedded AWS's access key and secret: with it, none of the user's credentials and configuration
    are read. Thread-safe.
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
        self._session = _Session(lambda asking: _embedded_session(*embedded) if embedded else _session(profile, asking))
        self._opened = ExitStack()

    def in_region(self, region: str) -> "Aws":
        """The same account in another region, with the same session."""
        other = Aws(region, profile=self.profile, endpoint_url=self.endpoint_url, embedded=self.embedded)
        other._session = self._session
        self._opened.callback(other.close)
        return other

    def regions(self) -> list[str]:
        """Every region that has DynamoDB in the partition (``aws``, ``aws-cn``, …) of this region."""
        with self._session as session:
            partition = session.get_partition_for_region(self.region)
            return list(session.get_available_regions("dynamodb", partition_name=partition))

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

        ``timeout`` is the seconds for each request, ``retries`` how often the SDK may send one again.
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
        with translated, _broken_setup(), self._session as session:
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
        """Key, secret and token (or "") if they need no look-up: the embedded AWS's, or those of the environment."""
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
        with translated_errors("the credentials", profile=self.profile), _broken_setup(), self._session as session:
            credentials = session.get_credentials()
            if credentials is None:
                raise _no_credentials(self.profile)
            with self._session.asking(credentials.method):
                return credentials.get_frozen_credentials()

    def credential_source(self) -> str:
        """Where the credentials come from, as botocore names it, such as ``env`` or ``sso``."""
        if self.embedded:
            return "the embedded AWS"
        with translated_errors("the credentials", profile=self.profile), _broken_setup(), self._session as session:
            credentials = session.get_credentials()
            if credentials is None:
                raise _no_credentials(self.profile)
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


class _Session:
    """A botocore session, made at the first use. botocore allows one thread at a time, so using it takes a lock.

    ``source`` names the credential source that is being asked.
    """

    def __init__(self, make: Callable[[Asking], Any]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._made: Any = None
        self.source: str | None = None

    def __enter__(self) -> Any:
        self._lock.acquire()
        try:
            if self._made is None:
                self._made = self._make(self.asking)
        except BaseException:
            self._lock.release()
            raise
        return self._made

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def asking(self, source: str) -> Iterator[None]:
        """Name a credential source while it is asked."""
        before, self.source = self.source, source
        try:
            yield
        finally:
            self.source = before


class _WatchedProvider:
    """Wraps a credential provider of botocore and reports its name while it is asked."""

    def __init__(self, provider: Any, asking: Asking) -> None:
        self.METHOD = provider.METHOD
        self.CANONICAL_NAME = provider.CANONICAL_NAME
        self._provider = provider
        self._asking = asking

    def load(self) -> Any:
        """The provider's credentials; ``None`` if it has none."""
        with self._asking(self.METHOD):
            return self._provider.load()


def profile_region(profile: str | None) -> str | None:
    """The region that the AWS configuration names for a profile."""
    with translated_errors("the AWS configuration", profile=profile), _broken_setup():
        region: str | None = _session(profile).get_config_variable("region")
        return region


class _QuickMetadata:
    """Wraps botocore's provider of instance roles: asks it only if the instance metadata service is reachable.

    Outside EC2 it is not, and botocore would wait one second for each of two requests.
    """

    METHOD = "iam-role"
    CANONICAL_NAME = "Ec2InstanceMetadata"

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def load(self) -> Any:
        """The instance's credentials; ``None`` if this is not an EC2 instance."""
        if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        moved = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
        if not any(os.environ.get(name) for name in moved):
            try:
                socket.create_connection(METADATA_ADDRESS, timeout=METADATA_SECONDS).close()
            except OSError:
                return None
        return self._provider.load()


def _session(profile: str | None, asking: Asking = lambda source: nullcontext()) -> Any:
    """A botocore session of a profile; ``asking`` gets the name of each credential source that is asked."""
    from botocore.exceptions import ProfileNotFound
    from botocore.session import Session

    session = Session(profile=profile)
    try:
        resolver = session.get_component("credential_provider")
    except ProfileNotFound:
        known = ", ".join(session.available_profiles) or "none"
        raise ProfileNotFoundError(
            f"the AWS profile {profile!r} does not exist; existing profiles: {known}", hint="aws configure sso"
        ) from None
    provider = resolver.get_provider(_QuickMetadata.METHOD)
    resolver.insert_before(_QuickMetadata.METHOD, _QuickMetadata(provider))
    resolver.providers.remove(provider)
    resolver.providers = [_WatchedProvider(each, asking) for each in resolver.providers]
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
    """Turn errors that botocore does not translate into ``SetupError``: those of files, variables and programs."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"the AWS configuration cannot be used: {error}", hint="aws configure list") from error


@contextmanager
def translated_errors(target: str, *, profile: str | None = None, spends: bool = False) -> Iterator[None]:
    """Turn botocore's errors into errors of ticketctl. ``spends``: the request may have minted.

    Only an error that proves that nothing was sent, or that AWS refused, counts as not minted.
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        details = error.response.get("Error", {})
        code, message = details.get("Code", ""), details.get("Message", "") or str(error)
        code = "" if code.isdigit() else code  # if AWS gave no error code, botocore uses the status
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise refused(code, message, status, target=target, profile=profile, spends=spends) from error
    except exceptions.ProfileNotFound as error:
        raise ProfileNotFoundError(str(error)) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise _no_credentials(profile) from error
    except exceptions.CredentialRetrievalError as error:
        raise NoCredentialsError(str(error), hint="check the profile's credential_process or role") from error
    except (exceptions.TokenRetrievalError, exceptions.SSOError) as error:
        raise _expired(str(error), profile) from error
    except exceptions.ProxyConnectionError:  # its text can have the proxy's password
        raise UnreachableError(
            f"{target} cannot be reached: the proxy failed{proxies_in_force()}", hint="try again"
        ) from None
    except (exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError) as error:
        raise UnreachableError(f"{target} cannot be reached: {error}{proxies_in_force()}", hint="try again") from error
    except (
        exceptions.HTTPClientError,
        exceptions.SSLError,
        exceptions.ChecksumError,
        ResponseParserError,
    ) as error:
        if "Invalid header value" in str(error):  # its text has the value, which may be a secret
            raise SetupError(
                "the AWS credentials cannot be sent: they have a line break or another control character",
                hint="check the AWS_* variables and the credentials file",
            ) from None
        if spends and "CERTIFICATE_VERIFY_FAILED" not in str(error):  # that error comes before anything is sent
            raise OutcomeUnknownError(
                f"{target} did not answer: {_reason(error)}; a ticket may have been spent",
                hint="ticketctl status",
            ) from error
        raise UnreachableError(
            f"{target} did not answer: {_reason(error)}{proxies_in_force()}", hint="try again"
        ) from error
    except exceptions.ConfigParseError as error:
        raise FileError(str(error), hint="correct the file, or set AWS_CONFIG_FILE to another") from error
    except (exceptions.InvalidRegionError, exceptions.InvalidEndpointConfigurationError) as error:
        raise UsageError(str(error)) from error
    except exceptions.BotoCoreError as error:  # the remaining errors occur before a request is sent
        raise SetupError(str(error), hint="check the AWS configuration: aws configure list") from error


def _reason(error: Exception) -> str:
    """The text of a connection error, unless it could contain a part of an invalid proxy URL."""
    from urllib.request import getproxies

    hidden = [scheme for scheme, url in sorted(getproxies().items()) if scheme != "no" and _host_of(url) == _HIDDEN]
    return f"the URL of the {hidden[0]} proxy is invalid" if hidden else str(error)


def refused(code: str, message: str, status: int, *, target: str, profile: str | None, spends: bool) -> TicketctlError:
    """The error for an error response. ``code``: AWS's error code, or ""; ``spends``: the request may have minted."""
    from ticketctl.handler import handler

    if code in _EXPIRED:
        return _expired(message, profile)
    if code in _DENIED:
        return AccessError(f"{target}: {message}", hint="ask for this permission, or use another --profile")
    if code == "ResourceNotFoundException":
        return NotDeployedError(f"{target} does not exist", hint="ticketctl deploy")
    if code in THROTTLES:
        return ThrottledError(f"{target}: {code}; nothing was minted", hint="try again")
    if spends and handler.may_have_written(status, code):
        return OutcomeUnknownError(
            f"{target} failed with {code or status}; a ticket may have been spent", hint="ticketctl status"
        )
    if 400 <= status < 500 and code and not spends:  # without a code the answer is a proxy's, not AWS's
        return RefusedError(f"{target}: {code or status}: {message}")
    return NotMintedError(f"{target}: {code or status}: {message}")


def _no_credentials(profile: str | None) -> NoCredentialsError:
    searched = f"the profile {profile!r}" if profile else "the environment, ~/.aws, SSO, containers and instance roles"
    return NoCredentialsError(
        f"no AWS credentials; looked at {searched}",
        hint="aws configure sso, or aws login; or try it without AWS: ticketctl next --local",
    )


def _expired(message: str, profile: str | None) -> ExpiredCredentialsError:
    return ExpiredCredentialsError(
        f"the AWS credentials of the profile {profile or 'default'!r} are no longer valid: {message}",
        hint=f"aws sso login --profile {profile or 'default'}",
    )


def proxies_in_force() -> str:
    """The proxies that the environment sets, without passwords, for a message about a connection error."""
    from urllib.request import getproxies

    known = sorted(getproxies().items())
    proxies = ", ".join(f"{scheme}={url if scheme == 'no' else _host_of(url)}" for scheme, url in known)
    return f" (proxies in force: {proxies})" if proxies else ""


def _host_of(url: str) -> str:
    """The host and port of a proxy's URL. Any other part may be a password, so the rest of an odd URL is not shown."""
    rest = url.partition("://")[2] or url
    login, _, host = rest.rpartition("@")
    host = re.split("[/?#]", host, maxsplit=1)[0]
    valid = not re.search("[/?#]", login) and re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?", host)
    return host if valid else _HIDDEN

"""Where credentials come from: botocore's sessions and providers, and which of them is asked now."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ticketctl.aws.sdk_errors import broken_setup, translated_errors
from ticketctl.errors import ProfileNotFoundError

METADATA_ADDRESS = ("169.254.169.254", 80)
METADATA_SECONDS = 0.25
Asking = Callable[[str], AbstractContextManager[None]]


class LockedSession:
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
    with translated_errors("the AWS configuration", profile=profile), broken_setup():
        region: str | None = profile_session(profile).get_config_variable("region")
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


def profile_session(
    profile: str | None, asking: Asking = lambda source: nullcontext(), *, environment_first: bool = False
) -> Any:
    """A botocore session of a profile; ``asking`` gets the name of each credential source that is asked.

    botocore ignores credentials in the environment if a profile was named explicitly, but not if it is the default.
    """
    from botocore.exceptions import ProfileNotFound
    from botocore.session import Session

    as_default = {"profile": (None, None, profile, None)}
    session = Session(session_vars=as_default) if profile and environment_first else Session(profile=profile)
    try:
        resolver = session.get_component("credential_provider")
    except ProfileNotFound as error:
        known = ", ".join(session.available_profiles) or "none"
        raise ProfileNotFoundError(
            f"the AWS profile {error.kwargs['profile']!r} does not exist; existing profiles: {known}",
            hint="aws configure sso",
        ) from error
    provider = resolver.get_provider(_QuickMetadata.METHOD)
    resolver.insert_before(_QuickMetadata.METHOD, _QuickMetadata(provider))
    resolver.providers.remove(provider)
    resolver.providers = [_WatchedProvider(each, asking) for each in resolver.providers]
    return session


def embedded_session(key: str, secret: str) -> Any:
    """A botocore session with these credentials, which reads none of the user's configuration."""
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as VARIABLES
    from botocore.session import Session

    variables = {name: (None, None, default, None) for name, (_, _, default, _) in VARIABLES.items()}
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = Session(session_vars=variables | files)
    session.set_credentials(key, secret)
    return session

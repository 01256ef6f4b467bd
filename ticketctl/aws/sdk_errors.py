"""AWS's errors, and those of its SDK, as errors of ticketctl."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

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
_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_UNSIGNED = {"MissingAuthenticationToken", "MissingAuthenticationTokenException"}
_BADLY_SIGNED = {"SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignatureException"}
UNKNOWN_KEY = {"UnrecognizedClientException", "InvalidClientTokenId"}
"""AWS does not know the access key. A region that the account has not enabled answers in the same way."""
NOT_ENABLED = "OptInRequired"
"""AWS's error in a region that the account has not enabled, if it knows the account."""
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", NOT_ENABLED}
_ACCESS = _EXPIRED | _SKEWED | _UNSIGNED | _BADLY_SIGNED | UNKNOWN_KEY | _DENIED
_CLOCK = re.compile("Signature expired|Signature not yet current")  # AWS has no error code for it
_EXPIRED_TOKEN = re.compile("security token included in the request is expired")
_ASK_FOR_PERMISSION = "ask for this permission, or use another --profile"
_OTHER_KEY = re.compile("key element does not match the schema|number of conditions on the keys is invalid")
_HIDDEN = "(invalid URL, not shown)"


@contextmanager
def broken_setup() -> Iterator[None]:
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
    except exceptions.NoCredentialsError as error:
        raise no_credentials(profile) from error
    except exceptions.PartialCredentialsError as error:
        raise NoCredentialsError(f"the AWS credentials are incomplete: {error}", hint="set what is missing") from error
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
        reason = reason_of(error)
        shown = error if reason == str(error) else None  # a traceback would have the text of the cause
        if spends and "CERTIFICATE_VERIFY_FAILED" not in str(error):  # that error comes before anything is sent
            raise OutcomeUnknownError(
                f"{target} did not answer: {reason}; a ticket may have been spent",
                hint="ticketctl status",
            ) from shown
        raise UnreachableError(f"{target} did not answer: {reason}{proxies_in_force()}", hint="try again") from shown
    except exceptions.ConfigParseError as error:
        raise FileError(str(error), hint="correct the file, or set AWS_CONFIG_FILE to another") from error
    except (exceptions.InvalidRegionError, exceptions.InvalidEndpointConfigurationError) as error:
        raise UsageError(str(error)) from error
    except exceptions.BotoCoreError as error:  # the remaining errors occur before a request is sent
        raise SetupError(str(error), hint="check the AWS configuration: aws configure list") from error


def reason_of(error: BaseException | None) -> str:
    """The text of a connection error, unless it contains, or could contain a part of, an invalid proxy URL."""
    from urllib.request import getproxies

    text, known = str(error), sorted(getproxies().items())
    hidden = [scheme for scheme, url in known if scheme != "no" and (_host_of(url) == _HIDDEN or url in text)]
    return f"the URL of the {hidden[0]} proxy is invalid" if hidden else text


def refused(code: str, message: str, status: int, *, target: str, profile: str | None, spends: bool) -> TicketctlError:
    """The error for an error response. ``code``: AWS's error code, or ""; ``spends``: the request may have minted."""
    from ticketctl.handler import handler

    if code in _ACCESS:
        return access_error(code, message, target=target, profile=profile)
    if code == "ResourceNotFoundException":
        return NotDeployedError(f"{target} does not exist", hint="ticketctl deploy")
    if code in THROTTLES:
        return ThrottledError(f"{target}: {code}; nothing was minted", hint="try again")
    if spends and handler.may_have_written(status, code):
        return OutcomeUnknownError(
            f"{target} failed with {code or status}; a ticket may have been spent", hint="ticketctl status"
        )
    if _OTHER_KEY.search(message):
        return not_a_ticket_table(target, "its key is not partition (S) alone")
    if 400 <= status < 500 and code and not spends:  # without a code the answer is a proxy's, not AWS's
        return RefusedError(f"{target}: {code}: {message}")
    if not code:  # the message is what a proxy or a web server sent: a page of HTML, perhaps
        return NotMintedError(f"{target}: status {status} without an AWS error code: another server answered")
    return NotMintedError(f"{target}: {code}: {message}")


def not_a_ticket_table(target: str, why: str) -> RefusedError:
    """The error for a table that does not belong to a ticket server."""
    return RefusedError(
        f"{target} is not a ticket server's: {why}; nothing was written",
        hint="use another name: --stack NAME or --table NAME",
    )


def access_error(
    code: str, message: str, *, target: str, profile: str | None = None, hint: str = _ASK_FOR_PERMISSION
) -> TicketctlError:
    """The error if AWS refused the caller, with ``hint`` if a permission is missing. Nothing was done.

    A wrong clock is the only reason that is not an ``AccessError``, because neither credentials nor a permission help.
    """
    if code in _SKEWED or _CLOCK.search(message):
        return SetupError(
            f"{target}: {message}; the clock of this machine is wrong",
            hint="set the clock of this machine, then try again",
        )
    if code in _EXPIRED or _EXPIRED_TOKEN.search(message):
        return _expired(message, profile)
    hints = [
        (_UNSIGNED, "the request arrived without a signature: check that no proxy removes the Authorization header"),
        (_BADLY_SIGNED, "check the secret access key, and that no proxy changes the request"),
        (UNKNOWN_KEY, "check the access key: aws sts get-caller-identity"),
    ]
    hint = next((text for codes, text in hints if code in codes), hint)
    return AccessError(f"{target}: {message}", hint=hint)


def no_credentials(profile: str | None) -> NoCredentialsError:
    """The error if no source has credentials."""
    searched = f"the profile {profile!r}" if profile else "the environment, ~/.aws, SSO, containers and instance roles"
    return NoCredentialsError(
        f"no AWS credentials; looked at {searched}",
        hint="aws configure sso, or aws login; or try it without AWS: ticketctl next --local",
    )


def _expired(message: str, profile: str | None) -> ExpiredCredentialsError:
    if profile is None:
        return ExpiredCredentialsError(
            f"the AWS credentials are no longer valid: {message}",
            hint="renew the AWS_* variables, or run: aws sso login",
        )
    return ExpiredCredentialsError(
        f"the AWS credentials of the profile {profile!r} are no longer valid: {message}",
        hint=f"aws sso login --profile {profile}",
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

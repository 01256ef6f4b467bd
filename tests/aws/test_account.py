"""``account``: clients, signatures, and the translation of AWS's errors. Every client is a real botocore client."""

import gc
import hashlib
import hmac
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from botocore.parsers import ResponseParserError

from tests.support.http_server import Answer, Server
from tests.support.peer import Peer, keeps, never_answers
from ticketctl.aws.account import Aws
from ticketctl.aws.credentials import profile_region
from ticketctl.aws.sdk_errors import proxies_in_force, translated_errors
from ticketctl.deadline import Deadline
from ticketctl.errors import (
    AccessError,
    ExpiredCredentialsError,
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

pytestmark = pytest.mark.usefixtures("no_aws")

IDENTITY = b"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::123456789012:root</Arn><UserId>U</UserId><Account>123456789012</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""
SENT = {
    "method": "POST",
    "url": "https://tickets.example/",
    "headers": {"content-type": "text/plain"},
    "body": b"{}",
    "deadline": Deadline(60),
}


@pytest.fixture
def aws(server: Server) -> Iterator[Aws]:
    with closing(Aws("us-east-1", endpoint_url=server.url, embedded=("test", "test"))) as aws:
        yield aws


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address that refuses every connection: a port that is bound and never listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def refused(code: str, *, status: int = 400, message: str = "why") -> exceptions.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(answer, "UpdateItem")


def in_our_words(error: Exception, *, spends: bool = False, profile: str | None = None) -> TicketctlError:
    with pytest.raises(TicketctlError) as caught, translated_errors("the table", profile=profile, spends=spends):
        raise error
    return caught.value


def test_clients_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that nobody uses any more closes its connection, and ``close`` closes all others, in every region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    empty = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\n\r\n{}"
    with Peer(keeps(empty)) as peer:
        aws = Aws("eu-west-1", endpoint_url=peer.url)
        other = aws.in_region("us-east-1")
        clients = [each.client("dynamodb") for each in (aws, aws, other)]
        for client in clients:
            client.list_tables()
        clients.pop(0)
        del client
        gc.collect()
        peer.await_end()
        assert not peer.ended.acquire(timeout=0.1)
        aws.close()
        for _ in clients:
            peer.await_end()
    assert peer.connections == 3


def test_account(aws: Aws, server: Server) -> None:
    """``account`` returns the ID of the account to which the credentials belong."""
    server.answers = [Answer(200, "text/xml", IDENTITY)]
    assert (aws.account(), server.requests[0].body) == (
        "123456789012",
        b"Action=GetCallerIdentity&Version=2011-06-15",
    )


def test_embedded_reads_nothing_of_the_user(monkeypatch: pytest.MonkeyPatch, no_aws: Path) -> None:
    """For the embedded AWS, requests are signed with its own key; the user's credentials and profile are ignored."""
    (no_aws / "aws_config").write_text("broken", encoding="utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.setenv(name, "USERS")
    headers = Aws("us-east-1", embedded=("test", "test")).signed_headers(**SENT)  # type: ignore[arg-type]
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
    assert "USERS" not in str(headers)


def test_signature() -> None:
    """A request is signed with SigV4 for the service ``lambda``, including its query string and body."""
    url = "https://tickets.example/status?partition=a%20b"
    headers = Aws("eu-west-1", embedded=("test", "test")).signed_headers(
        "GET", url, {"content-type": "text/plain"}, b"body", Deadline(10)
    )
    day, scope = headers["X-Amz-Date"][:8], f"{headers['X-Amz-Date'][:8]}/eu-west-1/lambda/aws4_request"
    canonical = "\n".join(
        [
            "GET",
            "/status",
            "partition=a%20b",
            "content-type:text/plain",
            "host:tickets.example",
            f"x-amz-date:{headers['X-Amz-Date']}",
            "",
            "content-type;host;x-amz-date",
            hashlib.sha256(b"body").hexdigest(),
        ]
    )
    key = b"AWS4test"
    for part in (day, "eu-west-1", "lambda", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", headers["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    assert headers["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders=content-type;host;x-amz-date, "
        f"Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
    )


def test_credentials_of_the_profile(no_aws: Path) -> None:
    """A request is signed with the credentials of the selected profile, including its session token."""
    (no_aws / "aws_credentials").write_text(
        "[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = x\naws_session_token = token\n",
        encoding="utf-8",
    )
    headers = Aws("eu-west-1", profile="work").signed_headers(**SENT)  # type: ignore[arg-type]
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDWORK/")
    assert headers["X-Amz-Security-Token"] == "token"


@pytest.mark.parametrize(
    ("profile", "looked_at"),
    [
        (None, "the environment, ~/.aws, SSO, containers and instance roles"),
        ("bare", "the profile 'bare'"),
    ],
)
def test_no_credentials(no_aws: Path, profile: str | None, looked_at: str) -> None:
    """Without credentials nothing is signed, and the error lists the places that were searched."""
    (no_aws / "aws_config").write_text("[profile bare]\nregion = eu-west-1\n", encoding="utf-8")
    with pytest.raises(NoCredentialsError) as caught:
        Aws("us-east-1", profile=profile).signed_headers(**SENT)  # type: ignore[arg-type]
    assert (caught.value.message, caught.value.hint) == (
        f"no AWS credentials; looked at {looked_at}",
        "aws configure sso, or aws login; or try it without AWS: ticketctl next --local",
    )


def test_half_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An access key without its secret is an error that names the missing variable."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    with pytest.raises(NoCredentialsError, match=r"incomplete: .* missing: AWS_SECRET_ACCESS_KEY"):
        Aws("us-east-1").signed_headers(**SENT)  # type: ignore[arg-type]


def test_metadata_disabled(no_aws: Path) -> None:
    """If AWS_EC2_METADATA_DISABLED is set, ticketctl does not call the instance metadata service."""
    script = """if True:
        import sys
        sys.addaudithook(lambda event, args: event == "socket.connect" and print(args[1]))
        from ticketctl.aws.account import Aws
        from ticketctl.deadline import Deadline
        from ticketctl.errors import NoCredentialsError
        try:
            Aws("us-east-1").signed_headers("GET", "https://tickets.example/", {}, b"", Deadline(60))
        except NoCredentialsError:
            print("no credentials")
    """
    environ = {"HOME": str(no_aws), "AWS_EC2_METADATA_DISABLED": "true"}
    run = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert run.stdout == "no credentials\n"


def test_metadata_that_was_moved(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """If the instance metadata service has another address, the role's credentials are read from there."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    role = (
        b'{"Code": "Success", "AccessKeyId": "AKIDROLE", "SecretAccessKey": "x", "Token": "token", '
        b'"Expiration": "2999-01-01T00:00:00Z"}'
    )
    texts = [b"token", b"the-role", role]
    server.answers = [Answer(200, "text/plain", text) for text in texts]
    headers = Aws("us-east-1").signed_headers(**SENT)  # type: ignore[arg-type]
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDROLE/")


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_slow_credential_process(no_aws: Path, *, again: bool) -> None:
    """If a credential_process takes longer than the deadline, the error names it; nothing was minted."""
    (no_aws / "aws_config").write_text("[profile slow]\ncredential_process = /bin/sleep 5\n", encoding="utf-8")
    aws = Aws("us-east-1", profile="slow")
    for _ in range(1 + again):
        begun = time.monotonic()
        with pytest.raises(NotMintedError) as caught:
            aws.signed_headers(**{**SENT, "deadline": Deadline(1.0)})  # type: ignore[arg-type]
        assert time.monotonic() - begun < 2.0
    assert (caught.value.message, caught.value.exit_code) == (
        "the AWS credentials of the profile 'slow' took too long (source: custom-process); nothing was minted",
        7,
    )


def test_slow_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the instance metadata service does not answer, the deadline ends the attempt."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with Peer(never_answers) as metadata:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        begun = time.monotonic()
        with pytest.raises(NotMintedError, match=r"\(source: iam-role\)"):
            Aws("us-east-1").signed_headers(**{**SENT, "deadline": Deadline(0.7)})  # type: ignore[arg-type]
        assert time.monotonic() - begun < 1.5


def test_profile_region(no_aws: Path) -> None:
    """``profile_region`` reads the region of the default profile or of any other from the AWS configuration."""
    (no_aws / "aws_config").write_text(
        "[default]\nregion = us-west-2\n[profile work]\nregion = eu-west-1\n[profile bare]\n", encoding="utf-8"
    )
    assert [profile_region(profile) for profile in (None, "work", "bare")] == ["us-west-2", "eu-west-1", None]


def test_unknown_profile(no_aws: Path) -> None:
    """The error for an unknown profile lists the existing ones."""
    (no_aws / "aws_config").write_text("[profile home]\n[profile work]\n", encoding="utf-8")
    with pytest.raises(ProfileNotFoundError) as caught:
        profile_region("wrok")
    assert (caught.value.message, caught.value.hint) == (
        "the AWS profile 'wrok' does not exist; existing profiles: home, work",
        "aws configure sso",
    )


def test_broken_aws_configuration(no_aws: Path) -> None:
    """If the AWS configuration file cannot be parsed, the error names it."""
    (no_aws / "aws_config").write_text("region = eu-west-1\n", encoding="utf-8")
    with pytest.raises(SetupError, match="aws_config"):
        profile_region(None)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (refused("AccessDeniedException"), AccessError, "the table: why"),
        (refused("AccessDenied", status=403), AccessError, "the table: why"),
        (refused("UnrecognizedClientException"), AccessError, "the table: why"),
        (refused("InvalidClientTokenId", status=403), AccessError, "the table: why"),
        (refused("SignatureDoesNotMatch", status=403), AccessError, "the table: why"),
        (refused("ResourceNotFoundException"), NotDeployedError, "the table does not exist"),
        *(
            (
                refused("ValidationException", message=message),
                RefusedError,
                "the table is not a ticket server's: its key is not partition (S) alone; nothing was written",
            )
            for message in (
                "The provided key element does not match the schema",
                "The number of conditions on the keys is invalid",
            )
        ),
        (refused("ThrottlingException"), ThrottledError, "the table: ThrottlingException; nothing was minted"),
        (refused("RequestLimitExceeded"), ThrottledError, "the table: RequestLimitExceeded; nothing was minted"),
        (
            refused("ProvisionedThroughputExceededException"),
            ThrottledError,
            "the table: ProvisionedThroughputExceededException; nothing was minted",
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("spends", [False, True])
def test_refused(error: Exception, kind: type[TicketctlError], message: str, spends: bool) -> None:
    """If AWS refused a request, nothing was done, whether or not the request could have spent a ticket."""
    ours = in_our_words(error, spends=spends)
    assert (type(ours), ours.message) == (kind, message)


@pytest.mark.parametrize(("spends", "kind"), [(True, NotMintedError), (False, RefusedError)])
def test_refused_otherwise(spends: bool, kind: type[TicketctlError]) -> None:
    """After any other refusal of a mint, nothing was minted; any other request was refused."""
    ours = in_our_words(refused("ValidationException"), spends=spends)
    assert (type(ours), ours.message) == (kind, "the table: ValidationException: why")


@pytest.mark.parametrize("code", ["InvalidSignatureException", "SignatureDoesNotMatch"])
@pytest.mark.parametrize(
    "why",
    [
        "Signature expired: 20261124T120000Z is now earlier than 20261124T125507Z (20261124T130007Z - 5 min.)",
        "Signature not yet current: 20261124T140000Z is still later than 20261124T130507Z (20261124T130007Z + 5 min.)",
    ],
)
@pytest.mark.parametrize("spends", [False, True])
def test_wrong_clock(code: str, why: str, spends: bool) -> None:
    """If the machine's clock is wrong, the error says so; it is not reported as a missing permission."""
    ours = in_our_words(refused(code, message=why), spends=spends)
    assert (type(ours), ours.message, ours.hint) == (
        SetupError,
        f"the table: {why}; the clock of this machine is wrong",
        "set the clock of this machine, then try again",
    )


def test_failed_credential_process() -> None:
    """If a program or role of the profile gives no credentials, the error contains its own message."""
    ours = in_our_words(exceptions.CredentialRetrievalError(provider="process", error_msg="no token"))
    assert type(ours) is NoCredentialsError
    assert "no token" in ours.message


@pytest.mark.parametrize("code", ["ExpiredToken", "ExpiredTokenException", "RequestExpired"])
def test_expired(code: str) -> None:
    """The error for expired credentials names their profile and the command that renews them."""
    ours = in_our_words(refused(code), profile="work")
    assert (type(ours), ours.message, ours.hint) == (
        ExpiredCredentialsError,
        "the AWS credentials of the profile 'work' are no longer valid: why",
        "aws sso login --profile work",
    )


@pytest.mark.parametrize(
    "error",
    [
        exceptions.UnauthorizedSSOTokenError(),
        exceptions.SSOTokenLoadError(error_msg="no token"),
        exceptions.TokenRetrievalError(provider="sso", error_msg="no token"),
    ],
    ids=repr,
)
def test_expired_sso(error: Exception) -> None:
    """If an SSO token cannot be loaded, it is reported as expired."""
    assert type(in_our_words(error)) is ExpiredCredentialsError


@pytest.mark.parametrize(
    ("error", "spends", "kind"),
    [
        (exceptions.EndpointConnectionError(endpoint_url="u"), True, UnreachableError),
        (exceptions.ConnectTimeoutError(endpoint_url="u"), True, UnreachableError),
        (exceptions.SSLError(endpoint_url="u", error="[SSL: CERTIFICATE_VERIFY_FAILED]"), True, UnreachableError),
        (exceptions.SSLError(endpoint_url="u", error="[SSL: BAD_RECORD_MAC]"), True, OutcomeUnknownError),
        (exceptions.SSLError(endpoint_url="u", error="[SSL: BAD_RECORD_MAC]"), False, UnreachableError),
        (exceptions.ProxyConnectionError(proxy_url="u"), True, UnreachableError),
        (exceptions.ReadTimeoutError(endpoint_url="u"), True, OutcomeUnknownError),
        (exceptions.ConnectionClosedError(endpoint_url="u"), True, OutcomeUnknownError),
        (exceptions.HTTPClientError(error="e"), True, OutcomeUnknownError),
        (ResponseParserError("garbage"), True, OutcomeUnknownError),
        (refused("InternalServerError", status=500), True, OutcomeUnknownError),
        (refused("", status=503), True, OutcomeUnknownError),
        (exceptions.ReadTimeoutError(endpoint_url="u"), False, UnreachableError),
        (exceptions.ConnectionClosedError(endpoint_url="u"), False, UnreachableError),
        (ResponseParserError("garbage"), False, UnreachableError),
        (refused("InternalServerError", status=500), False, NotMintedError),
    ],
    ids=repr,
)
def test_no_answer(error: Exception, spends: bool, kind: type[TicketctlError]) -> None:
    """If a request could spend a ticket, only an error that proves that nothing was sent is *not minted*."""
    assert type(in_our_words(error, spends=spends)) is kind


@pytest.mark.parametrize("spends", [True, False])
def test_secret_that_no_header_can_carry(spends: bool) -> None:
    """The SDK's error for an invalid header quotes its value, which may be a session token; ours does not."""
    error = exceptions.HTTPClientError(error=ValueError("Invalid header value b'hunter2\\n'"))
    caught = in_our_words(error, spends=spends)
    assert (type(caught), "hunter2" in caught.message) == (SetupError, False)


def test_wrong_region() -> None:
    """A region name that the SDK rejects is wrong usage."""
    assert type(in_our_words(exceptions.InvalidRegionError(region_name="x"))) is UsageError


def test_our_errors_pass() -> None:
    """An error of ticketctl's own passes unchanged."""
    ours = NotDeployedError("gone")
    assert in_our_words(ours) is ours


def test_connection_refused(dead_url: str) -> None:
    """If the endpoint refuses connections, the error says that the service cannot be reached."""
    with (
        closing(Aws("us-east-1", endpoint_url=dead_url, embedded=("test", "test"))) as aws,
        pytest.raises(UnreachableError) as caught,
    ):
        aws.account()
    assert caught.value.message.startswith("sts in us-east-1 cannot be reached: ")


def test_captive_portal(aws: Aws, server: Server) -> None:
    """A web page instead of AWS's answer means that the service did not answer; it is not a bug in ticketctl."""
    server.answers = [Answer(200, "text/html", b"<html><p>Sign in to the Wi-Fi</html>")]
    with pytest.raises(UnreachableError, match="sts in us-east-1 did not answer: "):
        aws.account()


def test_connection_closed(aws: Aws, server: Server) -> None:
    """If the endpoint closes the connection, the outcome of a write is unknown, and the write is sent once."""
    server.answers = [None]
    client = aws.client("dynamodb", retries=0)
    with pytest.raises(OutcomeUnknownError), translated_errors("the table", spends=True):
        client.update_item(TableName="Tickets", Key={"partition": {"S": "orders"}})
    assert len(server.requests) == 1


def test_proxies_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error about a connection names the proxies without their passwords."""
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy.example:3128")
    monkeypatch.setenv("http_proxy", "http://other.example")
    assert proxies_in_force() == " (proxies in force: http=other.example, https=proxy.example:3128)"


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("user:s3cr3t@proxy.example:3128", "proxy.example:3128"),
        ("http://user:s3@cr3t@proxy.example:3128/", "proxy.example:3128"),
        ("socks5://user:s3cr3t@[2001:db8::1]:1080", "[2001:db8::1]:1080"),
        ("http://proxy.example:3128/s3cr3t?s3cr3t#s3cr3t", "proxy.example:3128"),
        ("http://user:s3/cr3t@proxy.example:3128", "(invalid URL, not shown)"),
        ("http://user:s3#cr@3t@proxy.example:3128", "(invalid URL, not shown)"),
        ("http://user:x@s3?cr3t", "s3"),
        ("http://user:s3cr3t%40proxy.example:3128", "(invalid URL, not shown)"),
        ("user:s3cr3t", "(invalid URL, not shown)"),
        ("http://user:x://s3cr3t:@", "(invalid URL, not shown)"),
        ("http://proxy.example/x@s3cr3t", "(invalid URL, not shown)"),
    ],
)
def test_hostile_proxies(monkeypatch: pytest.MonkeyPatch, proxy: str, shown: str) -> None:
    """For a proxy's URL in any form, an error shows at most its host and port."""
    monkeypatch.setenv("https_proxy", proxy)
    assert proxies_in_force() == f" (proxies in force: https={shown})"


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:s3/cr3t@127.0.0.1:9",
        "user:s3cr3t@127.0.0.1:9",
        "http://u:s3@cr3t@127.0.0.1:9",
        "http://us er:s3cr3t@127.0.0.1:99999",
    ],
)
def test_the_sdk_shows_no_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """No SDK error about a proxy contains the proxy's password."""
    monkeypatch.setenv("https_proxy", proxy)
    with closing(Aws("us-east-1", embedded=None)) as aws:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        with pytest.raises(TicketctlError) as caught:
            aws.account()
    printed = "".join(traceback.format_exception(caught.value))  # with --debug
    assert "s3" not in caught.value.message
    assert "cr3t" not in caught.value.message
    assert "cr3t" not in printed


def test_exempt_from_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hosts in ``no_proxy`` are shown unchanged."""
    monkeypatch.setenv("no_proxy", "localhost,.example")
    assert proxies_in_force() == " (proxies in force: no=localhost,.example)"


def test_no_proxies() -> None:
    """If there are no proxies, errors do not mention them."""
    assert proxies_in_force() == ""

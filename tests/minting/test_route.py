"""The path of a mint: few functions pass it on, and one deadline limits all of them."""

import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import ticketctl
from tests.support.http_server import Answer, Server
from tests.support.scripted_transport import BY_AWS
from ticketctl import TicketClient, cli
from ticketctl.errors import NotDeployedError, NotMintedError, OutcomeUnknownError, TicketctlError, UsageError
from ticketctl.http_client import HttpClient, Response
from ticketctl.minting.source import key_of_block

HOME = str(Path(ticketctl.__file__).parent)
BLOCK = b'{"partition": "orders", "first": 7, "last": 7, "count": 1, "increment": 1}'


@pytest.fixture
def silent(home: None) -> Iterator[str]:  # noqa: ARG001 - credentials
    """The address of a server that accepts connections and never answers."""
    with suppress(NotMintedError, OutcomeUnknownError):  # loads the SDK, which takes longer than the tested timeouts
        TicketClient.connect(endpoint_url="http://127.0.0.1:9", region="us-east-1", table="Old", timeout=0.1).next()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def home(no_aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a home folder in the environment."""
    monkeypatch.setenv("TICKETCTL_HOME", str(no_aws))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("home")
def test_nine_functions_from_the_command_to_the_wire(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A mint passes through at most nine functions: command, regions, retry and source."""
    seen: list[str] = []

    def request(self: HttpClient, *arguments: object, **more: object) -> Response:  # noqa: ARG001
        seen.extend(frame.name for frame in traceback.extract_stack() if frame.filename.startswith(HOME))
        return Response(200, {"content-type": "application/json"}, BLOCK)

    monkeypatch.setattr(HttpClient, "request", request)
    assert cli.main(["next", "--url", "http://tickets.example", "--region", "us-east-1"]) == 0
    assert capfdbinary.readouterr().out == b"7\n"
    assert seen[:1] == ["main"]
    assert len(seen) <= 9, seen


@pytest.mark.usefixtures("home")
def test_a_slow_refusal_and_a_signed_request_end_in_time(server: Server) -> None:
    """The unsigned request that gets a 403 and the signed one share the deadline."""
    server.answers = [
        Answer(403, "application/json", b"{}", after=1.0, headers=BY_AWS),
        Answer(200, "application/json", BLOCK, after=2.5),
    ]
    with TicketClient.connect(url=server.url, region="us-east-1", timeout=1.5) as tickets:
        ends_within(1.5, tickets, OutcomeUnknownError)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("regions", [["us-east-1"], ["us-east-1", "us-east-2", "eu-west-1"]])
def test_a_silent_cloudformation_ends_in_time(silent: str, regions: Sequence[str]) -> None:
    """The look-up of the stack ends at the deadline, and nothing was minted."""
    with TicketClient.connect(endpoint_url=silent, region=regions, timeout=2.0) as tickets:
        ends_within(2.0, tickets, NotMintedError)


@pytest.mark.usefixtures("home")
def test_a_missing_stack_does_not_wait_for_its_account(server: Server) -> None:
    """If the account cannot be looked up in time, the error still says that the stack is not deployed."""
    missing = b"<E><Error><Code>ValidationError</Code><Message>Stack Tickets does not exist</Message></Error></E>"
    server.answers = [Answer(400, "text/xml", missing), Answer(500, "text/xml", b"", after=4.0)]
    with TicketClient.connect(endpoint_url=server.url, region="us-east-1", timeout=1.5) as tickets:
        ends_within(1.5, tickets, NotDeployedError)


@pytest.mark.usefixtures("no_aws")
def test_slow_credentials_of_a_look_up_are_named(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If credentials take so long that CloudFormation is never asked, the error names them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text("[profile slow]\ncredential_process = sleep 5\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    where = TicketClient.connect(endpoint_url=silent, region="us-east-1", profile="slow", timeout=1.5)
    with where as tickets, pytest.raises(NotMintedError, match="source: custom-process"):
        tickets.next()


@pytest.mark.usefixtures("home")
def test_a_silent_dynamodb_ends_in_time(silent: str) -> None:
    """If DynamoDB does not answer, the mint ends at the deadline with an unknown outcome."""
    with TicketClient.connect(endpoint_url=silent, region="us-east-1", table="Old", timeout=4.0) as tickets:
        ends_within(4.0, tickets, OutcomeUnknownError)


STACK = """<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult>
<Stacks><member><StackName>Tickets</StackName><StackId>arn:aws:cloudformation:us-east-1:1:stack/Tickets/1</StackId>
<StackStatus>CREATE_COMPLETE</StackStatus><CreationTime>2026-01-01T00:00:00Z</CreationTime>
<Parameters><member><ParameterKey>Offset</ParameterKey><ParameterValue>1</ParameterValue></member>
<member><ParameterKey>Increment</ParameterKey><ParameterValue>1</ParameterValue></member>
<member><ParameterKey>MaxCount</ParameterKey><ParameterValue>100</ParameterValue></member></Parameters>
<Outputs><member><OutputKey>TableName</OutputKey><OutputValue>Tickets</OutputValue></member>
<member><OutputKey>Url</OutputKey><OutputValue>http://tickets.example/</OutputValue></member></Outputs>
</member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""


def test_a_slow_look_up_and_a_slow_first_block_of_fetch_end_in_time(
    silent: str, server: Server, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """``fetch`` looks up the largest block; that and its first block share the deadline."""
    assert silent
    server.answers = [
        Answer(200, "text/xml", STACK.replace("http://tickets.example", server.url).encode(), after=2.0),
        *[Answer(200, "application/json", b"{}", after=5.0)] * 9,
    ]
    began = time.monotonic()
    assert cli.main(["fetch", "10", "--endpoint-url", server.url, "--region", "us-east-1", "--timeout", "3"]) == 8
    assert time.monotonic() - began < 4.0
    assert b"a ticket may have been spent" in capfdbinary.readouterr().err
    assert [request.body for request in server.requests][1:] == [b'{"count": 10}']


def ends_within(seconds: float, tickets: TicketClient, kind: type[TicketctlError]) -> None:
    """Check that a mint fails at the deadline."""
    began = time.monotonic()
    with pytest.raises(kind):
        tickets.next()
    assert time.monotonic() - began < seconds + 0.5


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("reserved", ["once:", "fetch:"])
def test_reserved_keys(server: Server, capfdbinary: pytest.CaptureFixture[bytes], reserved: str) -> None:
    """A typed key that begins with a reserved prefix is rejected before anything is sent."""
    arguments = ["next", "--url", server.url, "--region", "us-east-1", "--idempotency-key", f"{reserved}0:a"]
    assert cli.main(arguments) == 2
    assert f"--idempotency-key must not begin with {reserved}".encode() in capfdbinary.readouterr().err
    with TicketClient.connect(url=server.url, region="us-east-1") as tickets, pytest.raises(UsageError):
        tickets.next(idempotency_key=f"{reserved}0:a")
    assert server.requests == []


def test_keys_of_blocks() -> None:
    """Each block has a different key, whatever the user typed; the blocks of a retry key have retry keys."""
    typed = ["a", "a/0", "a/1", "0:a", "1:a", "fetch:0:a"]
    keys = [key_of_block(key, begin) for key in typed for begin in (0, 1, 10)]
    assert len({*keys, *typed[:-1]}) == len(keys) + len(typed) - 1
    assert key_of_block("once:a", 10) == "once:a/10"


@pytest.mark.usefixtures("home")
def test_an_unknown_block_beside_a_refused_one(server: Server, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """``fetch`` reports that blocks in flight may be spent, even if the first answer is an error."""
    refused = b'{"code": "counter_exhausted", "detail": "full"}'
    server.answers = [Answer(409, "application/problem+json", refused), *[None] * 1_000]
    arguments = ["fetch", "30", "--block", "10", "--concurrency", "3", "--url", server.url, "--region", "us-east-1"]
    assert cli.main([*arguments, "--timeout", "1"]) == 8
    said = capfdbinary.readouterr().err.decode()
    assert "; a ticket may have been spent; in all, 2 blocks of up to 10 tickets may be spent\n" in said

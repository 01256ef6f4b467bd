"""``locator``: what is cached of a stack, when CloudFormation is asked, and how long that may take."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from tests.deployments.test_cache import TICKETS
from tests.support.http_server import Answer, Server
from ticketctl.deadline import Deadline
from ticketctl.deployments.locator import Locator
from ticketctl.deployments.session import Session
from ticketctl.errors import (
    AccessError,
    NotDeployedError,
    OutcomeUnknownError,
    RefusedError,
    TicketctlError,
    UnknownCounterError,
    UnreachableError,
)
from ticketctl.models import StackOutputs
from ticketctl.settings import resolve

REGION = "us-east-1"
MOVED = replace(TICKETS, url="https://moved.lambda-url.us-east-1.on.aws/")
CLOSED_PORT = "http://127.0.0.1:1"
STALE = AccessError("403")
NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"


def described(stack: StackOutputs) -> Answer:
    """CloudFormation's answer to DescribeStacks for a deployed stack."""
    outputs = {"Url": stack.url, "TableName": stack.table}
    parameters: Mapping[str, Any] = {
        "AuthType": stack.auth,
        "Offset": stack.offset,
        "Increment": stack.increment,
        "MaxCount": stack.max_count,
    }
    members = "".join(
        f"<{kind}s>"
        + "".join(
            f"<member><{kind}Key>{key}</{kind}Key><{kind}Value>{escape(str(value))}</{kind}Value></member>"
            for key, value in values.items()
        )
        + f"</{kind}s>"
        for kind, values in (("Output", outputs), ("Parameter", parameters))
    )
    body = (
        f'<DescribeStacksResponse xmlns="{NAMESPACE}"><DescribeStacksResult><Stacks><member>'
        f"<StackId>arn:aws:cloudformation:{stack.region}:{stack.account}:stack/{stack.stack}/1</StackId>"
        f"<StackName>{stack.stack}</StackName><StackStatus>CREATE_COMPLETE</StackStatus>"
        f"<CreationTime>2026-11-01T00:00:00Z</CreationTime>{members}"
        "</member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
    )
    return Answer(200, "text/xml", body.encode())


def refused(status: int, code: str, message: str) -> Answer:
    """An error in the form of CloudFormation and STS."""
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return Answer(status, "text/xml", body.encode())


NOT_DEPLOYED = refused(400, "ValidationError", "Stack with id Tickets does not exist")
DENIED = refused(403, "AccessDenied", "not authorized to perform: cloudformation:DescribeStacks")
Locate = Callable[..., Locator]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "TICKETCTL_HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


@pytest.fixture
def aws() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def locate(environ: dict[str, str], aws: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locate]:
    """Create a locator, as each process does; all share one cache and use ``aws`` by default."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    sessions: list[Session] = []

    def make(**flags: Any) -> Locator:
        settings = resolve({"region": (REGION,), "endpoint_url": aws.url, "timeout": 2.0, **flags}, environ)
        sessions.append(Session(settings, environ=environ))
        return Locator(sessions[-1])

    yield make
    for session in sessions:
        session.close()


def asked(aws: Server) -> int:
    """Return how often CloudFormation was asked for the stack."""
    return sum(b"DescribeStacks" in request.body for request in aws.requests)


# --- what is cached ----------------------------------------------------------------------------------


def test_a_remembered_stack_needs_no_look_up(locate: Locate, aws: Server) -> None:
    """What one process has cached, it and the next process use without CloudFormation."""
    first, second = locate(), locate()
    first.remember(TICKETS)
    assert first.locate().outputs == TICKETS
    assert second.locate().outputs == TICKETS
    assert aws.requests == []


def test_only_a_described_stack_is_confirmed(locate: Locate) -> None:
    """A cached stack is not confirmed; one that CloudFormation described to this process is."""
    first, second = locate(), locate()
    first.remember(TICKETS)
    assert [found.locate().is_confirmed for found in (first, second)] == [True, False]
    first.forget()
    second.remember(MOVED)
    assert (first.locate().outputs, first.locate().is_confirmed) == (MOVED, False)


def test_a_newer_description_replaces_the_older(locate: Locate) -> None:
    """The last description of a stack is used, in this process and in the cache."""
    first, second = locate(), locate()
    first.remember(TICKETS)
    first.remember(MOVED)
    assert (first.locate().outputs, second.locate().outputs) == (MOVED, MOVED)


def test_a_forgotten_stack_is_looked_up(locate: Locate, aws: Server) -> None:
    """A stack that was forgotten is looked up again, by this and by the next process."""
    aws.answers = [described(MOVED), described(MOVED)]
    first, second = locate(), locate()
    first.remember(TICKETS)
    first.forget()
    assert (first.locate().outputs.url, second.locate().outputs.url) == (MOVED.url, MOVED.url)


def test_each_change_begins_a_generation(locate: Locate, aws: Server) -> None:
    """Each look-up, description or removal starts a new generation, so older connections can be recognized."""
    aws.answers = [described(TICKETS)]
    found = locate()
    generations = [found.generation]
    for change in (found.look_up, lambda: found.remember(TICKETS), found.forget):
        change()
        generations.append(found.generation)
    assert generations == sorted(set(generations))


# --- asking CloudFormation ---------------------------------------------------------------------------


def test_an_unknown_stack_is_looked_up_and_remembered(locate: Locate, aws: Server) -> None:
    """The first use asks CloudFormation once and caches the stack."""
    aws.answers = [described(TICKETS)]
    assert locate().locate().outputs == TICKETS
    assert locate().locate().outputs == TICKETS
    assert asked(aws) == 1


def test_a_confirmation_asks_once(locate: Locate, aws: Server) -> None:
    """A cached stack is confirmed with one look-up."""
    aws.answers = [described(MOVED)]
    locate().remember(TICKETS)
    found = locate()
    assert (found.confirm(), found.confirm()) == (MOVED, MOVED)
    assert asked(aws) == 1


def test_a_missing_stack_is_an_error_with_its_place(locate: Locate, aws: Server) -> None:
    """If a stack is not deployed, the error names the region, and the stack is removed from the cache."""
    aws.answers = [NOT_DEPLOYED, DENIED]  # the second is STS's answer to the request for the account
    first = locate()
    first.remember(TICKETS)
    with pytest.raises(NotDeployedError) as caught:
        first.look_up()
    assert caught.value.message == "the stack Tickets is not deployed in this account/us-east-1"
    assert caught.value.hint == "ticketctl deploy"
    aws.answers = [described(MOVED)]
    assert locate().locate().outputs == MOVED


def test_a_description_remembers_nothing(locate: Locate, aws: Server) -> None:
    """``describe`` changes neither the cached stack nor its generation."""
    aws.answers = [described(MOVED)]
    found = locate()
    found.remember(TICKETS)
    known = found.locate()
    assert found.describe() == MOVED
    assert found.locate() == known


# --- when a cached stack may be stale ----------------------------------------------------------------


@pytest.mark.parametrize("error", [AccessError("403"), NotDeployedError("404"), UnreachableError("no such host")])
def test_a_stale_stack_is_looked_up_after_a_failure(locate: Locate, aws: Server, error: TicketctlError) -> None:
    """After a 403, a 404 or an unreachable host a cached stack is looked up; if it moved, a retry helps."""
    aws.answers = [described(MOVED)]
    locate().remember(TICKETS)
    found = locate()
    assert found.refresh_after(error, found.locate().generation, Deadline(5))
    assert found.locate().outputs == MOVED


def test_a_retry_does_not_help_if_the_stack_is_as_remembered(locate: Locate, aws: Server) -> None:
    """If CloudFormation describes the stack as it is cached, a retry does not help."""
    aws.answers = [described(TICKETS)]
    locate().remember(TICKETS)
    found = locate()
    assert not found.refresh_after(STALE, found.locate().generation, Deadline(5))


@pytest.mark.parametrize("error", [OutcomeUnknownError("no answer"), RefusedError("no"), UnknownCounterError("none")])
def test_other_failures_are_no_reason_to_look_up(locate: Locate, aws: Server, error: TicketctlError) -> None:
    """A failure that does not depend on the address causes no look-up."""
    locate().remember(TICKETS)
    found = locate()
    assert not found.refresh_after(error, found.locate().generation, Deadline(5))
    assert aws.requests == []


def test_a_counter_that_does_not_exist_confirms_the_lane(locate: Locate, aws: Server) -> None:
    """With ``--via dynamodb``, an unknown counter causes a look-up that confirms the lane in which it would start."""
    aws.answers = [described(TICKETS)]
    locate().remember(TICKETS)
    found = locate(via="dynamodb")
    assert found.refresh_after(UnknownCounterError("none"), found.locate().generation, Deadline(5))
    assert found.locate().is_confirmed


def test_a_typed_url_is_never_looked_up(locate: Locate, aws: Server) -> None:
    """A Function URL that the user typed is never looked up."""
    found = locate(url="https://example.com/")
    assert not found.refresh_after(STALE, found.generation, Deadline(5))
    assert aws.requests == []


def test_cloudformation_is_asked_once_for_a_stack_that_never_works(locate: Locate, aws: Server) -> None:
    """After one look-up, further failures cause another one only if the stack has worked in between."""
    aws.answers = [described(MOVED), described(TICKETS)]
    locate().remember(TICKETS)
    found = locate()
    assert found.refresh_after(STALE, found.locate().generation, Deadline(5))
    assert not found.refresh_after(STALE, found.generation, Deadline(5))
    assert asked(aws) == 1
    found.mark_working(found.generation)
    assert found.refresh_after(STALE, found.generation, Deadline(5))
    assert asked(aws) == 2


def test_an_answer_of_an_earlier_generation_proves_nothing(locate: Locate, aws: Server) -> None:
    """A late answer from before a look-up does not show that the new address works."""
    aws.answers = [described(MOVED)]
    locate().remember(TICKETS)
    found = locate()
    old = found.locate().generation
    assert found.refresh_after(STALE, old, Deadline(5))
    found.mark_working(old)
    assert not found.refresh_after(STALE, found.generation, Deadline(5))


def test_one_look_up_serves_all_threads(locate: Locate, aws: Server) -> None:
    """If several threads fail at the same time, one looks up, and all retry."""
    aws.answers = [described(MOVED)._replace(after=0.2)]
    locate().remember(TICKETS)
    found = locate()
    old, retries = found.locate().generation, list[bool]()
    threads = [
        threading.Thread(target=lambda: retries.append(found.refresh_after(STALE, old, Deadline(5)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (retries, asked(aws)) == ([True] * 4, 1)


def test_a_failure_stays_the_answer_if_cloudformation_refuses(locate: Locate, aws: Server) -> None:
    """If CloudFormation denies the look-up, the stack stays cached and unconfirmed, and a retry does not help."""
    aws.answers = [DENIED]
    locate().remember(TICKETS)
    found = locate()
    assert not found.refresh_after(STALE, found.locate().generation, Deadline(5))
    located = found.locate()
    assert (located.outputs, located.is_confirmed) == (TICKETS, False)


def test_a_stack_that_was_deleted_is_named(locate: Locate, aws: Server) -> None:
    """If the stack was deleted, the error says so."""
    aws.answers = [NOT_DEPLOYED, DENIED]
    locate().remember(TICKETS)
    found = locate()
    with pytest.raises(NotDeployedError, match="is not deployed"):
        found.refresh_after(STALE, found.locate().generation, Deadline(5))


# --- the deadline ------------------------------------------------------------------------------------


def test_a_look_up_ends_by_the_deadline(locate: Locate, aws: Server) -> None:
    """If CloudFormation hangs, the look-up ends at the deadline, and a retry does not help."""
    aws.answers = [described(MOVED)._replace(after=1.5)]
    locate().remember(TICKETS)
    found = locate()
    begin = time.monotonic()
    assert not found.refresh_after(STALE, found.locate().generation, Deadline(0.3))
    assert time.monotonic() - begin < 1.2


def test_nothing_is_asked_after_the_deadline(locate: Locate, aws: Server) -> None:
    """If no time is left, nothing is sent."""
    with pytest.raises(UnreachableError, match="no time is left"):
        locate().locate(Deadline(0))
    assert aws.requests == []


def test_marking_does_not_wait_for_a_look_up(locate: Locate, aws: Server) -> None:
    """``mark_working`` does not wait for a look-up in another thread, so it does not block an event loop."""
    aws.answers = [described(MOVED)._replace(after=0.6)]
    found = locate()
    thread = threading.Thread(target=found.look_up)
    thread.start()
    while not aws.requests:
        time.sleep(0.01)
    begin = time.monotonic()
    found.mark_working(0)
    waited = time.monotonic() - begin
    thread.join()
    assert waited < 0.3


# --- the cache file ----------------------------------------------------------------------------------


def test_a_damaged_cache_is_a_note(environ: dict[str, str], tmp_path: Path, locate: Locate) -> None:
    """A damaged cache is replaced, and is reported only as a note."""
    (tmp_path / "stacks.json").write_text("{", encoding="utf-8")
    said: list[str] = []
    settings = resolve({"region": (REGION,), "endpoint_url": CLOSED_PORT}, environ)
    with closing(Session(settings, environ=environ, note=said.append)) as session:
        Locator(session).remember(TICKETS)
        assert locate(endpoint_url=CLOSED_PORT).locate().outputs == TICKETS
    assert [str(tmp_path / "stacks.json") in line for line in said] == [True]

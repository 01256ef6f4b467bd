"""``session``: one AWS session for all regions of a command, created at its first use."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ticketctl.deadline import Deadline
from ticketctl.deployments.session import Session
from ticketctl.errors import NoRegionError
from ticketctl.settings import resolve

US, EU = "us-east-1", "eu-west-1"
Open = Callable[..., Session]


@pytest.fixture
def open_session(no_aws: Path) -> Iterator[Open]:
    opened: list[Session] = []

    def make(*regions: str, **flags: object) -> Session:
        environ = {"TICKETCTL_HOME": str(no_aws)}
        opened.append(Session(resolve({"region": regions, **flags}, environ), environ=environ))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def test_threads_share_one_connection(open_session: Open) -> None:
    """Threads that use the session for the first time at the same moment get the same AWS."""
    session, found = open_session(US), list[object]()
    threads = [threading.Thread(target=lambda: found.append(session.aws)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [session.aws] * 8


def test_other_regions_share_the_credentials(open_session: Open) -> None:
    """A session for another region has its own endpoint, and shares the credentials."""
    session = open_session(US, EU, profile="tickets")
    other = session.in_region(EU)
    assert (other.aws.region, other.aws.profile) == (EU, "tickets")
    assert other.aws._session is session.aws._session


def test_a_session_of_several_regions(open_session: Open) -> None:
    """``is_only_region`` is true only for a region that is the only one in the settings."""
    assert open_session(US).is_only_region
    assert not open_session(US, EU).is_only_region
    assert not open_session(US, EU).in_region(EU).is_only_region
    assert not open_session(US).in_region(EU).is_only_region


def test_without_a_region_nothing_is_connected(open_session: Open) -> None:
    """Without a region, the first use is an error."""
    with pytest.raises(NoRegionError):
        _ = open_session().aws


@pytest.mark.parametrize("local", [False, True])
def test_starting_pauses_the_deadline_if_local(open_session: Open, *, local: bool) -> None:
    """The deadline is paused only with ``--local``, because an engine may have to start."""
    now = [100.0]
    deadline = Deadline(10, lambda: now[0])
    with open_session(US, local=local).starting(deadline):
        now[0] += 4
    assert deadline.left() == (10 if local else 6)


def test_no_lock_on_aws(open_session: Open, no_aws: Path) -> None:
    """On AWS no lock is taken, because CloudFormation runs one deployment of a stack at a time."""
    with open_session(US).exclusively():
        assert list(no_aws.iterdir()) == []

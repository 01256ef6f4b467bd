"""``regional_stack``: what is remembered of a stack, without a request to AWS."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.deployments.test_cache import TICKETS
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.settings import resolve


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {
        "TICKETCTL_HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def at_closed_port(environ: dict[str, str]) -> RegionalStack:
    """A stack whose every request to AWS would fail."""
    flags = {"region": ("us-east-1",), "endpoint_url": "http://127.0.0.1:1"}
    return RegionalStack(resolve(flags, environ), environ=environ)


def test_a_remembered_stack_needs_no_look_up(environ: dict[str, str]) -> None:
    """What one process remembers, it and the next one use without CloudFormation."""
    with at_closed_port(environ) as first, at_closed_port(environ) as second:
        first.remember(TICKETS)
        assert first.outputs() == TICKETS
        assert second.outputs() == TICKETS


def test_a_newer_description_replaces_the_older(environ: dict[str, str]) -> None:
    """The last description of a stack is in force, here and in the cache."""
    moved = replace(TICKETS, url="https://moved.lambda-url.us-east-1.on.aws/")
    with at_closed_port(environ) as first, at_closed_port(environ) as second:
        first.remember(TICKETS)
        first.remember(moved)
        assert (first.outputs(), second.outputs()) == (moved, moved)


def test_a_damaged_cache_is_told_of_as_a_note(environ: dict[str, str], tmp_path: Path) -> None:
    """A damaged cache is ignored, replaced, and told of only as a note."""
    (tmp_path / "stacks.json").write_text("{", encoding="utf-8")
    said: list[str] = []
    settings = resolve({"region": ("us-east-1",), "endpoint_url": "http://127.0.0.1:1"}, environ)
    with RegionalStack(settings, environ=environ, note=said.append) as stack, at_closed_port(environ) as later:
        stack.remember(TICKETS)
        assert later.outputs() == TICKETS
    assert [str(tmp_path / "stacks.json") in line for line in said] == [True]

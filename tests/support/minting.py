"""Mints and reads of counters for tests, as a command with the settings of a stack performs them."""

import os

from ticketctl.deadline import Deadline
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.minting.source import RETRY_KEY, new_retry_key
from ticketctl.models import Block, Counter, MintRequest


def requested(count: int, key: str | None = None, partition: str | None = None) -> MintRequest:
    """Return a request for a mint; a key without the prefix of a retry key is a typed key."""
    key = new_retry_key() if key is None else key
    return MintRequest(partition, count, key, is_typed=not key.startswith(RETRY_KEY))


def take(at: RegionalStack | Regions, count: int, *, key: str | None = None) -> Block:
    """Take tickets from the counter that the settings select."""
    regions = at if isinstance(at, Regions) else Regions(at, environ=os.environ)
    settings = regions.home.settings
    return regions.mint(requested(count, key, settings.partition), Deadline(settings.timeout))


def look(at: RegionalStack) -> Counter:
    """Read the counter that the settings select."""
    return at.counter(at.settings.partition, Deadline(at.settings.timeout))

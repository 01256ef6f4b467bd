"""The domains of AWS's regions, from the SDK's own data; reading it does not load the SDK."""

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any


@cache
def dynamodb_url(region: str) -> str:
    """DynamoDB's address in a region; ``LookupError`` if the SDK's data has no such region."""
    for partition in _partitions():
        if region in partition["regions"] or re.match(partition["regionRegex"], region):
            return f"https://dynamodb.{region}.{partition['outputs']['dnsSuffix']}"
    raise LookupError(f"the AWS SDK does not know the region {region}")


@cache
def _partitions() -> list[dict[str, Any]]:
    """The SDK's list of partitions (``aws``, ``aws-cn``, …); empty if it cannot be read."""
    found = importlib.util.find_spec("botocore")  # this finds the package without importing it
    folders = (found and found.submodule_search_locations) or []
    try:
        (text,) = [(Path(folder) / "data" / "partitions.json").read_bytes() for folder in folders]
        return list(json.loads(text)["partitions"])
    except (OSError, ValueError, KeyError):
        return []

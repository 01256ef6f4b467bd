"""The regions of an account, newer ones than the SDK knows included, and which of them it has enabled."""

from collections.abc import Callable, Mapping
from typing import Any

from ticketctl.aws.sdk_errors import translated_errors
from ticketctl.errors import TicketctlError

MakeClient = Callable[[str], Any]
"""Makes the botocore client of a service."""
MOST_PER_PAGE = 50  # the limit of account:ListRegions; AWS has fewer regions


def listed_regions(make_client: MakeClient) -> Mapping[str, bool]:
    """Whether each region is enabled, as AWS says in one request, or two if the first is denied.

    Empty if the caller has neither ``account:ListRegions`` nor ``ec2:DescribeRegions``, or AWS does not answer.
    """
    for ask in (_from_account, _from_ec2):
        try:
            with translated_errors("the list of regions"):
                return ask(make_client)
        except TicketctlError:
            continue
    return {}


def _from_account(make_client: MakeClient) -> Mapping[str, bool]:
    regions = make_client("account").list_regions(MaxResults=MOST_PER_PAGE)["Regions"]
    return {region["RegionName"]: region.get("RegionOptStatus") != "DISABLED" for region in regions}


def _from_ec2(make_client: MakeClient) -> Mapping[str, bool]:
    regions = make_client("ec2").describe_regions(AllRegions=True)["Regions"]
    return {region["RegionName"]: region.get("OptInStatus") != "not-opted-in" for region in regions}

"""Signatures (Signature Version 4): AWS's published examples, and comparison with botocore for any request.

Both signers are tested: the handler's, which signs every given header, and ``Aws.signed_headers``.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import DERANDOMIZED, times
from tests.support.sigv4 import check
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.handler import handler


class Vector(NamedTuple):
    """A request of AWS's Signature Version 4 test suite, with its published signature."""

    name: str
    method: str
    signature: str
    path: str = "/"
    headers: Mapping[str, str] = {}
    body: bytes = b""


FORM = "application/x-www-form-urlencoded"
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwt"
    "hAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVX"
    "AkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)
UNRESERVED = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VECTORS = [
    Vector("get-vanilla", "GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    Vector("post-vanilla", "POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    Vector(
        "get-unreserved", "GET", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f", path=UNRESERVED
    ),
    Vector("get-utf8", "GET", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85", path="/\u1234"),
    Vector(
        "get-header-key-duplicate",
        "GET",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        headers={"my-header1": "value2,value2,value1"},
    ),
    Vector(
        "get-header-value-order",
        "GET",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        headers={"my-header1": "value4,value1,value3,value2"},
    ),
    Vector(
        "post-header-key-sort",
        "POST",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        headers={"my-header1": "value1"},
    ),
    Vector(
        "post-header-value-case",
        "POST",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        headers={"my-header1": "VALUE1"},
    ),
    Vector(
        "post-sts-header-before",
        "POST",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        headers={"x-amz-security-token": TOKEN},
    ),
    Vector(
        "post-x-www-form-urlencoded",
        "POST",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        headers={"content-type": FORM},
        body=b"Param1=value1",
    ),
    Vector(
        "post-x-www-form-urlencoded-parameters",
        "POST",
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
        headers={"content-type": f"{FORM}; charset=utf8"},
        body=b"Param1=value1",
    ),
]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.name for vector in VECTORS])
def test_a_published_request_has_its_published_signature(vector: Vector) -> None:
    """Requests of the test suite without a query get their published signatures."""
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", **vector.headers}
    signed = handler.authorization(
        vector.method,
        vector.path,
        headers,
        vector.body,
        credentials=handler.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        service="service",
    )
    assert signed == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={';'.join(sorted(headers))}, Signature={vector.signature}"
    )


class Request(NamedTuple):
    """A request to sign; ``token`` is empty if there is no session."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    keys: tuple[str, str]
    token: str
    service: str
    region: str
    moment: datetime


def signed_by_handler(request: Request) -> dict[str, str]:
    url = urlsplit(request.url)
    headers = {**request.headers, "host": url.netloc, "x-amz-date": request.moment.strftime("%Y%m%dT%H%M%SZ")}
    if request.token:
        headers["x-amz-security-token"] = request.token
    authorization = handler.authorization(
        request.method,
        url.path,
        headers,
        request.body,
        credentials=handler.Credentials(*request.keys, request.token),
        region=request.region,
        service=request.service,
    )
    return {**headers, "authorization": authorization}


def signed_by_aws(request: Request) -> dict[str, str]:
    """Sign now, ignoring the time of the request, with the keys in the environment."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    keys = dict(zip(names, (*request.keys, request.token), strict=True))
    with patch.dict(os.environ, keys), closing(Aws(request.region)) as aws:
        return aws.signed_headers(
            request.method, request.url, request.headers, request.body, Deadline(10), service=request.service
        )


WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
SEGMENTS = st.lists(
    st.lists(st.sampled_from("abcXYZ019-._~") | st.sampled_from(["%20", "%2F", "%C3%A9", "%25", "%e1"]), min_size=1)
    .map("".join)
    .filter(lambda segment: segment not in (".", "..")),
    max_size=4,
)
ODD_SEGMENTS = st.lists(st.text("abcXYZ019-_~% \u00e9\u1234+=:@", min_size=1, max_size=8), max_size=3)
SECRETS = WORDS | st.text("s3cr\u00e9t/+= \u1234", min_size=1).filter(lambda secret: secret == secret.strip())
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-amz-target", "accept", "x-amz-meta-a", "a-header"]),
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join),
)
URLS = st.builds(
    lambda host, segments, end: f"https://{host}/{'/'.join(segments)}{end if segments else ''}",
    st.sampled_from(["tickets.example", "127.0.0.1:8000"]),
    SEGMENTS | ODD_SEGMENTS,
    st.sampled_from(["", "/"]),
)
REQUESTS = st.builds(
    Request,
    method=st.sampled_from(["POST", "GET", "PUT"]),
    url=URLS,
    headers=HEADERS,
    body=st.binary(max_size=300) | st.text(max_size=50).map(str.encode),
    keys=st.tuples(
        WORDS, WORDS | st.text("s3cr\u00e9t/+= \u1234", min_size=1).filter(lambda secret: secret.strip() == secret)
    ),
    token=st.just("") | WORDS,
    service=st.sampled_from(["dynamodb", "lambda"]),
    region=st.sampled_from(["us-east-1", "eu-central-2", "cn-north-1", "us-gov-west-1"]),
    moment=st.datetimes(datetime(1980, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize("sign", [signed_by_handler, signed_by_aws])
def test_any_request_is_signed_as_botocore_signs_it(sign: Callable[[Request], dict[str, str]]) -> None:
    """Any request, with and without a session token, gets botocore's signature; no header is changed."""

    @settings(max_examples=times(150), deadline=None, derandomize=DERANDOMIZED, database=None)
    @given(REQUESTS)
    def holds(request: Request) -> None:
        signed = sign(request)
        asked = (request.method, request.url, request.body)
        lower = check(signed, asked, (request.service, request.region), request.keys)
        assert lower.get("host", urlsplit(request.url).netloc) == urlsplit(request.url).netloc
        assert lower.get("x-amz-security-token", "") == request.token
        assert request.headers.items() <= lower.items()

    holds()


@pytest.mark.usefixtures("no_aws")
@pytest.mark.parametrize("service", ["dynamodb", "lambda"])
def test_a_header_with_spaces_in_a_row(service: str) -> None:
    """A header with consecutive spaces is sent unchanged and not signed, because signing would collapse the spaces."""
    headers = {"content-type": "application/json", "idempotency-key": '"a  b"'}
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    keys = ("AKID", "s3cr3t/+")
    request = Request("POST", "https://tickets.example/", headers, b"", keys, "", service, "eu-west-1", moment)
    signed = signed_by_aws(request)
    check(signed, ("POST", request.url, b""), (service, "eu-west-1"))
    assert headers.items() <= signed.items()

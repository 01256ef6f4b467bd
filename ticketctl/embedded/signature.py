"""Verify the Signature Version 4 of a request, in its headers or in its query string (a presigned URL).

The protocol is AWS's "Signature Version 4 for API requests". The calculation is ministack's ``sigv4``: the engine
loads ministack anyway, while botocore would take another 50 ms. A test compares the result with botocore's.
"""

import hmac
import posixpath
import re
import time
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
FRESH_SECONDS = 900
PRESIGNED_SECONDS = 604_800

SecretOf = Callable[[str, str], str]
"""``(access key ID, session token or "")`` to the secret; raises ``RejectedRequestError`` if the key is unknown."""


class RejectedRequestError(Exception):
    """The engine refuses a request; the message is the reason and completes "The request was refused: …"."""


@dataclass(frozen=True)
class SignedRequest:
    """A request as it was received.

    ``path`` and ``raw_query`` are percent-encoded. ``query`` has the pairs of the query string in order, decoded to one
    character per byte. ``headers`` has lower-case names.
    """

    method: str
    path: str
    raw_query: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Claim:
    """The signature of a request and its parameters; ``credential`` is ``KEY/DATE/REGION/SERVICE/aws4_request``."""

    credential: str
    signed_headers: str
    signature: str
    date: str
    token: str
    expires_after: int


def claims_signature(request: SignedRequest) -> bool:
    """Whether a request has a signature of any version of AWS's protocol, valid or not."""
    return request.headers.get("authorization", "").upper().startswith("AWS") or any(
        name.lower().startswith(("x-amz-", "awsaccesskeyid")) for name, _ in request.query
    )


def verify_signature(request: SignedRequest, secret_of: SecretOf) -> None:
    """Raise ``RejectedRequestError`` unless a request is signed with a known key, not expired and not altered."""
    from ministack.core import sigv4

    claim = _read_claim(request)
    key, *scope = claim.credential.split("/")
    if len(scope) != 4 or scope[0] != claim.date[:8] or scope[3] != "aws4_request":
        raise RejectedRequestError("its credential scope is incomplete")
    for name in ("host", "x-amz-target"):
        if name in request.headers and name not in claim.signed_headers.split(";"):
            raise RejectedRequestError(f"its header {name} is not signed")
    if not -FRESH_SECONDS <= time.time() - _epoch(claim.date) <= claim.expires_after:
        raise RejectedRequestError("its signature has expired, or the clock is wrong")
    digest = sha256(request.body).hexdigest()
    if request.headers.get("x-amz-content-sha256", digest) not in (digest, "UNSIGNED-PAYLOAD"):
        raise RejectedRequestError("its body does not match its signed hash")
    path = sigv4.uri_encode(_without_dots(request.path), encode_slash=False)
    headers = sigv4.build_canonical_headers(request.headers, claim.signed_headers)
    payload = request.headers.get("x-amz-content-sha256", digest)
    secret, given = secret_of(key, claim.token), claim.signature.encode(errors="replace")
    for query in _canonical_queries(request):
        canonical = "\n".join([request.method, path, query, headers, claim.signed_headers, payload])
        text = sigv4.build_string_to_sign(claim.date, scope[0], scope[1], scope[2], canonical)
        if hmac.compare_digest(sigv4.calculate_signature(secret, scope[0], scope[1], scope[2], text).encode(), given):
            return
    raise RejectedRequestError("its signature is wrong")


def _without_dots(path: str) -> str:
    """A path without dot segments and repeated slashes, as signers normalize it (RFC 3986, section 5.2.4)."""
    normal = "/" + posixpath.normpath(path or "/").lstrip("/")
    ends_in_slash = path.endswith(("/", "/.", "/..")) and normal != "/"
    return normal + "/" * ends_in_slash


def _canonical_queries(request: SignedRequest) -> Iterator[str]:
    """The query string in the protocol's encoding, and as it was sent: botocore signs that if the encoding differs."""

    def encode(text: str) -> str:
        return quote(text, safe="-_.~", encoding="latin-1")

    encoded = [(encode(name), encode(value)) for name, value in request.query]
    as_sent = [pair.partition("=")[::2] for pair in request.raw_query.split("&") if pair]
    for pairs in (encoded, as_sent):
        kept = sorted(pair for pair in pairs if pair[0] != "X-Amz-Signature")
        yield "&".join(f"{name}={value}" for name, value in kept)


def _read_claim(request: SignedRequest) -> _Claim:
    header, given = request.headers.get("authorization", ""), dict(request.query)
    if header and "X-Amz-Signature" in given:
        raise RejectedRequestError("it is signed twice")
    if header:
        kind, _, rest = header.partition(" ")
        fields = {name.strip(): value for name, _, value in (part.partition("=") for part in rest.split(","))}
        date, token = request.headers.get("x-amz-date", ""), request.headers.get("x-amz-security-token", "")
        expires_after = FRESH_SECONDS
    else:
        kind = given.get("X-Amz-Algorithm", "")
        fields = {name: given.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
        date, token = given.get("X-Amz-Date", ""), given.get("X-Amz-Security-Token", "")
        expires = given.get("X-Amz-Expires", "")
        expires_after = min(int(expires), PRESIGNED_SECONDS) if re.fullmatch("[0-9]{1,6}", expires) else 0
    if kind != ALGORITHM:
        raise RejectedRequestError("it is not signed")
    return _Claim(
        fields.get("Credential", ""),
        fields.get("SignedHeaders", ""),
        fields.get("Signature", ""),
        date,
        token,
        expires_after,
    )


def _epoch(date: str) -> int:
    try:
        return timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise RejectedRequestError("it has no valid date") from None

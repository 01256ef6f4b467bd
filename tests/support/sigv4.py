"""Checks the signature of a request (Signature Version 4) against the one that botocore calculates."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def signed_names(headers: Mapping[str, str]) -> list[str]:
    """Return the names of the headers that are signed according to the request."""
    return headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")


def check(
    headers: Mapping[str, str],
    request: tuple[str, str, bytes],
    scope: tuple[str, str],
    keys: tuple[str, str] = ("AKID", "s3cr3t/+"),
) -> dict[str, str]:
    """Check that the signature is the one that botocore calculates; return the headers with lower-case names.

    ``request`` is the method, the address and the body, ``scope`` the service and the region.
    """
    method, url, body = request
    lower = {name.lower(): value for name, value in headers.items()}
    assert len(lower) == len(headers)
    names = signed_names(lower)
    on_the_wire = {"host": urlsplit(url).netloc, **lower}
    assert {name for name in on_the_wire if name == "host" or name.startswith("x-amz-")} <= set(names)
    asked = AWSRequest(method=method, url=url, data=body, headers={name: on_the_wire[name] for name in names})
    asked.context["timestamp"] = lower["x-amz-date"]
    auth = SigV4Auth(Credentials(*keys), *scope)
    assert set(auth.headers_to_sign(asked).keys()) == set(names)
    signature = auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked)
    assert lower["authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(asked)}, SignedHeaders={';'.join(sorted(names))}, "
        f"Signature={signature}"
    )
    assert re.fullmatch(r"\d{8}T\d{6}Z", lower["x-amz-date"])
    return lower

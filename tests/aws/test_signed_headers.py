"""``Aws.signed_headers``: whose credentials sign, the same signature as botocore's, and the choice of the sender."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from tests.support.dynamodb_server import CERTIFICATE, dynamodb, mints, then_closes
from tests.support.peer import Peer, says
from tests.support.sigv4 import check, signed_names
from ticketctl.aws.account import Aws
from ticketctl.deadline import Deadline
from ticketctl.deployments.session import Session
from ticketctl.errors import UnreachableError
from ticketctl.settings import resolve

pytestmark = pytest.mark.usefixtures("no_aws", "_keys")

URL = "https://tickets.example/"
TARGET = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.UpdateItem"}
MINT = {"content-type": "application/json", "idempotency-key": '"a  b"'}


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/+")


# --- the signature -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://tickets.example", URL])
def test_the_root(url: str) -> None:
    """An address without a path is signed as ``/``, which is what is sent."""
    with closing(Aws("eu-west-1")) as aws:
        check(aws.signed_headers("POST", url, {}, b"{}", Deadline(10)), ("POST", URL, b"{}"), ("lambda", "eu-west-1"))


@pytest.mark.parametrize("path", ["a/./b", "a/../b", "..", "a//b", "//"])
def test_a_path_that_is_normalised(path: str) -> None:
    """Dot segments and double slashes are signed in the normalized form that AWS's services use."""
    with closing(Aws("eu-west-1")) as aws:
        url = URL + path
        check(aws.signed_headers("POST", url, {}, b"{}", Deadline(10)), ("POST", url, b"{}"), ("lambda", "eu-west-1"))


def test_with_a_query() -> None:
    """An address with a query is signed including the query."""
    url = f"{URL}status?partition=a%20b&x=%C3%A9"
    with closing(Aws("eu-west-1")) as aws:
        check(aws.signed_headers("GET", url, {}, b"", Deadline(10)), ("GET", url, b""), ("lambda", "eu-west-1"))


def test_a_name_in_the_address() -> None:
    """User information before the @ of an address is not part of the signed host."""
    with closing(Aws("eu-west-1")) as aws:
        headers = aws.signed_headers("POST", "https://user:pw@tickets.example/", {}, b"", Deadline(10))
    assert "host" in signed_names(check(headers, ("POST", URL, b""), ("lambda", "eu-west-1")))


# --- the credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?partition=a"])
@pytest.mark.parametrize("variable", ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"])
def test_a_session_token(monkeypatch: pytest.MonkeyPatch, query: str, variable: str) -> None:
    """A session token in the environment, under either name, is sent and signed."""
    monkeypatch.setenv(variable, "token/+==")
    with closing(Aws("eu-west-1")) as aws:
        headers = aws.signed_headers("POST", URL + query, {}, b"", Deadline(10))
    lower = check(headers, ("POST", URL + query, b""), ("lambda", "eu-west-1"))
    assert lower["x-amz-security-token"] == "token/+=="
    assert "x-amz-security-token" in signed_names(lower)


def test_an_empty_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty session token is ignored."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    with closing(Aws("eu-west-1")) as aws:
        assert "x-amz-security-token" not in check(
            aws.signed_headers("POST", URL, {}, b"", Deadline(10)), ("POST", URL, b""), ("lambda", "eu-west-1")
        )


def test_a_profile_that_was_named(no_aws: Path) -> None:
    """A selected profile signs with its own keys, even if there are keys in the environment."""
    (no_aws / "aws_credentials").write_text(
        "[work]\naws_access_key_id = AKWORK\naws_secret_access_key = other\naws_session_token = token\n",
        encoding="utf-8",
    )
    with closing(Aws("eu-west-1", profile="work")) as aws:
        assert aws.plain_credentials is None
        headers = aws.signed_headers("POST", URL, TARGET, b"{}", Deadline(10), service="dynamodb")
    lower = check(headers, ("POST", URL, b"{}"), ("dynamodb", "eu-west-1"), ("AKWORK", "other"))
    assert lower["x-amz-security-token"] == "token"


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_keys_of_a_file(monkeypatch: pytest.MonkeyPatch, no_aws: Path, missing: str) -> None:
    """If the environment has no complete key, there are no plain credentials."""
    monkeypatch.delenv(missing)
    with closing(Aws("eu-west-1")) as aws:
        assert aws.plain_credentials is None
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    (no_aws / "aws_credentials").write_text(
        "[default]\naws_access_key_id = AKFILE\naws_secret_access_key = other\n", encoding="utf-8"
    )
    with closing(Aws("eu-west-1")) as aws:
        headers = aws.signed_headers("POST", URL, {}, b"", Deadline(10))
    check(headers, ("POST", URL, b""), ("lambda", "eu-west-1"), ("AKFILE", "other"))


def test_keys_are_read_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the keys in the environment change, later requests are signed with the new ones."""
    with closing(Aws("eu-west-1")) as aws:
        for key, secret in (("AKONE", "one"), ("AKTWO", "two"), ("AKONE", "three")):
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            headers = aws.signed_headers("POST", URL, {}, b"", Deadline(10))
            check(headers, ("POST", URL, b""), ("lambda", "eu-west-1"), (key, secret))


@pytest.mark.parametrize("query", ["", "?partition=a"])
def test_the_embedded_aws(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """Requests to the embedded AWS are signed with its own key, never with the user's."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "USERS")
    with closing(Aws("eu-west-1", embedded=("test", "test"))) as aws:
        headers = aws.signed_headers("POST", URL + query, {}, b"", Deadline(10))
    lower = check(headers, ("POST", URL + query, b""), ("lambda", "eu-west-1"), ("test", "test"))
    assert "x-amz-security-token" not in lower


def in_a_fresh_process(folder: Path, script: str, *arguments: str, **environ: str) -> Any:
    """Run a script in a process with only these variables; return what it prints as JSON."""
    files = {name: str(folder / name.lower()) for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"HOME": str(folder), "TICKETCTL_HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true"} | files | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    return json.loads(run.stdout)


SIGNS = """if True:
    import json, sys
    from ticketctl.aws.account import Aws
    from ticketctl.deadline import Deadline
    url, embedded = sys.argv[1], ("test", "test") if sys.argv[2:] == ["embedded"] else None
    headers = Aws("eu-west-1", embedded=embedded).signed_headers("POST", url, {}, b"{}", Deadline(10))
    print(json.dumps([headers, "botocore" in sys.modules]))
"""


@pytest.mark.parametrize(
    ("url", "embedded", "environ", "loads"),
    [
        (URL, [], {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+"}, False),
        (
            URL,
            [],
            {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+", "AWS_SESSION_TOKEN": "t"},
            False,
        ),
        (URL, ["embedded"], {}, False),
        (f"{URL}?a=b", [], {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+"}, True),
    ],
    ids=["keys", "token", "embedded", "query"],
)
def test_what_signing_loads(
    tmp_path: Path, url: str, embedded: list[str], environ: dict[str, str], *, loads: bool
) -> None:
    """If the keys are in the environment, a request without a query is signed without loading the SDK."""
    headers, loaded = in_a_fresh_process(tmp_path, SIGNS, url, *embedded, **environ)
    keys = ("test", "test") if embedded else ("AKID", "s3cr3t/+")
    check(headers, ("POST", url, b"{}"), ("lambda", "eu-west-1"), keys)
    assert loaded is loads


# --- the choice of a sender --------------------------------------------------------------------------

CHOOSES = """if True:
    import contextlib, json, os, sys
    from ticketctl.deadline import Deadline
    from ticketctl.deployments.session import Session
    from ticketctl.errors import UnreachableError
    from ticketctl.settings import resolve
    with contextlib.closing(Session(resolve({}, os.environ), environ=os.environ)) as connection:
        with contextlib.suppress(UnreachableError):
            connection.sender("Tickets")(Deadline(10))("GetItem", {"TableName": "a", "Key": {}})
    print(json.dumps("botocore" in sys.modules))
"""
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+", "AWS_REGION": "eu-west-1"}
UPDATE = {"TableName": "Tickets", "Key": {"partition": {"S": "a"}}}
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("environ", "by_sdk"),
    [
        ({}, False),
        ({"AWS_SESSION_TOKEN": "t"}, False),
        ({"AWS_ENDPOINT_URL": NOWHERE}, False),
        ({"AWS_ENDPOINT_URL_DYNAMODB": ""}, False),
        ({"AWS_REGION": "eusc-de-east-1"}, False),
        ({"AWS_REGION": "us-iso-east-1"}, False),
        ({"AWS_PROFILE": "work"}, False),
        ({"TICKETCTL_PROFILE": "work"}, True),
        ({"AWS_ENDPOINT_URL_DYNAMODB": NOWHERE}, True),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, True),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, True),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else None,
)
def test_which_sender(tmp_path: Path, environ: dict[str, str], *, by_sdk: bool) -> None:
    """The SDK is loaded only if an explicit profile overrides the access key, or for a special endpoint."""
    (tmp_path / "aws_shared_credentials_file").write_text(
        "[work]\naws_access_key_id = AKWORK\naws_secret_access_key = other\n", encoding="utf-8"
    )
    environ = {**KEYS, "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, **environ}
    assert in_a_fresh_process(tmp_path, CHOOSES, **environ) is by_sdk


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("use_fips_endpoint = true", "dynamodb-fips.us-east-1.amazonaws.com"),
        ("use_dualstack_endpoint = true", "dynamodb.us-east-1.api.aws"),
        ("endpoint_url = https://vpce.example", "vpce.example"),
        ("services = mine\n[services mine]\ndynamodb =\n  endpoint_url = https://vpce.example", "vpce.example"),
    ],
    ids=["fips", "dual-stack", "endpoint", "service"],
)
@pytest.mark.parametrize("named_by", ["file", "variable"])
def test_where_the_configuration_sends(
    monkeypatch: pytest.MonkeyPatch, no_aws: Path, line: str, host: str, named_by: str
) -> None:
    """The endpoint in the AWS configuration is used, wherever the keys come from."""
    keys = "aws_access_key_id = AKFILE\naws_secret_access_key = other\n" if named_by == "file" else ""
    (no_aws / "aws_config").write_text(f"[default]\n{keys}{line}\n", encoding="utf-8")
    if named_by == "file":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refused_by_proxy(monkeypatch, AWS_REGION="us-east-1") == f"{host}:443"


def refused_by_proxy(monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    """Return the host and port of the CONNECT request to a proxy, which refuses it."""
    with Peer(says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with connected(monkeypatch, **environ) as connection, pytest.raises(UnreachableError):
            connection.sender("Tickets")(Deadline(5.0))("GetItem", UPDATE)
        (asked,) = proxy.received
    method, place, _ = asked.line.split(" ")
    assert method == "CONNECT"
    return place


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Iterator[Session]:
    """Open a session with the settings from the environment and these variables."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with closing(Session(resolve({}, os.environ), environ=os.environ)) as connection:
        yield connection


@pytest.mark.parametrize(
    ("region", "suffix"),
    [
        ("eu-west-1", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("eusc-de-east-1", "amazonaws.eu"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-east-1", "sc2s.sgov.gov"),
        ("us-isof-south-1", "csp.hci.ic.gov"),
        ("eu-isoe-west-1", "cloud.adc-e.uk"),
    ],
)
def test_where_a_region_is(monkeypatch: pytest.MonkeyPatch, region: str, suffix: str) -> None:
    """A region's address has the domain of its partition."""
    assert refused_by_proxy(monkeypatch, AWS_REGION=region) == f"dynamodb.{region}.{suffix}:443"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_the_user_names(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Certificates from a variable are trusted for DynamoDB, also from the variables of AWS's tools."""
    bundle = {variable: str(CERTIFICATE)}
    with (
        dynamodb(repeat(then_closes(mints(7))), tls=True) as server,
        connected(monkeypatch, AWS_REGION="eu-west-1", AWS_ENDPOINT_URL=server.url, **bundle) as connection,
    ):
        answer = connection.sender("Tickets")(Deadline(5.0))("UpdateItem", UPDATE)
    assert answer["Attributes"] == {"hand_crafted_int": {"N": "7"}}


@pytest.mark.parametrize(
    ("variable", "host"),
    [
        ("AWS_USE_FIPS_ENDPOINT", "dynamodb-fips.us-east-1.amazonaws.com"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "dynamodb.us-east-1.api.aws"),
        ("AWS_DEFAULTS_MODE", "dynamodb.us-east-1.amazonaws.com"),
    ],
)
def test_where_the_variables_send(monkeypatch: pytest.MonkeyPatch, variable: str, host: str) -> None:
    """A variable that requests a special endpoint is obeyed; any other keeps the default endpoint."""
    value = "standard" if variable == "AWS_DEFAULTS_MODE" else "true"
    asked = refused_by_proxy(monkeypatch, AWS_REGION="us-east-1", **{variable: value})
    assert asked == f"{host}:443"


@pytest.mark.parametrize(
    ("variable", "agent"), [("AWS_ENDPOINT_URL", None), ("AWS_ENDPOINT_URL_DYNAMODB", "ticketctl")]
)
def test_an_endpoint_from_a_variable(monkeypatch: pytest.MonkeyPatch, variable: str, agent: str | None) -> None:
    """An endpoint from a variable is used; only DynamoDB's own variable needs the SDK, which sends a user agent."""
    with (
        dynamodb(repeat(then_closes(mints(7)))) as server,
        connected(monkeypatch, **{"AWS_REGION": "eu-west-1", variable: server.url}) as connection,
    ):
        answer = connection.sender("Tickets")(Deadline(5.0))("UpdateItem", UPDATE)
        ((_, headers, _),) = server.received
    assert answer["Attributes"] == {"hand_crafted_int": {"N": "7"}}
    said = {name.lower(): value for name, value in headers.items()}.get("user-agent")
    assert said == agent or (agent is not None and said is not None and said.endswith(agent))

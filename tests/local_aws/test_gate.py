"""The gate of the embedded AWS rejects requests without a valid signature and lets signed requests through.

Each rejected request is sent over HTTP, as another program, another user or a web page on the same machine would.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.support.command_line import Ticketctl
from tests.support.embedded_aws import REGION, physical_id
from ticketctl.aws.account import Aws
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.embedded.engine import Engine, reachable_url

NOBODY = 65534
MINT = json.dumps({"TableName": "Tickets", "Key": {"partition": {"S": "p"}}}).encode()
DYNAMODB = {"x-amz-target": "DynamoDB_20120810.GetItem", "content-type": "application/x-amz-json-1.0"}
Answer = tuple[int, dict[str, str], bytes]


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """Send one request exactly as it is written, with its ``Host``; return status, lower-case headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def signed(
    engine: Engine,
    *,
    key: str = "",
    secret: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = MINT,
    path: str = "/",
) -> dict[str, str]:
    """Return the headers of a request to DynamoDB that botocore signed."""
    request = AWSRequest("POST", engine.endpoint_url + path, {**DYNAMODB, **(headers or {})}, body)
    SigV4Auth(Credentials(key or engine.key, secret or engine.secret), "dynamodb", REGION).add_auth(request)
    return dict(request.headers.items())


@pytest.fixture(scope="module")
def public(engine: Engine, ticketctl: Ticketctl) -> str:
    """The path of a public Function URL."""
    done = ticketctl("deploy", "--local", "--stack", "open-to-all", "--public", "--yes")
    assert done.returncode == 0, done.stderr
    return urlsplit(reachable_url(done.stdout.strip(), engine.endpoint_url)).path


@pytest.fixture
def private(connect: Callable[..., RegionalStack], deployed: str) -> str:
    """The path of a Function URL with the auth type AWS_IAM."""
    return urlsplit(connect(stack=deployed).url()).path


def test_the_engines_own_key(engine: Engine) -> None:
    """A request signed with the engine's key is accepted: DynamoDB itself answers that there is no such table."""
    status, _, body = ask(engine.port, "POST", "/", signed(engine), MINT)
    assert (status, json.loads(body)["__type"].rpartition("#")[2]) == (400, "ResourceNotFoundException")


REFUSED: dict[str, Callable[[Engine], tuple[dict[str, str], bytes]]] = {
    "unsigned": lambda engine: (DYNAMODB, MINT),
    "ministack's root key": lambda engine: (signed(engine, key="test", secret="test"), MINT),
    "an account as a key": lambda engine: (signed(engine, key="123456789012", secret="test"), MINT),
    "the right key, a wrong secret": lambda engine: (signed(engine, secret="guessed"), MINT),
    "another body": lambda engine: (signed(engine), MINT + b" "),
    "another target": lambda engine: ({**signed(engine), "X-Amz-Target": "DynamoDB_20120810.DeleteTable"}, MINT),
    "an unknown key": lambda engine: (signed(engine, key="AKIAIOSFODNN7EXAMPLE"), MINT),
    "an old date": lambda engine: ({**signed(engine), "X-Amz-Date": "20200101T000000Z"}, MINT),
    "no date": lambda engine: ({k: v for k, v in signed(engine).items() if k != "X-Amz-Date"}, MINT),
    "a signature of version 2": lambda engine: ({"authorization": f"AWS {engine.key}:c2lnbmVk"}, MINT),
    "a foreign host": lambda engine: (
        {**signed(engine, headers={"Host": "evil.example"}), "Host": "evil.example"},
        MINT,
    ),
    "a page": lambda engine: (signed(engine, headers={"Origin": "https://evil.example"}), MINT),
    "a page of this machine": lambda engine: (signed(engine, headers={"Sec-Fetch-Site": "same-origin"}), MINT),
    "Latin-1": lambda engine: (
        {**DYNAMODB, "authorization": "AWS4-HMAC-SHA256 Credential=\xe9/x, Signature=\xe9"},
        MINT,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(engine: Engine, case: str) -> None:
    """A request that is not signed correctly, or that comes from a browser, gets 403 and nothing else."""
    headers, body = REFUSED[case](engine)
    status, answered, _ = ask(engine.port, "POST", "/", headers, body)
    assert status == 403
    assert not any(name.startswith("access-control-") for name in answered)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("GET", "/"),
        ("OPTIONS", "/"),
        ("GET", "/_ministack/health"),
        ("GET", "/_localstack/health"),
        ("POST", "/_ministack/reset"),
        ("GET", "/_ministack/config"),
        ("POST", "/_ministack/cfn-response/x"),
        ("POST", "/_ministack/rds/iam-auth"),
        ("GET", "/_aws/lambda-url"),
        ("GET", "/_aws/lambda-url/" + 32 * "a" + "/"),
        ("GET", "/_aws/execute-api/x/y"),
        ("GET", "/_aws/lambda-url/../../_ministack/health"),
        ("POST", "//_ministack/reset"),
        ("POST", "/_aws/lambda-url/"),
        ("POST", "/_aws/lambda-url//_ministack/reset"),
        ("GET", "/_aws/lambda-url/%2e%2e/%2e%2e/_ministack/reset"),
        ("GET", "/2015-03-31/functions/"),
        ("PUT", "/bucket/object"),
        ("GET", "/favicon.ico"),
    ],
)
def test_unsigned_paths(engine: Engine, method: str, path: str) -> None:
    """Without a signature every path is 403, including ministack's own paths and unknown Function URLs."""
    assert ask(engine.port, method, path)[0] == 403


def test_what_a_page_can_send_runs_nothing(engine: Engine, aws: Aws) -> None:
    """A request that needs no preflight (text/plain, presigned with a guessed key) creates no function."""
    document = json.dumps({"FunctionName": "evil", "Runtime": "python3.12", "Role": "r", "Handler": "h.h"}).encode()
    request = AWSRequest("POST", engine.endpoint_url + "/2015-03-31/functions", {}, document)
    SigV4QueryAuth(Credentials("test", "test"), "lambda", REGION).add_auth(request)
    url = urlsplit(request.url)
    headers = {"Origin": "https://evil.example", "content-type": "text/plain"}
    for path in ("/2015-03-31/functions", f"{url.path}?{url.query}"):
        assert ask(engine.port, "POST", path, headers, document)[0] == 403
    assert "evil" not in [f["FunctionName"] for f in aws.client("lambda").list_functions()["Functions"]]


def test_public_function_url(engine: Engine, public: str) -> None:
    """Anyone may call a public Function URL, also from a browser; a page of another origin cannot read the answer."""
    status, answered, body = ask(engine.port, "POST", public, {"Origin": "https://a.example", "Sec-Fetch-Site": "none"})
    assert (status, json.loads(body)["count"]) == (200, 1)
    assert not any(name.startswith("access-control-") for name in answered)
    assert ask(engine.port, "POST", public, {"Host": f"evil.example:{engine.port}"})[0] == 403


def test_private_function_url(engine: Engine, private: str) -> None:
    """A Function URL with the auth type AWS_IAM rejects unsigned requests, whatever headers a page adds."""
    for headers in ({}, {"Origin": "https://a.example"}, {"authorization": "Bearer x"}):
        assert ask(engine.port, "POST", private, headers)[0] == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user(engine: Engine, public: str, private: str) -> None:
    """A process of another user gets 403 except from a public Function URL, and cannot read any secret."""
    record = Path(engine_folder(engine) / "engine.json")
    script = (
        "import http.client, json, sys, urllib.request\n"
        "port, paths, record = json.loads(sys.argv[1])\n"
        "seen = []\n"
        "for path in paths:\n"
        "    c = http.client.HTTPConnection('127.0.0.1', port, timeout=30)\n"
        "    c.request('POST', path, b'{}'); seen.append(c.getresponse().status)\n"
        "try: open(record); seen.append('read')\n"
        "except OSError: seen.append('hidden')\n"
        "print(json.dumps(seen))\n"
    )
    asked = json.dumps([engine.port, ["/", "/_ministack/reset", "/2015-03-31/functions", private, public], str(record)])
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-c", script, asked],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout or "null") == [403, 403, 403, 403, 200, "hidden"], done.stderr


def engine_folder(engine: Engine) -> Path:
    """Return the folder of the running engine, from its command line."""
    return Path(Path(f"/proc/{engine.pid}/cmdline").read_bytes().split(b"\0")[3].decode())


def test_secret_stays_in_its_file(engine: Engine) -> None:
    """The secret is in no command line, initial environment or log; its file is readable only by its owner."""
    folder = engine_folder(engine)
    for place in (Path(f"/proc/{engine.pid}/cmdline"), Path(f"/proc/{engine.pid}/environ"), folder / "engine.log"):
        assert engine.secret.encode() not in place.read_bytes()
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {name for name, mode in modes.items() if mode & 0o077} <= {"lock"}


@pytest.fixture
def user(aws: Aws) -> Iterator[dict[str, str]]:
    """An IAM user created inside the engine, without a policy; GetCallerIdentity needs none."""
    iam = aws.client("iam")
    iam.create_user(UserName="reader")
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    yield {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
    iam.delete_access_key(UserName="reader", AccessKeyId=made["AccessKeyId"])
    iam.delete_user(UserName="reader")


def client(engine: Engine, service: str, **credentials: str) -> Any:
    return botocore.session.get_session().create_client(
        service, region_name=REGION, endpoint_url=engine.endpoint_url, **credentials
    )


def test_iam_user_of_the_engine(engine: Engine, user: dict[str, str], deployed: str) -> None:
    """A user created inside the engine signs with their own key and may do only what a policy allows."""
    me = client(engine, "sts", **user).get_caller_identity()["Arn"]
    assert me.endswith(":user/reader")
    with pytest.raises(ClientError, match="AccessDenied"):
        client(engine, "dynamodb", **user).scan(TableName=deployed)
    with pytest.raises(ClientError, match="signature is wrong"):
        client(engine, "sts", **{**user, "aws_secret_access_key": "guessed"}).get_caller_identity()


def test_role_of_a_function_cannot_be_guessed(engine: Engine, aws: Aws, deployed: str) -> None:
    """The function's role works (it has minted), but its key is not a hash of public names."""
    from hashlib import sha256

    name = physical_id(aws, deployed, "AWS::Lambda::Function")
    config = aws.client("lambda").get_function_configuration(FunctionName=name)
    digest = sha256(f"{config['FunctionArn']}:{config['Role']}".encode()).hexdigest()
    guessed = {
        "aws_access_key_id": f"ASIA{digest[:16].upper()}",
        "aws_secret_access_key": sha256(f"secret:{digest}".encode()).hexdigest(),
        "aws_session_token": sha256(f"token:{digest}".encode()).hexdigest(),
    }
    with pytest.raises(ClientError, match="access key is unknown"):
        client(engine, "sts", **guessed).get_caller_identity()


def test_presigned_url(engine: Engine) -> None:
    """A presigned URL works until it expires or is altered."""
    request = AWSRequest("GET", engine.endpoint_url + "/2015-03-31/functions/", {})
    SigV4QueryAuth(Credentials(engine.key, engine.secret), "lambda", REGION, expires=60).add_auth(request)
    url = urlsplit(request.url)
    path = f"{url.path}?{url.query}"
    assert ask(engine.port, "GET", path)[0] == 200
    assert ask(engine.port, "GET", re.sub(r"Expires=\d+", "Expires=6000", path))[0] == 403
    assert ask(engine.port, "DELETE", path)[0] == 403
    assert ask(engine.port, "GET", path + "&Marker=x")[0] == 403


def test_local_env_serves_boto3_and_curl(environ: dict[str, str], private: str) -> None:
    """The output of ``local env`` is sufficient for boto3, and for curl on the private Function URL."""
    script = f'eval "$({sys.executable} -m ticketctl local env)"\n' + (
        f'{sys.executable} -c \'import boto3; print(boto3.client("sts").get_caller_identity()["Arn"])\'\n'
    )
    curl = shutil.which("curl")
    if curl:
        script += (
            f'{curl} -sS --aws-sigv4 "aws:amz:$AWS_REGION:lambda" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
            f'-H "accept: text/plain" "$AWS_ENDPOINT_URL{private}?count=1"'
        )
    done = subprocess.run(["/bin/sh", "-ec", script], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["arn:aws:iam::000000000000:root", *(["1"] if curl else [])], done.stderr

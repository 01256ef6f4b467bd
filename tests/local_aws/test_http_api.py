"""The HTTP contract through the embedded AWS's Function URL: open, and signed by other programs than ticketctl."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.effort import times
from tests.support.embedded_aws import REGION, Connect
from tests.support.http_api_page import Program, programs
from tests.support.regional_stacks import deploy_alone
from tests.support.schemathesis_run import schemathesis
from ticketctl.embedded.engine import Engine


def test_schemathesis_finds_only_documented_answers(connect: Connect, new_stack: str, tmp_path: Path) -> None:
    """Requests in sequences get documented answers from the deployed function, behind a real Function URL."""
    connection = connect(stack=new_stack)
    deploy_alone(connection, {"AuthType": "NONE"})
    schemathesis(connection.url(), tmp_path, "--phases", "examples,stateful", "--max-examples", str(times(3)))
    counter = connection.counters().get(REGION)
    assert counter is not None
    assert counter.last > 0


@pytest.mark.parametrize("program", [p for p in programs() if p.signs], ids=lambda program: program.language)
def test_a_program_of_the_page_mints_from_a_private_stack(
    connect: Connect, deployed: str, engine: Engine, program: Program, tmp_path: Path
) -> None:
    """What the page says of signing is enough for a URL that verifies signatures; without one it is a 403."""
    if program.language == "sh" and not shutil.which("curl"):
        pytest.skip("needs curl")
    url, (key, secret) = connect(stack=deployed).url(), engine.credentials
    environ = {"HOME": str(tmp_path), "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": key}
    refused = program.run(url, {**environ, "AWS_SECRET_ACCESS_KEY": "wrong"})
    assert "hand_crafted_int" not in refused.stdout
    signed = program.run(url, {**environ, "AWS_SECRET_ACCESS_KEY": secret})
    assert json.loads(signed.stdout)["last"] == 1, signed.stderr

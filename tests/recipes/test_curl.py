"""``docs/recipes/curl.md``, run by the curl of this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.recipes.conftest import Run, through
from tests.support.command_line import Ticketctl
from tests.support.faulty_proxy import Fault, proxy_to
from tests.support.recipes import copied, session
from ticketctl.embedded.engine import Engine


def curl_version() -> tuple[int, ...]:
    curl = shutil.which("curl")
    if curl is None:
        return (0,)
    told = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in told.split()[1].split(".")[:2])


pytestmark = pytest.mark.skipif(curl_version() < (7, 75), reason="needs curl 7.75 or newer, for --aws-sigv4")


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path) -> None:
    copied("curl", tmp_path)


def test_a_ticket(run: Run, ticketctl: Ticketctl, caller: dict[str, str]) -> None:
    """One signed request prints the ticket, and then the script those of the page; a wrong secret does not."""
    assert run("sh", "one.sh") == "1\n"
    assert ticketctl("counter", "create", "invoices", "--local", "--stack", caller["TICKETCTL_STACK"]).returncode == 0
    for command, _, shown in (part.partition("\n") for part in session("curl").split("$ ")[1:]):
        assert run(*command.split()) == shown
    assert "403" in run("sh", "one.sh", succeeds=False, AWS_SECRET_ACCESS_KEY="another")


def test_a_key(run: Run) -> None:
    """A refusal is on standard error, and the script fails."""
    assert run("sh", "mint.sh", "order-17") == "1\n"
    assert run("sh", "mint.sh", "cart-3", "orders") == "1\n"
    assert "idempotency_conflict" in run("sh", "mint.sh", "order-17", "orders", succeeds=False)
    assert "unknown_counter" in run("sh", "mint.sh", "order-18", "ordesr", succeeds=False)
    assert run("sh", "mint.sh", "order-19") == "2\n"


def test_lost_answers(run: Run, caller: dict[str, str], engine: Engine) -> None:
    """The script asks again with the same key: it prints one ticket, and no other was taken."""
    wanted: list[Fault] = ["lost request", "lost reply", "half", "502"]
    faults = (fault for one in wanted for fault in (one, ""))
    with proxy_to(engine.port, lambda: next(faults)) as proxy:
        for number, fault in enumerate(wanted, start=1):
            url = through(proxy, caller["TICKETS_URL"])
            assert run("sh", "mint.sh", f"order-{number}", TICKETS_URL=url) == f"{number}\n", fault
        assert proxy.injected == {**dict.fromkeys(wanted, 1), "": len(wanted)}

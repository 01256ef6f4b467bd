"""``docs/recipes/javascript.md``, run by the Node of the extra ``cdk``."""

import re
import shutil
from pathlib import Path

import pytest

from tests.recipes.conftest import Run, through
from tests.support.command_line import Ticketctl
from tests.support.faulty_proxy import Fault, proxy_to
from tests.support.npm import npm
from tests.support.other_tools import NODE
from tests.support.recipes import copied, page, session
from ticketctl.embedded.engine import Engine

LARGEST = """
import { mint } from "./tickets.mjs";
const { last } = await mint({ partition: "large" });
console.log(Number.isSafeInteger(last), last === Number.MAX_SAFE_INTEGER, JSON.stringify(last));
"""
KEYS = """
import { mint, RefusedError } from "./tickets.mjs";
for (const key of process.argv.slice(2)) console.log((await mint({ key })).last);
try {
  await mint({ key: process.argv[2], count: 2 });
} catch (error) {
  console.log(error instanceof RefusedError, error.message.slice(0, 3));
}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the package that the page says to install."""
    folder = tmp_path_factory.mktemp("npm")
    (wanted,) = re.findall(r"npm install (\S+)", page("javascript"))
    npm("install", "--prefix", str(folder), wanted, cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def program(installed: Path, tmp_path: Path) -> None:
    copied("javascript", tmp_path)
    shutil.copytree(installed / "node_modules", tmp_path / "node_modules")
    for name, text in {"largest.mjs": LARGEST, "keys.mjs": KEYS}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")


def test_the_session(run: Run) -> None:
    """The program prints what the page shows; the second run gets the same id for its key."""
    shown = session("javascript").split("$ node order.mjs\n")[1:]
    assert [run(str(NODE), "order.mjs") for _ in shown] == shown


def test_lost_answers(run: Run, caller: dict[str, str], engine: Engine) -> None:
    """Each id is taken once, whatever becomes of the first attempt; a refusal is not retried."""
    wanted: list[Fault] = ["lost request", "lost reply", "reset", "half", "502"]
    faults = (fault for one in wanted for fault in (one, ""))
    keys = [f"cart-{fault.replace(' ', '-')}" for fault in wanted]
    with proxy_to(engine.port, lambda: next(faults, "")) as proxy:
        told = run(str(NODE), "keys.mjs", *keys, TICKETS_URL=through(proxy, caller["TICKETS_URL"]))
        assert proxy.injected == {**dict.fromkeys(wanted, 1), "": len(wanted) + 1}
    assert told.split("\n") == ["1", "2", "3", "4", "5", "true 409", ""]


def test_the_largest_ticket(run: Run, ticketctl: Ticketctl, caller: dict[str, str]) -> None:
    """The last number that a counter can issue is exact as a JavaScript number."""
    options = ("--local", "--stack", caller["TICKETCTL_STACK"])
    assert ticketctl("counter", "create", "large", "--start", str(2**53 - 1), *options).returncode == 0
    assert run(str(NODE), "largest.mjs") == f"true true {2**53 - 1}\n"

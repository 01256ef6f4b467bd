"""What the pictures show: real runs in the embedded AWS."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.pictures.terminal import Terminal

PROMPT = "\x1b[32m$\x1b[0m \x1b[1m{}\x1b[0m"
_URL = re.compile(r"http://127\.0\.0\.1:\d+/_aws/lambda-url/[a-z0-9]+/")
_URLS = (
    "http://127.0.0.1:4566/_aws/lambda-url/3cqyb8ufkv2mkb54fcn4ik7b1ww2b8zn/",
    "http://127.0.0.1:4566/_aws/lambda-url/i2p2x0ya4wq0gdlvyhdz0kqjcqn3b5xe/",
)
_RATE = re.compile(r"[ \d,.]{9} │ [▁-█ ]{5,}(?= │$)", re.MULTILINE)
_RATES = ("      1.0 │ ▇▇██ ", "      131 │ ▃▅█▆ ")
_SECONDS_AGO = re.compile(r"\d+ seconds ago")
_DRAWN = re.compile(r"[\s─-╿]+")


def scenes(environ: Mapping[str, str]) -> dict[str, str]:
    """Run the commands of all pictures, in an ``environ`` without an embedded AWS; return their screens by name."""
    shell = Shell(environ)
    session = shell.show(
        "ticketctl next --local",
        "ticketctl next --local",
        "ticketctl counter create orders --local",
        "ticketctl next --local --partition orders",
        "ticketctl fetch 1000 --local | tail -1",
        "ticketctl status --local",
    )
    status = _watch(shell)
    shell.run("ticketctl local reset --yes")
    deploy = shell.show("ticketctl deploy --local", "ticketctl next --local")
    shell.run("ticketctl local reset --yes")
    regions = shell.show(
        "ticketctl deploy --local --quiet --region us-east-1 --region eu-west-1",
        "ticketctl next --local --region us-east-1",
        "ticketctl next --local --region eu-west-1",
        "ticketctl next --local --region us-east-1",
        "ticketctl deploy --local --region ap-southeast-2 2>&1 | grep handed",
        "ticketctl regions --local",
    )
    return {"session": session, "status": status, "deploy": deploy, "regions": regions}


def _watch(shell: "Shell") -> str:
    """``status --watch`` while tickets are minted."""
    line = "ticketctl status --watch --interval 1 --local"
    with shell.start(line) as watch:
        for looks, tickets in enumerate((60, 140, 200, 98), start=1):
            watch.wait_for("┘", looks)
            shell.run("ticketctl next --local --partition orders")
            shell.run(f"ticketctl fetch {tickets} --local --quiet --ranges")
        watch.wait_for(" 1,500 ")
        watch.interrupt()
        return constant(f"{PROMPT.format(line)}\n{watch.finish()}")


class Shell:
    """Lines of shell as a user types them, in a terminal."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
        self._environ = {**environ, "PATH": path, "TERM": "xterm-256color", "LANG": "C.UTF-8"}

    def show(self, *lines: str) -> str:
        """Run lines one after the other and return the whole screen, prompts included."""
        return constant("\n".join(f"{PROMPT.format(line)}\n{self.run(line)}" for line in lines))

    def run(self, line: str) -> str:
        """Run a line to its end and return its screen."""
        with self.start(line) as terminal:
            return terminal.finish()

    def start(self, line: str) -> Terminal:
        """Start a line."""
        return Terminal(line, self._environ)


def constant(screen: str) -> str:
    """Replace what differs between two runs: the URLs, and how fast tickets were minted."""
    urls = dict(zip(dict.fromkeys(_URL.findall(screen)), _URLS, strict=False))
    rates = iter(_RATES)
    return _RATE.sub(lambda _: next(rates), _URL.sub(lambda url: urls[url[0]], screen))


def is_late(text: str) -> bool:
    """Whether the machine was so busy that a ticket was not minted "just now"."""
    return bool(_SECONDS_AGO.search(text))


def gist(text: str) -> str:
    """What is the same in every run, however slow the machine: no seconds, no lines, no widths."""
    return _DRAWN.sub(" ", _SECONDS_AGO.sub("just now", text)).strip()

"""The command line as users and scripts run it: each run is a separate process without access to AWS."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from tests.support.command_line import Result
from tests.support.command_server import CommandServer
from tests.support.http_server import Answer, Server
from tests.support.interruptible import SIGNALS, interruptible
from ticketctl import __version__, errors
from ticketctl.aws import template
from ticketctl.cli import whole_command_line

REGION_MISSING = (
    "no region is set; searched --region, TICKETCTL_REGIONS, TICKETCTL_REGION, AWS_REGION, AWS_DEFAULT_REGION, "
    "ticketctl's configuration file and the AWS profile"
)
NO_HOME = (
    "error: there is no home folder: HOME is not set, and the system does not know this user\n"
    "hint: set HOME, or TICKETCTL_HOME, to a folder of yours\n"
)
CODES = {
    kind.code: kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.TicketctlError)
}
ARGUMENTS = {
    ("fetch",): ["3"],
    ("decode",): ["INV-17", "--format", "INV-{ticket}"],
    ("counter", "create"): ["orders"],
    ("counter", "advance"): ["orders", "--to", "5"],
    ("counter", "adopt"): ["orders", "--from-max", "numbers"],
    ("counter", "freeze"): ["orders"],
    ("counter", "thaw"): ["orders"],
}
HEAVY = ("boto3", "botocore", "httpcore", "httpx", "aws_cdk", "pydantic", "rich.table", "ministack", "sqids")
DEPLOYING = tuple(
    f"ticketctl.{name}" for name in ("aws.cloudformation", "aws.tables", "embedded.engine", "counters.lanes")
)
"""Modules that no mint through a URL needs."""

Run = subprocess.CompletedProcess[str]


def walk(group: typer.Typer, *path: str) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        yield (*path, str(command.name))
    for sub in group.registered_groups:
        assert sub.typer_instance
        yield from walk(sub.typer_instance, *path, str(sub.name))


APP = whole_command_line()
COMMANDS = list(walk(APP))
GROUPS = [(str(sub.name),) for sub in APP.registered_groups]
IN_A_REGION = [path for path in COMMANDS if path[0] not in ("doctor", "synth", "local", "decode")]  # doctor lists it


def command_at(path: tuple[str, ...]) -> Any:
    """Return a command as Typer runs it."""
    command: Any = get_command(APP)
    for name in path:
        assert isinstance(command, TyperGroup)
        command = command.commands[name]
    return command


def words(path: tuple[str, ...]) -> str:
    return " ".join(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "numbers").write_text("41\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TICKETCTL_HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def ticketctl(environ: dict[str, str], home: Path, commands: CommandServer) -> Callable[..., Result]:
    """Run the command line; ``around`` is a shell command that gets it as ``"$@"``."""

    def ticketctl(*arguments: str, around: str | None = None, **variables: str) -> Result:
        run = (
            in_shell(around, *arguments, **variables) if around else commands.run(arguments, environ | variables, home)
        )
        assert "Traceback" not in run.stdout + run.stderr
        return run

    def in_shell(around: str, *arguments: str, **variables: str) -> Result:
        run = subprocess.run(
            ["/bin/sh", "-c", around, "sh", sys.executable, "-m", "ticketctl", *arguments],
            env=environ | variables,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(run.returncode, run.stdout, run.stderr)

    return ticketctl


def python(script: str, environ: dict[str, str], home: Path) -> Run:
    return subprocess.run(
        [sys.executable, "-c", script], env=environ, cwd=home, capture_output=True, text=True, check=False
    )


# --- help -------------------------------------------------------------------------------------------


def test_commands() -> None:
    """The list of commands is complete."""
    assert sorted(map(words, COMMANDS)) == [
        "counter adopt",
        "counter advance",
        "counter create",
        "counter freeze",
        "counter list",
        "counter thaw",
        "decode",
        "deploy",
        "destroy",
        "diff",
        "doctor",
        "fetch",
        "local down",
        "local env",
        "local logs",
        "local reset",
        "local status",
        "local up",
        "logs",
        "next",
        "regions",
        "status",
        "synth",
        "url",
        "verify",
    ]


def test_panels(ticketctl: Callable[..., Result]) -> None:
    """The help groups the commands, also in a pipe."""
    text = ticketctl("--help").stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", "Mint:", "Look:", "Counters:", "Deploy:", "Local:"]
    assert re.search(r"^Mint:\n  next .*\n  fetch .*\n\nLook:\n  status ", text, re.MULTILINE)


@pytest.mark.parametrize("columns", ["50", "80", "200"])
@pytest.mark.parametrize("path", [(), *GROUPS], ids=words)
def test_no_text_is_cut(ticketctl: Callable[..., Result], path: tuple[str, ...], columns: str) -> None:
    """The list of commands is never truncated, however narrow the terminal is."""
    assert "..." not in ticketctl(*path, "--help", COLUMNS=columns).stdout.partition("\n\n")[2]


@pytest.mark.parametrize("path", [(path[0],) for path in COMMANDS if len(path) == 1], ids=words)
def test_same_description(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """The description of a command in ticketctl's own help is the first paragraph of the command's help."""
    paragraph = " ".join(ticketctl(*path, "--help").stdout.split("\n\n")[1].split())
    assert f"{path[0]} {paragraph}" in " ".join(ticketctl("--help").stdout.split())


@pytest.mark.parametrize("path", COMMANDS, ids=words)
def test_examples(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """The help of each command ends with two or three examples of that command, which can be parsed."""
    text = ticketctl(*path, "--help").stdout
    shown = re.findall(r"ticketctl [^|)\n]*", text.partition("\n  Examples:\n")[2])
    assert len(shown) in (2, 3)
    for line in shown:
        arguments = shlex.split(line)[1:]
        assert tuple(arguments[: len(path)]) == path
        command_at(path).make_context(words(path), arguments[len(path) :])


@pytest.mark.parametrize("path", COMMANDS, ids=words)
def test_options_say_their_default(path: tuple[str, ...]) -> None:
    """The help of each option is a sentence with the default, or says that the option is required."""
    command = command_at(path)
    for option in command.params:
        if isinstance(option, TyperOption):
            shown = option.get_help_record(typer.Context(command))
            assert shown
            assert re.match("[A-Z]", shown[1])
            assert re.search(r"[Dd]efault: |\[required\]", shown[1]), shown


def test_completion(ticketctl: Callable[..., Result]) -> None:
    """The completion of a shell includes the options of a command."""
    words = {"COMP_WORDS": "ticketctl fetch --conc", "COMP_CWORD": "2", "_TICKETCTL_COMPLETE": "complete_bash"}
    run = ticketctl(**words)
    assert (run.returncode, run.stdout) == (0, "--concurrency\n")


def test_no_command(ticketctl: Callable[..., Result]) -> None:
    """Without a command, ticketctl prints its help."""
    run = ticketctl()
    assert (run.returncode, run.stdout.splitlines()[0], run.stderr) == (
        0,
        "Usage: ticketctl [OPTIONS] COMMAND [ARGS]...",
        "",
    )


@pytest.mark.parametrize("path", GROUPS, ids=words)
def test_group_without_a_subcommand(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """Without a subcommand, a group of commands prints its help."""
    run, helped = ticketctl(*path), ticketctl(*path, "--help")
    assert (run.returncode, run.stdout, run.stderr) == (0, helped.stdout, "")


@pytest.mark.parametrize("path", [(), *GROUPS, *COMMANDS], ids=words)
def test_help(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """``-h`` prints the help of every command."""
    run = ticketctl(*path, "-h")
    usage = f"Usage: {words(('ticketctl', *path))} "
    assert (run.returncode, run.stdout[: len(usage)], run.stderr) == (0, usage, "")


def test_version(ticketctl: Callable[..., Result]) -> None:
    """``--version`` prints only the version."""
    run = ticketctl("--version")
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["fetch", "--help"], ["fetch", "none"]], ids=words)
def test_no_colour_in_a_pipe(ticketctl: Callable[..., Result], arguments: list[str]) -> None:
    """Environment variables of CI systems do not cause colors in a pipe."""
    run = ticketctl(*arguments, GITHUB_ACTIONS="1", FORCE_COLOR="1")
    assert "\x1b" not in run.stdout + run.stderr


def test_help_is_light(environ: dict[str, str], home: Path) -> None:
    """``--help`` loads none of the heavy libraries."""
    script = f"""if True:
        import sys
        from ticketctl.cli import main
        code = main(["--help"])
        print(code, sorted(sys.modules.keys() & {set(HEAVY)}), file=sys.stderr)
    """
    assert python(script, environ, home).stderr == "0 []\n"


def test_next_is_light(environ: dict[str, str], home: Path, server: Server) -> None:
    """A mint loads none of the heavy libraries, and nothing that only deployments need."""
    script = f"""if True:
        import sys
        from ticketctl.cli import main
        code = main(["next", "--region", "us-east-1", "--url", "{server.url}"])
        print(code, sorted(sys.modules.keys() & {{*{HEAVY}, *{DEPLOYING}}} - {{"rich.table"}}), file=sys.stderr)
    """
    block = {"partition": "us-east-1", "first": 42, "last": 42, "count": 1, "increment": 1}
    server.answers = [Answer(200, "application/json", json.dumps(block).encode())]
    run = python(script, environ, home)
    assert (run.stdout, run.stderr) == ("42\n", "0 []\n")


# --- wrong usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["mint"], "No such command 'mint'.", "ticketctl --help"),
        (["counter", "delete"], "No such command 'delete'.", "ticketctl counter --help"),
        (["next", "--zzz"], "No such option: --zzz", "ticketctl next --help"),
        (["--zzz"], "No such option: --zzz", "ticketctl --help"),
        (["regions", "--table", "Old"], "No such option: --table", "ticketctl regions --help"),
        (["next", "orders"], "Got unexpected extra argument(s) (orders)", "ticketctl next --help"),
        (["fetch"], "Missing argument 'COUNT'.", "ticketctl fetch --help"),
        (["next", "--stack"], "Option '--stack' requires an argument.", "ticketctl next --help"),
        (["next", "--json=x"], "Option '--json' does not take a value.", "ticketctl next --help"),
        (["local", "up", "--stack"], "Option '--stack' requires an argument.", "ticketctl local up --help"),
        (["fetch", "many"], "Invalid value for 'COUNT': 'many' is not a whole number.", "ticketctl fetch --help"),
        (
            ["fetch", "0"],
            "Invalid value for 'COUNT': 0 is not in the range 1<=x<=9007199254740991.",
            "ticketctl fetch --help",
        ),
        (
            ["fetch", "1", "--block", "10001"],
            "Invalid value for '--block': 10001 is not in the range 1<=x<=10000.",
            "ticketctl fetch --help",
        ),
        (["counter", "create"], "Missing argument 'name'.", "ticketctl counter create --help"),
        (["counter", "advance", "orders"], "Missing option '--to'.", "ticketctl counter advance --help"),
        (["counter", "adopt", "orders"], "Missing option '--from-max'.", "ticketctl counter adopt --help"),
        *(
            (
                ["counter", "create", "orders", option, "0"],
                f"Invalid value for '{option}': 0 is not in the range x>=1.",
                "ticketctl counter create --help",
            )
            for option in ("--start", "--increment", "--offset", "--ceiling")
        ),
        (
            ["counter", "advance", "orders", "--to", "-1"],
            "Invalid value for '--to': -1 is not in the range x>=1.",
            "ticketctl counter advance --help",
        ),
        (
            ["verify", "--workers", "257"],
            "Invalid value for '--workers': 257 is not in the range 1<=x<=256.",
            "ticketctl verify --help",
        ),
        (
            ["next", "--timeout", "soon"],
            "Invalid value for '--timeout': 'soon' is not a valid float.",
            "ticketctl next --help",
        ),
    ],
    ids=str,
)
def test_wrong_usage(ticketctl: Callable[..., Result], arguments: list[str], message: str, hint: str) -> None:
    """Wrong usage prints two lines on stderr and exits 2."""
    run = ticketctl(*arguments)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {message}\nhint: {hint}\n")


def test_wrong_usage_as_json(ticketctl: Callable[..., Result]) -> None:
    """With --json, wrong usage is one object, even if the command line cannot be parsed."""
    run = ticketctl("fetch", "many", "--json", "--zzz")
    assert (run.returncode, run.stdout, json.loads(run.stderr)) == (
        2,
        "",
        {
            "error": {
                "code": "usage",
                "message": "No such option: --zzz",
                "hint": "ticketctl fetch --help",
                "exit_code": 2,
            }
        },
    )


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["next", "--region", "frankfurt"], {}),
        (["next", "--stack", "x"], {}),
        (["next", "--timeout", "nan"], {}),
        (["next", "--partition", ""], {}),
        (["next", "--partition", os.fsdecode(b"caf\xe9")], {}),
        (["next", "--via", "pigeon"], {}),
        (["next", "--url", "http://["], {}),
        (["next", "--region", "us-east-1", "--endpoint-url", "http://["], {}),
        (["next", "--local", "--profile", "work"], {}),
        (["next", "--url", "https://tickets.example", "--via", "dynamodb"], {}),
        *((["verify", "--region", "us-east-1", "--via", source], {}) for source in ("pigeon", "")),
        (["synth", "--out", ""], {}),
        *((["status", "--region", "us-east-1", "--watch", "--interval", each], {}) for each in ("0", "nan", "inf")),
        *((["next", "--idempotency-key", key], {}) for key in ("", "größe", "a\tb", "a\n", "k" * 201)),
        (["fetch", "3", "--url", "https://tickets.example", "--idempotency-key", ""], {}),
        (["next"], {"TICKETCTL_TIMEOUT": "soon"}),
        (["next"], {"TICKETCTL_LOCAL": "maybe"}),
        (["local", "up"], {"TICKETCTL_REGION": "frankfurt"}),
        (["destroy", "--region", "us-east-1", "--delete-tickets", "orders"], {}),
    ],
    ids=str,
)
def test_refused_settings(ticketctl: Callable[..., Result], arguments: list[str], variables: dict[str, str]) -> None:
    """An invalid setting is an error before anything else happens."""
    run = ticketctl(*arguments, "--json", **variables)
    error = json.loads(run.stderr)["error"]
    assert (run.returncode, run.stdout, error["code"], error["exit_code"]) == (2, "", "usage", 2)


@pytest.mark.parametrize(
    "command",
    [("url",), ("regions",), ("logs",), ("deploy",), ("diff",), ("destroy", "--yes"), ("synth",), ("local", "up")],
    ids=words,
)
def test_a_table_instead_of_a_stack(ticketctl: Callable[..., Result], home: Path, command: tuple[str, ...]) -> None:
    """A command about a stack refuses a table from a variable or the file before it does anything."""
    place = ("--region", "us-east-1")
    told = (
        "error: this command is about a stack, but a table is set (from {})\n"
        "hint: pass --stack NAME, or unset the table\n"
    )
    assert ticketctl(*command, *place, TICKETCTL_TABLE="Old") == Result(2, "", told.format("TICKETCTL_TABLE"))
    (home / "config.toml").write_text('table = "Old"', encoding="utf-8")
    assert ticketctl(*command, *place) == Result(2, "", told.format(home / "config.toml"))
    assert {path.name for path in home.iterdir()} == {"numbers", "config.toml"}


@pytest.mark.parametrize("command", [("next",), ("fetch", "3")], ids=words)
def test_spread_over_a_url(ticketctl: Callable[..., Result], server: Server, command: tuple[str, ...]) -> None:
    """A URL is in one region: ``--spread`` cannot apply, and nothing is sent."""
    told = "error: --spread needs several regions, but a URL is in one (url from {})\nhint: remove --spread\n"
    spreading = (*command, "--spread", "--region", "us-east-1")
    assert ticketctl(*spreading, "--url", server.url) == Result(2, "", told.format("--url"))
    assert ticketctl(*spreading, TICKETCTL_URL=server.url) == Result(2, "", told.format("TICKETCTL_URL"))
    assert server.requests == []


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", IN_A_REGION, ids=words)
def test_every_command_without_a_region(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """Without a region, every command that needs one prints a JSON error with a documented code."""
    run = ticketctl(*path, *ARGUMENTS.get(path, []), "--json")
    document = json.loads(run.stderr)
    assert (document, CODES[document["error"]["code"]], run.returncode, run.stdout) == (
        {
            "error": {
                "code": "no_region",
                "message": REGION_MISSING,
                "hint": "pass --region REGION, or try it without AWS: ticketctl next --local",
                "exit_code": 3,
            }
        },
        3,
        3,
        "",
    )


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[0] == "local"], ids=words)
def test_every_local_command_in_a_wrong_region(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """The commands of the embedded AWS print errors in the same format."""
    run = ticketctl(*path, "--region", "nowhere", "--json")
    assert (json.loads(run.stderr), run.returncode, run.stdout) == (
        {
            "error": {
                "code": "usage",
                "message": "invalid region 'nowhere' (from --region)",
                "hint": "use a name like us-east-1",
                "exit_code": 2,
            }
        },
        2,
        "",
    )


@pytest.mark.parametrize("path", IN_A_REGION, ids=words)
def test_every_command_without_credentials(ticketctl: Callable[..., Result], path: tuple[str, ...]) -> None:
    """Without credentials, every command that calls AWS says so and names the places that it searched."""
    run = ticketctl(*path, *ARGUMENTS.get(path, []), "--json", "--region", "us-east-1")
    assert (json.loads(run.stderr), run.returncode, run.stdout) == (
        {
            "error": {
                "code": "no_credentials",
                "message": "no AWS credentials; looked at the environment, ~/.aws, SSO, containers and instance roles",
                "hint": "aws configure sso, or aws login; or try it without AWS: ticketctl next --local",
                "exit_code": 4,
            }
        },
        4,
        "",
    )


def test_error_for_a_person(ticketctl: Callable[..., Result]) -> None:
    """In text form, an error is what happened, followed by a hint."""
    run = ticketctl("next")
    assert (run.returncode, run.stdout, run.stderr) == (
        3,
        "",
        f"error: {REGION_MISSING}\nhint: pass --region REGION, or try it without AWS: ticketctl next --local\n",
    )


def test_unknown_profile(ticketctl: Callable[..., Result]) -> None:
    """An unknown profile is reported before the missing region."""
    run = ticketctl("next", "--profile", "wrok")
    assert (run.returncode, run.stdout, run.stderr) == (
        3,
        "",
        "error: the AWS profile 'wrok' does not exist; existing profiles: none\nhint: aws configure sso\n",
    )


def test_broken_aws_configuration(ticketctl: Callable[..., Result], home: Path) -> None:
    """An AWS configuration that cannot be parsed is an error of the environment, not a bug in ticketctl."""
    (home / "aws_config").write_text("region = eu-west-1\n", encoding="utf-8")
    run = ticketctl("next", AWS_CONFIG_FILE=str(home / "aws_config"))
    assert (run.returncode, run.stdout, "aws_config" in run.stderr) == (3, "", True)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=str)
@pytest.mark.parametrize(
    ("fault", "detail", "fix"),
    [
        ("config.toml", "{home}/config.toml has unknown settings: regoin", "known settings: endpoint_url, "),
        ("--profile", "the AWS profile 'wrok' does not exist; existing profiles: none", "aws configure sso"),
        ("aws_config", "Unable to parse config file: {home}/aws_config", "correct the file, or set AWS_CONFIG_FILE"),
    ],
    ids=str,
)
def test_doctor_of_a_broken_setup(
    ticketctl: Callable[..., Result], home: Path, fault: str, detail: str, fix: str, form: list[str]
) -> None:
    """If the settings cannot be read, doctor reports that with its fix, and checks what does not need them."""
    if fault != "--profile":
        (home / fault).write_text('regoin = "eu-west-1"\n', encoding="utf-8")
    options = ["--profile", "wrok"] if fault == "--profile" else []
    run = ticketctl("doctor", *options, *form, AWS_CONFIG_FILE=str(home / "aws_config"))
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    if form:
        rows = [
            [check[name] for name in ("state", "name", "detail", "fix")] for check in json.loads(run.stdout)["checks"]
        ]
    found = {name: (state, detail, fix) for state, name, detail, fix in rows}
    assert (run.returncode, "1 of 7 checks failed" in run.stderr) == (6, True)
    assert [*found] == ["versions", "settings", "cache", "embedded AWS", "credentials", "clock", "stack"]
    state, shown, help_text = found["settings"]
    assert (state, shown) == ("failure", detail.format(home=home))
    assert help_text.startswith(fix)
    assert found["stack"] == ("warning", "not checked, because of: settings", "")


def test_broken_cache(ticketctl: Callable[..., Result], home: Path) -> None:
    """Damaged caches are ignored: the stack is looked up, and only --verbose says why."""
    for name in ("stacks.json", "regions.json"):
        (home / name).write_text("{", encoding="utf-8")
    run = ticketctl("next", "--region", "us-east-1")
    assert (run.returncode, run.stdout, "stacks.json" in run.stderr) == (4, "", False)
    told = ticketctl("next", "--region", "us-east-1", "--verbose").stderr
    assert f"ignored the cache {home / 'stacks.json'}: " in told


def test_verbose(ticketctl: Callable[..., Result]) -> None:
    """--verbose prints the origin of each setting."""
    run = ticketctl("synth", "--verbose", "--timeout", "2", TICKETCTL_STACK="orders", AWS_REGION="eu-west-1")
    assert run.stderr.splitlines() == [
        "stack: orders (from TICKETCTL_STACK)",
        "table: None (from default)",
        "region: eu-west-1 (from AWS_REGION)",
        "regions: eu-west-1 (from AWS_REGION)",
        "profile: None (from default)",
        "partition: None (from default)",
        "via: url (from default)",
        "local: False (from default)",
        "endpoint-url: None (from default)",
        "url: None (from default)",
        "timeout: 2.0 (from --timeout)",
        "sqid-alphabet: None (from default)",
        "credentials: profile default",
    ]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=str)
@pytest.mark.parametrize("option", ["--url", "--endpoint-url"])
@pytest.mark.parametrize("via", ["url", "dynamodb"])
def test_password_in_a_url(ticketctl: Callable[..., Result], option: str, via: str, form: list[str]) -> None:
    """User and password of a URL are never printed: not in a setting, an error or a traceback."""
    url = "http://me:secret@127.0.0.1:1/"
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIA0000000000000000",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HTTP_PROXY": "",
        "NO_PROXY": "*",
    }
    run = ticketctl(
        "next", option, url, *form, "--verbose", "--region", "us-east-1", "--timeout", "1",
        **keys, TICKETCTL_VIA=via, HTTPS_PROXY="http://proxied:hidden@127.0.0.1:1",
    )  # fmt: skip
    assert (run.returncode, "***@127.0.0.1:1" in run.stderr) == (7, True)
    assert not re.search("me:|secret|proxied|hidden", run.stdout + run.stderr), run.stderr


def test_debug(environ: dict[str, str], home: Path) -> None:
    """--debug prints the traceback and keeps the exit code."""
    run = python("import sys; from ticketctl.cli import main; sys.exit(main(['next', '--debug']))", environ, home)
    assert (run.returncode, run.stderr.splitlines()[0]) == (3, "Traceback (most recent call last):")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "stdout", "said"),
    [
        (["synth", "--stack", "orders"], 0, "{", ""),
        (["next", "--region", "us-east-1", "--url", "{server}"], 0, "42\n", ""),
        (["next", "--region", "us-east-1"], 4, "", "error: no AWS credentials"),
        (["next", "--region", "us-east-1", "--via", "dynamodb"], 4, "", "error: no AWS credentials"),
        (["next", "--local"], 3, "", NO_HOME),
        (["local", "status"], 3, "", NO_HOME),
    ],
    ids=str,
)
def test_no_home(
    environ: dict[str, str], home: Path, server: Server, arguments: list[str], exit_code: int, stdout: str, said: str
) -> None:
    """Without a home folder, as in a container, only commands that must keep a file fail, with a hint."""
    script = f"""if True:
        import pwd, sys
        def unknown(uid): raise KeyError(uid)
        pwd.getpwuid = unknown  # as for a user that the system does not know
        from ticketctl.cli import main
        sys.exit(main({[argument.format(server=server.url) for argument in arguments]}))
    """
    block = {"partition": "us-east-1", "first": 42, "last": 42, "count": 1, "increment": 1}
    server.answers = [Answer(200, "application/json", json.dumps(block).encode())]
    bare = {name: value for name, value in environ.items() if name not in ("HOME", "TICKETCTL_HOME")}
    run = python(script, bare, home)
    assert (run.returncode, run.stdout[: len(stdout)], run.stderr[: len(said)]) == (exit_code, stdout, said), run.stderr


# --- the embedded AWS, not started ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdout", "stderr"),
    [
        (["down"], "", "the embedded AWS was not running\n"),
        (["status"], "stopped\nlog\t{home}/local/engine.log\nstate\t{home}/local/state.db\n", ""),
        (["logs"], "", ""),
        (["reset", "--yes"], "", "the embedded AWS is empty\n"),
    ],
    ids=str,
)
def test_local_not_running(
    ticketctl: Callable[..., Result], home: Path, arguments: list[str], stdout: str, stderr: str
) -> None:
    """The commands about the embedded AWS that do not need it to run do not start it."""
    run = ticketctl("local", *arguments)
    assert (run.returncode, run.stdout, run.stderr) == (0, stdout.format(home=home), stderr)


@pytest.mark.parametrize(
    ("arguments", "document"),
    [
        (["down"], {"stopped": False}),
        (
            ["status"],
            {
                "running": False,
                "endpoint_url": None,
                "pid": None,
                "log": "{home}/local/engine.log",
                "state": "{home}/local/state.db",
            },
        ),
        (["reset", "--yes"], {"reset": True}),
    ],
    ids=str,
)
def test_local_not_running_as_json(
    ticketctl: Callable[..., Result], home: Path, arguments: list[str], document: dict[str, object]
) -> None:
    """With --json, the result is one document, and stderr is empty."""
    run = ticketctl("local", *arguments, "--json")
    expected = {key: value.format(home=home) if isinstance(value, str) else value for key, value in document.items()}
    assert (run.returncode, json.loads(run.stdout), run.stderr) == (0, expected, "")


def test_confirmation_without_a_terminal(ticketctl: Callable[..., Result]) -> None:
    """If stdin is not a terminal, the confirmation must be given with an option."""
    run = ticketctl("local", "reset")
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        "error: confirmation required, but this is not a terminal: "
        "Delete every stack and counter of the embedded AWS?\n"
        "hint: pass --yes\n",
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted(environ: dict[str, str], home: Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end any command with exit code 130 and without a traceback."""
    (home / "local").mkdir()
    (home / "local" / "engine.log").write_text("it began\n", encoding="utf-8")
    with interruptible(environ, "local", "logs", "--follow", cwd=home) as running:
        assert running.stdout
        first = running.stdout.readline()
        running.send_signal(number)
        _, stderr = running.communicate(timeout=30)
    assert (first, running.returncode, "Traceback" in stderr) == ("it began\n", 130, False)


# --- synth, and where its output goes ---------------------------------------------------------------


@pytest.mark.parametrize("stack", ["Tickets", "orders"])
def test_synth(ticketctl: Callable[..., Result], stack: str) -> None:
    """``synth`` prints the shipped template with the table's name set; it needs no region and no extra."""
    run = ticketctl("synth", "--stack", stack)
    shipped = json.loads(template.SHIPPED.read_text(encoding="utf-8"))
    assert (run.returncode, json.loads(run.stdout), run.stderr) == (0, template.for_stack(shipped, stack), "")


def test_synth_as_json(ticketctl: Callable[..., Result]) -> None:
    """The template is the same JSON document with and without --json."""
    assert json.loads(ticketctl("synth", "--json").stdout) == json.loads(ticketctl("synth").stdout)


def test_synth_into_an_impossible_folder(ticketctl: Callable[..., Result], home: Path) -> None:
    """If the folder cannot be created, the error names it."""
    (home / "file").touch()
    run = ticketctl("synth", "--out", "file/below")
    assert (run.returncode, run.stdout, run.stderr) == (
        3,
        "",
        f"error: file/below cannot be written: {os.strerror(errno.ENOTDIR)}\nhint: name another folder with --out\n",
    )


WRITING = [["synth"], ["--version"], ["next", "--help"]]


@pytest.mark.parametrize("arguments", WRITING, ids=words)
def test_full_disk(ticketctl: Callable[..., Result], arguments: list[str]) -> None:
    """If the disk of stdout is full, the command fails and says so."""
    run = ticketctl(*arguments, around='exec "$@" >/dev/full')
    assert (run.returncode, run.stderr) == (
        8,
        f"error: the result could not be written: {os.strerror(errno.ENOSPC)}\nhint: free some space\n",
    )


@pytest.mark.parametrize("arguments", WRITING, ids=words)
def test_closed_pipe(environ: dict[str, str], home: Path, arguments: list[str]) -> None:
    """If the reader has closed the pipe, the command exits 141 and prints no error."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ticketctl", *arguments]
    run = subprocess.run(command, env=environ, cwd=home, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, "")


@pytest.mark.parametrize("arguments", WRITING, ids=words)
def test_no_stdout(ticketctl: Callable[..., Result], arguments: list[str]) -> None:
    """If stdout is already closed, the command fails and says that the result was not written."""
    run = ticketctl(*arguments, around='exec "$@" >&-')
    assert (run.returncode, run.stderr.splitlines()[:1]) == (
        8,
        [f"error: the result could not be written: {os.strerror(errno.EBADF)}"],
    )


@pytest.mark.parametrize(("arguments", "exit_code"), [(["synth"], 0), (["next"], 3), (["next", "--zzz"], 2)])
def test_no_stderr(ticketctl: Callable[..., Result], arguments: list[str], exit_code: int) -> None:
    """If stderr is closed, the exit code is still correct."""
    assert ticketctl(*arguments, around='exec "$@" 2>&-').returncode == exit_code


@pytest.mark.parametrize("command", ["doctor", "doctor --json", "doctor --verbose", "next --verbose --format {sqid}"])
def test_the_alphabet_of_sqids_is_never_shown(ticketctl: Callable[..., Result], command: str) -> None:
    """No command prints the alphabet, because anyone who knows it can decode every sqid."""
    alphabet = "kqzx7Jw3Lr5bTnYd"
    run = ticketctl(*shlex.split(command), "--timeout", "1", TICKETCTL_SQID_ALPHABET=alphabet)
    assert run.returncode not in (0, 1, 2), run.stderr
    assert alphabet not in run.stdout + run.stderr

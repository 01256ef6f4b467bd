"""The documentation is whole: what exists is on its page, and what is on a page exists."""

import builtins
import dataclasses
import re
import shlex
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tests.support.pages import PAGES, ROOT, blocks, code, rows, sections, without_blocks
from ticketctl import __version__, errors
from ticketctl.aws import template
from ticketctl.cli import whole_command_line
from ticketctl.client.sync import ClientSettings
from ticketctl.commands.stack_options import TEMPLATE_NAMES
from ticketctl.formats import Format
from ticketctl.handler import handler
from ticketctl.models import Block, Counter
from ticketctl.settings import DEFAULT_SETTINGS, LOCAL_REGION, Settings, resolve

COMMANDS_PAGE = sections(PAGES["docs/commands.md"])
EVERYWHERE = "Options of every command"
NOT_FOR_LOCAL = {"--local", "--no-local", "--profile", "--endpoint-url"}
VALUES = {
    "stack": "orders",
    "table": "orders",
    "region": "eu-west-1",
    "regions": "eu-west-1",
    "profile": "work",
    "partition": "orders",
    "via": "dynamodb",
    "local": "1",
    "url": "https://example.org",
    "endpoint_url": "https://example.org",
    "timeout": "5",
    "sqid_alphabet": "abcdefghijklmnop",
}
"""A value for each setting."""


def walk(command: Any, *path: str) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, sub in command.commands.items():
            yield from walk(sub, *path, name)
    else:
        yield " ".join(path), command


COMMANDS = dict(walk(get_command(whole_command_line())))


def options(command: TyperCommand) -> set[str]:
    """The options that a command has, without that for help."""
    params = [param for param in command.params if param.param_type_name == "option"]
    return {name for param in params for name in param.opts + param.secondary_opts}


def documented(heading: str) -> set[str]:
    """The options in the tables of a section of the page of commands."""
    return {name for row in rows(COMMANDS_PAGE[heading]) for name in code(row[0]) if name.startswith("-")}


OWN_PAGES = {page: text for page, text in PAGES.items() if "/recipes/" not in page}
"""The pages that are not about other tools as well."""

ALL_OPTIONS = set.union(*map(options, COMMANDS.values()))
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}
BEGINNING = r"(?:^\s*(?:\$ )?(?:\w+=\w+ )?|\$\(|: |bin/)"  # of a command line, in a line
OF_NO_COMMAND = {"--version", "--help", "--install-completion", "--show-completion"}
OF_OTHER_TOOLS = {"docs/aws-account.md": {"--account"}}  # pytest's


def test_each_command_has_its_section() -> None:
    """The page has a section for each command, and for no other."""
    assert {heading.removeprefix("ticketctl ") for heading in COMMANDS_PAGE if heading.startswith("ticketctl ")} == {
        *COMMANDS
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_is_documented(name: str) -> None:
    """The section of a command, with what is said of all commands, has the options of the command and no others."""
    common = documented(EVERYWHERE) - {"--help", "-h"} - (NOT_FOR_LOCAL if name.startswith("local ") else set())
    group = documented("Counters") if name.startswith("counter ") and name != "counter" else set()
    assert documented(f"ticketctl {name}") | common | group == options(COMMANDS[name])


def plain(text: str) -> str:
    """A text of a page as the command line writes it: no marks of code, no separators in numbers."""
    return re.sub(r"(?<=[0-9]),(?=[0-9]{3})", "", text.replace("`", "")).replace("\N{MINUS SIGN}", "-")


def default_in(text: str) -> str | None:
    """What a text names as the default, ``None`` if it names none."""
    found = re.search(r"Default: (.*?)\.?(?=$|\. )", plain(text))
    return found[1] if found else None


def shown(value: Any) -> str:
    """A value as the pages show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def defaults(command: TyperCommand) -> dict[str, str]:
    """The default of each option, from its help or else its value."""
    found: dict[str, str] = {}
    for option in command.params:
        help_text = getattr(option, "help", None) or ""
        value = default_in(help_text) or (
            f"{option.default:g}" if isinstance(option.default, float) else option.default
        )
        found |= dict.fromkeys(option.opts + option.secondary_opts, str(value))
    return found


OPTIONS_PAGES = {
    **{name: COMMANDS_PAGE[f"ticketctl {name}"] for name in COMMANDS},
    "next": COMMANDS_PAGE[EVERYWHERE] + COMMANDS_PAGE["ticketctl next"],
    "logs": COMMANDS_PAGE["ticketctl logs"] + sections(PAGES["docs/logs-and-doctor.md"])["`ticketctl logs`"],
}
"""The text about the options of each command; of those that all commands have, with ``next``."""


@pytest.mark.parametrize("name", OPTIONS_PAGES)
def test_each_default_is_that_of_the_option(name: str) -> None:
    """A default in a table of options is what the help says, or else the value in the code."""
    known = defaults(COMMANDS[name])
    for cells in rows(OPTIONS_PAGES[name]):
        default = default_in(cells[-1])
        for option in code(cells[0]) if default else ():
            if option != "--no-alarms":  # shares its row with options that have another default
                assert (option, default) == (option, known[option])


def test_each_default_in_the_help_is_that_of_the_code() -> None:
    """The help and the page of settings name the values that are used if nothing is set."""
    settings = {f"--{name.replace('_', '-')}": value for name, value in vars(DEFAULT_SETTINGS).items()}
    assert settings["--local"] is False
    texts = {option: shown(settings[option]) for option in ("--stack", "--via", "--timeout")} | {"--local": "off"}
    helps = defaults(COMMANDS["next"])
    page = {code(row[0])[0]: plain(row[2]) for row in rows(PAGES["docs/settings.md"]) if row[0].startswith("`--")}
    assert {option: helps[option] for option in texts} == texts
    assert {option: page[option].split()[0] for option in texts} == texts
    assert page["--region"].endswith(f"{LOCAL_REGION} with --local")


def test_each_default_of_the_template_is_in_the_help() -> None:
    """The options of ``deploy`` name the defaults of the template's parameters."""
    parameters = template.load("Tickets")["Parameters"]
    helps = defaults(COMMANDS["deploy"])
    for option, name in TEMPLATE_NAMES.items():
        said = re.search(r"-?[0-9]+", helps[f"--{option.replace('_', '-')}"])
        assert said, option
        assert (option, said[0]) == (option, str(parameters[name]["Default"]))
    assert parameters["AuthType"]["Default"] == "AWS_IAM"
    assert helps["--public"].endswith("private for a new stack")


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command line on a page, up to a character that is special in a shell.

    Command lines begin with ``ticketctl``, or in running text with the name of a command: ``deploy --public``.
    """
    shown = [block for language, block in blocks(text) if language not in ("python", "json")]
    lines = [line for block in shown for line in block.splitlines() if "─" not in line]  # but not the drawings
    lines += re.findall(r"^ {4,}(.*)$", text, re.MULTILINE)
    lines += [span for span in code(text) if " " in span]
    for line in lines:
        yield from map(words_of, re.findall(rf"{BEGINNING}ticketctl ([a-z-][^|>;&)\n#]*)", line))
    yield from (words_of(span) for span in code(text) if re.match(f"({'|'.join(COMMANDS)}) --", span))


def words_of(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark that ends in another line
        return line.split()


@pytest.mark.parametrize("page", PAGES)
def test_each_command_line_is_possible(page: str) -> None:
    """A command line on a page names a command that exists, with options that it has."""
    for words in command_lines(PAGES[page]):
        line = " ".join(words)
        named = [name for name in (*COMMANDS, *GROUPS, "") if f"{line} ".startswith(f"{name} ".lstrip())]
        name = max(named, key=len)
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        possible = options(COMMANDS[name]) if name in COMMANDS else ALL_OPTIONS if name else OF_NO_COMMAND
        assert name or given, line
        assert given <= possible | {"--help", "-h"}, line


@pytest.mark.parametrize("page", OWN_PAGES)
def test_each_option_in_the_text_exists(page: str) -> None:
    """An option that a page mentions is one of ticketctl's, unless the page says whose it is."""
    mentioned = {name for span in code(PAGES[page]) for name in re.findall(r"^--[a-z-]+", span)}
    assert mentioned <= ALL_OPTIONS | OF_NO_COMMAND | OF_OTHER_TOOLS.get(page, set())


def test_each_setting_is_documented(tmp_path: Path) -> None:
    """Each variable of the page sets what the page says, and each setting has its variable there."""
    found = set()
    for flag, variables, *_ in rows(PAGES["docs/settings.md"]):
        for variable in re.findall(r"`((?:TICKETCTL|AWS)_[A-Z_]+)`", variables):
            environ = {"TICKETCTL_HOME": str(tmp_path), variable: VALUES[_setting(flag, variable)]}
            origins = resolve({}, environ).origins
            assert variable in origins.values(), variable
            found.add(variable)
    fields = {field.name for field in dataclasses.fields(Settings)} - {"origins"}
    assert {name for name in found if name.startswith("TICKETCTL_")} == {f"TICKETCTL_{name.upper()}" for name in fields}
    assert set(VALUES) == fields


def _setting(flag: str, variable: str) -> str:
    (name,) = re.findall(r"--([a-z-]+)", flag) or ["sqid-alphabet"]
    return "regions" if variable == "TICKETCTL_REGIONS" else name.replace("-", "_")


def test_the_configuration_file_of_the_page_is_valid(tmp_path: Path) -> None:
    """Every line of the page's example is a setting."""
    (example,) = [block for language, block in blocks(PAGES["docs/settings.md"]) if language == "toml"]
    (tmp_path / "config.toml").write_text(example, encoding="utf-8")
    origins = resolve({}, {"TICKETCTL_HOME": str(tmp_path)}).origins
    assert list(origins.values()).count(str(tmp_path / "config.toml")) >= len(example.splitlines())


def test_each_variable_exists() -> None:
    """Every variable that a page names is read somewhere in the code or the tests."""
    named = {name for text in PAGES.values() for name in re.findall(r"TICKETCTL_[A-Z_]+\b", text)}
    sources = [path for folder in ("ticketctl", "stack", "tests") for path in (ROOT / folder).rglob("*.py")]
    known = {f"TICKETCTL_{name.upper()}" for name in VALUES}
    for path in sources:
        known |= set(re.findall(r"TICKETCTL_[A-Z_]+\b", path.read_text(encoding="utf-8")))
    assert named <= known
    assert "TICKETCTL_HOME" in PAGES["docs/settings.md"]


def test_exit_codes_and_error_codes() -> None:
    """The table has each exit code with the error codes that lead to it, and nothing else."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TicketctlError)
    ]
    table: dict[str, int] = {}
    for exit_codes, _, codes in rows(COMMANDS_PAGE["Exit codes"])[1:]:
        numbers = [int(number) for number in exit_codes.split(", ")]
        table |= dict(zip(code(codes), numbers if len(numbers) > 1 else numbers * len(code(codes)), strict=True))
    assert table == {kind.code: kind.exit_code for kind in kinds}
    listed = {int(number) for row in rows(COMMANDS_PAGE["Exit codes"])[1:] for number in row[0].split(", ")}
    assert listed == {kind.exit_code for kind in kinds} | {0, 9}


def test_each_named_error_exists() -> None:
    """The pages on ticketctl itself name no error that neither ``ticketctl.errors`` nor Python has."""
    named = {name for text in OWN_PAGES.values() for name in re.findall(r"\b[A-Z][a-z]+[A-Za-z]*Error\b", text)}
    assert {name for name in named if not hasattr(errors, name) and not hasattr(builtins, name)} == set()


def test_each_field_of_json_is_documented() -> None:
    """The tables of fields are those of the models."""
    for heading, fields in {
        "A block": {field.name for field in dataclasses.fields(Block)} | {"formatted"},
        "ticketctl status": {field.name for field in dataclasses.fields(Counter)} | {"offset"},
    }.items():
        table = [
            name for row in rows(COMMANDS_PAGE[heading]) for name in code(row[0]) if re.fullmatch(r"[a-z_]+", name)
        ]
        assert (heading, set(table)) == (heading, fields)


def test_each_setting_of_the_client_is_documented() -> None:
    """The page names the settings that ``TicketClient.connect`` takes."""
    (sentence,) = re.findall(r"`connect` takes (.*?)\. ", PAGES["docs/python.md"], re.DOTALL)
    assert set(code(sentence)) == set(ClientSettings.__annotations__)


def test_each_answer_of_the_handler_is_documented() -> None:
    """The page of the HTTP API has each problem code in one row with its status, and no other code."""
    found = {}
    for row in rows(PAGES["docs/http-api.md"]):
        statuses = re.findall(r"\b[45]\d\d\b", " ".join(row))
        for name in code(" ".join(row)):
            if statuses and re.fullmatch(r"[a-z]+(_[a-z]+)*", name) and name in handler.STATUS:
                found[name] = int(statuses[0])
    assert found == handler.STATUS


def test_each_field_of_a_format_is_documented() -> None:
    """The page has the fields that the error about an unknown field names."""
    with pytest.raises(errors.UsageError) as refused:
        Format("{ticket}-{nothing}")
    fields = [row[0] for row in rows(PAGES["docs/formats.md"])][1:]
    assert ", ".join(field.strip("`") for field in fields) == refused.value.hint.removeprefix("use ")


def test_each_alarm_is_documented() -> None:
    """The page has the alarms of the template, with what to do."""
    resources = template.load("Tickets")["Resources"]
    alarms = {name for name, resource in resources.items() if resource["Type"] == "AWS::CloudWatch::Alarm"}
    table = rows(sections(PAGES["docs/alarms.md"])["Alarms"])
    assert {row[0].strip("`") for row in table if len(row) == 3} - {"alarm"} == alarms


def test_each_link_of_a_page_leads_to_a_file() -> None:
    """Links and pictures, also those in HTML, lead to files of the repository; mkdocs checks the rest."""
    broken = []
    for page, text in PAGES.items():
        for link in re.findall(r'\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"', without_blocks(text)):
            target = "".join(link).partition("#")[0]
            if target and not re.match(r"https?:", target) and not (ROOT / page).parent.joinpath(target).is_file():
                broken.append((page, target))
    assert broken == []


def test_the_changelog_has_the_version() -> None:
    """The newest release in the changelog is this version, below what is not released yet."""
    headings = re.findall(
        r"^## \[(.+)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == __version__
    assert date.fromisoformat(headings[1][1])


def test_the_first_page_is_short() -> None:
    """A newcomer reads the README in a minute or two; the rest is in docs."""
    assert len(PAGES["README.md"].splitlines()) <= 140

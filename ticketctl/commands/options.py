"""The options that commands share, and the ``Run`` that a command receives for them."""

import functools
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from ticketctl.errors import ConfirmationNeededError, RefusedError, SetupError, TicketctlError, UsageError
from ticketctl.output import Output, standard_output

if TYPE_CHECKING:
    from ticketctl.deployments.regional_stack import RegionalStack
    from ticketctl.deployments.regions import Regions
    from ticketctl.settings import Settings

_WHERE = "Where"
_HOW = "How"


class Group(TyperGroup):
    """A group whose help in a pipe has the same panels as on a terminal, and wraps text instead of cutting it."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the signature is Typer's
        """Write the first paragraph of each command's help, panel by panel."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, listed in self.commands.items():
            text = " ".join((listed.help or "").split("\n\n")[0].split())
            panels.setdefault(getattr(listed, "rich_help_panel", None) or "Commands", []).append((name, text))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


class _Command(TyperCommand):
    """A command that is named in each error about its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            error.ctx = getattr(error, "ctx", None) or ctx  # type: ignore[attr-defined] # Typer forgets it in some
            raise


def integer_range(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers in ASCII digits; ``int`` also accepts other digits and underscores."""
    span = f"x>={least}" if most is None else f"{least}<=x<={most}"

    def number(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,40}", str(text)):
            raise typer.BadParameter(f"{text!r} is not a whole number.")
        if int(text) < least or (most is not None and int(text) > most):
            raise typer.BadParameter(f"{text} is not in the range {span}.")
        return int(text)

    return number


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation. Default: ask on the terminal.")]

_EVERYWHERE: dict[str, Any] = {
    "stack": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use this stack and its table. Default: Tickets.", rich_help_panel=_WHERE),
    ],
    "region": Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION",
            help="Use this AWS region. Repeat for several; tried in this order. "
            "Default: the regions of the last deployment, else the AWS profile's.",
            rich_help_panel=_WHERE,
        ),
    ],
    "profile": Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use this AWS profile. Default: as the AWS CLI.", rich_help_panel=_WHERE),
    ],
    "local": Annotated[
        bool | None,
        typer.Option(
            "--local/--no-local",
            help="Use the embedded AWS, which needs no account. Default: off.",
            rich_help_panel=_WHERE,
        ),
    ],
    "endpoint_url": Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Send every AWS API call to this endpoint. Default: AWS.", rich_help_panel=_WHERE
        ),
    ],
    "timeout": Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Stop a mint, with all its retries, after this many seconds; for other calls, the limit per request. "
            "Default: 10.",
            rich_help_panel=_HOW,
        ),
    ],
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print results and errors as JSON. Default: off.", rich_help_panel=_HOW)
    ],
    "quiet": Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print only results, warnings and errors. Default: off.", rich_help_panel=_HOW
        ),
    ],
    "verbose": Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the source of each setting. Default: off.", rich_help_panel=_HOW),
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Default: off.", rich_help_panel=_HOW)
    ],
}
TABLE: dict[str, Any] = {
    "table": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Use this DynamoDB table directly; it needs no stack. Default: the stack's table.",
            rich_help_panel=_WHERE,
        ),
    ]
}
SOURCE: dict[str, Any] = {
    "via": Annotated[
        str | None,
        typer.Option(
            metavar="url|dynamodb",
            help="Mint through the Function URL ('url') or from the table ('dynamodb'). Default: url.",
        ),
    ],
    "url": Annotated[str | None, typer.Option(metavar="URL", help="Use this Function URL. Default: the stack's.")],
    **TABLE,
}
MINTING: dict[str, Any] = {
    "partition": Annotated[
        str | None,
        typer.Option(
            "--partition", "-p", metavar="NAME", help="Use this counter. Default: the one named after the region."
        ),
    ],
    "idempotency_key": Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Return the same tickets for the same key for 24 hours. Default: a random key per run."
        ),
    ],
    "spread": Annotated[
        bool, typer.Option("--spread", help="Start with a different region each time. Default: with the first.")
    ],
    **SOURCE,
}
_NOT_FOR_LOCAL = {"local", "profile", "endpoint_url"}


class Run(NamedTuple):
    """One run of a command: its settings, connections and output. ``flags`` are the options as given.

    ``broken``: why the settings cannot be read; they are then the defaults.
    """

    flags: Mapping[str, Any]
    settings: "Settings"
    home: "RegionalStack"
    regions: "Regions"
    output: Output
    broken: SetupError | None = None

    @property
    def place(self) -> str:
        """The stack and its regions, in words."""
        return self.describe_regions(self.settings.regions or [self.settings.require_region()])

    def describe_regions(self, regions: Iterable[str]) -> str:
        """The stack and some of its regions, in words."""
        place = "the embedded AWS, " if self.settings.local else ""
        return f"{self.settings.table or self.settings.stack} in {place}{', '.join(regions)}"

    @property
    def named_regions(self) -> Sequence[str]:
        """The regions of --region; empty if the command is for all regions of the stack."""
        return self.settings.regions if self.flags.get("region") else ()

    def require_stack(self) -> None:
        """Raise ``UsageError`` if a table is set instead of a stack: the command is about a stack."""
        if self.settings.table is not None:
            raise UsageError(
                f"this command is about a stack, but a table is set (from {self.settings.origins['table']})",
                hint="pass --stack NAME, or unset the table",
            )

    def with_options(self, hint: str) -> str:
        """Add this run's options to a command in a hint, so that it acts on the same stack or table."""
        if self.settings.table and hint == "ticketctl deploy":
            return "check the names of the table and of the region"
        return _with_options(hint, self.flags)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on the terminal. ``ConfirmationNeededError`` if there is none, ``RefusedError`` if the answer is no."""
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ConfirmationNeededError(
                f"confirmation required, but this is not a terminal: {question}", hint="pass --yes"
            )
        self.output.ask(f"{question} [y/N] ")
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):
            self.output.ask("\n")
        if answer.strip().lower() not in ("y", "yes"):
            raise RefusedError("not confirmed; nothing was changed")


def command(
    app: typer.Typer,
    name: str,
    *,
    shared: Mapping[str, Any] | None = None,
    local: bool = False,
    needs_settings: bool = True,
) -> Callable[[Callable[..., None]], None]:
    """Register a function, whose first parameter is the ``Run``, as a command.

    The command has the common options and those of ``shared``; their values are in ``Run.flags``.
    ``local``: the command always uses the embedded AWS. ``needs_settings``: it cannot run if they cannot be read.
    """
    options = {**(shared or {}), **_EVERYWHERE}
    if local:
        options = {name: option for name, option in options.items() if name not in _NOT_FOR_LOCAL}

    def register(function: Callable[..., None]) -> None:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def wrapper(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) for name in options}
            run = None
            if local:
                flags["local"] = True
            try:
                run = _run(flags, needs_settings=needs_settings)
                with run.home:
                    function(run, **arguments)
            except TicketctlError as error:
                error.hint = run.with_options(error.hint) if run else _with_options(error.hint, flags)
                raise

        parameters = [
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
            *(_parameter(name, annotation) for name, annotation in options.items()),
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        text, epilog = help_and_examples(function)
        app.command(name, cls=_Command, help=text, epilog=epilog)(wrapper)

    return register


def help_and_examples(function: Callable[..., None]) -> tuple[str, str | None]:
    """Split a command's docstring into the help and its examples, whose lines Typer must not join."""
    text, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples:\n")
    return text, f"\b\nExamples:\n{examples}" if examples else None


def help_without_command(context: typer.Context) -> None:
    """Print the help if no command was given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    default = False if get_args(annotation)[0] is bool else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _run(flags: Mapping[str, Any], *, needs_settings: bool) -> Run:
    # Imported here because help and completion do not need it.
    from ticketctl.deployments.regional_stack import RegionalStack
    from ticketctl.deployments.regions import Regions, connect_seconds, resolve_settings
    from ticketctl.deployments.session import Session
    from ticketctl.settings import DEFAULT_SETTINGS

    output = Output(
        stdout=standard_output(),
        stderr=sys.stderr,
        environ=os.environ,
        as_json=flags["as_json"],
        quiet=flags["quiet"],
        verbose=flags["verbose"],
    )
    settings, broken = DEFAULT_SETTINGS, None
    try:
        settings = resolve_settings(flags, os.environ, output.detail)
    except SetupError as error:
        if needs_settings:
            raise
        broken = error
    for name, origin in settings.origins.items():
        value = getattr(settings, name)
        if name == "sqid_alphabet" and value is not None:
            value = "***"
        output.detail(f"{name.replace('_', '-')}: {' '.join(value) if name == 'regions' else value} (from {origin})")
    output.detail(f"credentials: {settings.identity}")
    connect = connect_seconds(settings)
    session = Session(settings, environ=os.environ, connect=connect, report=output.note, note=output.detail)
    home = RegionalStack(session)
    spread = bool(flags.get("spread"))
    for name, shown in {"table": "table", "url": "URL"}.items():
        if spread and getattr(settings, name) is not None:
            raise UsageError(
                f"--spread needs several regions, but a {shown} is in one ({name} from {settings.origins[name]})",
                hint="remove --spread",
            )
    regions = Regions(home, environ=os.environ, spread=spread, note=output.detail, warn=output.warn)
    return Run(flags, settings, home, regions, output, broken)


def _with_options(hint: str, flags: Mapping[str, Any]) -> str:
    if not hint.startswith("ticketctl ") or "--local" in hint:
        return hint
    for name in ("stack", "table", "region", "profile", "endpoint_url"):
        if name == "region":
            hint += "".join(f" --region {region}" for region in flags.get(name) or () if "--region" not in hint)
        elif flags.get(name) is not None:
            hint += f" --{name.replace('_', '-')} {shlex.quote(str(flags[name]))}"
    if hint.startswith("ticketctl status") and flags.get("partition") is not None:
        hint += f" --partition {shlex.quote(flags['partition'])}"
    is_for_local = hint.startswith("ticketctl local ")  # these commands do not have the option
    return f"{hint} --local" if flags.get("local") and not is_for_local else hint

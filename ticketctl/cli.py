"""The Typer app: its wiring, and the single place where errors become messages and exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

if not sys.stdout.isatty():
    os.environ["TYPER_USE_RICH"] = "0"  # else GITHUB_ACTIONS and FORCE_COLOR put colours into pipes

import typer

from ticketctl import __version__
from ticketctl.commands import local, mint, stack, status
from ticketctl.errors import TicketctlError, UsageError
from ticketctl.render import Output, standard_output

app = typer.Typer(
    name="ticketctl",
    help="Short unique integers from a serverless ticket server.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=True,
)
for module in (mint, status, stack, local):
    module.register(app)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(stdout=standard_output(), stderr=sys.stderr, environ=os.environ, as_json=_asks(arguments, "--json"))
    debug = _asks(arguments, "--debug")
    try:
        return int(app(arguments, prog_name="ticketctl", standalone_mode=False) or 0)
    except TicketctlError as error:
        return _report(error, output, debug=debug)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "ticketctl"
        return _report(UsageError(error.format_message(), hint=f"{command} --help"), output, debug=debug)
    except Exception as error:
        bug = TicketctlError(
            f"ticketctl has a bug: {type(error).__name__}: {error}",
            hint="run it again with --debug and report what it prints",
        )
        return _report(bug, output, debug=debug)


def _report(error: TicketctlError, output: Output, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    output.error(error)
    return error.exit_code


def _asks(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag was typed; needed where the command line could not be parsed, too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return flag in options


def run() -> None:
    """The console script."""
    sys.exit(main())

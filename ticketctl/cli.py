"""The Typer app: its wiring, and the single place where errors become messages and exit codes."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Annotated

if sys.stdout is None or not sys.stdout.isatty():
    os.environ["TYPER_USE_RICH"] = "0"  # else GITHUB_ACTIONS and FORCE_COLOR put colours into pipes

import typer

from ticketctl import __version__
from ticketctl.commands.options import help_when_bare
from ticketctl.errors import TicketctlError, UsageError
from ticketctl.render import Output, lost_reader, standard_output

_MODULES = {
    "next": "mint",
    "fetch": "mint",
    "status": "status",
    "url": "status",
    "counter": "counter",
    "regions": "regions",
    "deploy": "stack",
    "diff": "stack",
    "destroy": "stack",
    "synth": "stack",
    "verify": "verify",
    "local": "local",
}
"""The commands, in the order of the help, and the module of ``ticketctl.commands`` that has each."""


def command_line(first: str = "") -> typer.Typer:
    """The Typer app with every command; where ``first`` is one of them, only with those of its module, to save time."""
    app = typer.Typer(
        name="ticketctl",
        help="Short unique integers from a serverless ticket server.",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    app.callback(invoke_without_command=True)(_root)
    for module in [_MODULES[first]] if first in _MODULES else dict.fromkeys(_MODULES.values()):
        import_module(f"ticketctl.commands.{module}").register(app)
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
    else:
        help_when_bare(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = _asks(arguments, "--debug")
    if sys.stderr is None:
        sys.stderr = io.StringIO()  # nobody listens; the exit code still speaks
    has_stdout = sys.stdout is not None
    output = Output(
        stdout=standard_output() if has_stdout else io.BytesIO(),
        stderr=sys.stderr,
        environ=os.environ,
        as_json=_asks(arguments, "--json"),
    )
    if not has_stdout:  # the next file to be opened would get its number, and our answers
        return _report(lost_reader(OSError(errno.EBADF, os.strerror(errno.EBADF))), output, debug=debug)
    try:
        with _prints_through(output):
            app = command_line(arguments[0] if arguments else "")
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


@contextlib.contextmanager
def _prints_through(output: Output) -> Iterator[None]:
    """In a pipe, let what Typer prints (help, version, completion) meet a closed or full stdout as answers do."""
    if sys.stdout.isatty():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()) as text:
        yield
    for line in text.getvalue().splitlines():
        output.line(line)


def _report(error: TicketctlError, output: Output, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    output.error(error)
    return error.exit_code


def _asks(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag was typed; needed where the command line could not be parsed, too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return flag in options

"""The Typer app: its wiring, and the single place that turns errors into messages and exit codes."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Annotated

if sys.stdout is None or not sys.stdout.isatty():
    os.environ["TYPER_USE_RICH"] = "0"  # otherwise GITHUB_ACTIONS and FORCE_COLOR put colors into pipes

import typer

from ticketctl import __version__
from ticketctl.commands.options import Group, help_without_command
from ticketctl.errors import TicketctlError, UsageError
from ticketctl.output import Output, delivery_error, standard_output

_PANELS = {
    "Mint": {"next": "next", "fetch": "fetch"},
    "Look": {
        "status": "status",
        "url": "status",
        "regions": "regions",
        "verify": "verify",
        "decode": "decode",
        "logs": "logs",
        "doctor": "doctor",
    },
    "Counters": {"counter": "counter"},
    "Deploy": {"deploy": "stack", "diff": "stack", "destroy": "stack", "synth": "stack"},
    "Local": {"local": "local"},
}
"""The panels of the help: the commands of each in order, with the module of ``ticketctl.commands`` that has them."""
_EXAMPLES = """\b
Examples:
    ticketctl next --local
    ticketctl deploy --region eu-central-1
    ticketctl fetch --help"""
_MODULES = {name: module for panel in _PANELS.values() for name, module in panel.items()}


def command_line(first: str = "") -> typer.Typer:
    """The Typer app for a command line that begins with ``first``.

    It has only the commands of the module that has ``first``. For any other word it has all commands, but not their
    options: enough for ticketctl's own help and for the error about a mistyped name. To build all takes longer.
    """
    if first not in _MODULES:
        return _overview()
    app = _empty()
    _register(app, _MODULES[first])
    return app


def whole_command_line() -> typer.Typer:
    """The Typer app with every command: for completion."""
    app = _empty()
    for module in dict.fromkeys(_MODULES.values()):
        _register(app, module)
    return app


def _overview() -> typer.Typer:
    app, whole = _empty(), whole_command_line()
    texts = {str(command.name): command.help for command in whole.registered_commands}
    texts |= {
        str(group.name): group.typer_instance.info.help for group in whole.registered_groups if group.typer_instance
    }
    for panel, names in _PANELS.items():
        for name in names:
            app.command(name, help=texts[name], rich_help_panel=panel)(lambda: None)
    return app


def _register(app: typer.Typer, module: str) -> None:
    import_module(f"ticketctl.commands.{module}").register(app)


def _empty() -> typer.Typer:
    app = typer.Typer(
        name="ticketctl",
        cls=Group,
        help="Mint short unique integers from a serverless ticket server.",
        epilog=_EXAMPLES,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        add_completion=True,
    )
    app.callback(invoke_without_command=True)(_root)
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
    else:
        help_without_command(context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = _asks(arguments, "--debug")
    if sys.stderr is None:
        sys.stderr = io.StringIO()  # nobody reads it, but the exit code still says what happened
    has_stdout = sys.stdout is not None
    output = Output(
        stdout=standard_output() if has_stdout else io.BytesIO(),
        stderr=sys.stderr,
        environ=os.environ,
        as_json=_asks(arguments, "--json"),
    )
    if not has_stdout:  # otherwise the next file that is opened gets descriptor 1, and with it the results
        return _report(delivery_error(OSError(errno.EBADF, os.strerror(errno.EBADF))), output, debug=debug)
    try:
        with _prints_through(output):
            completes = "_TICKETCTL_COMPLETE" in os.environ
            app = whole_command_line() if completes else command_line(arguments[0] if arguments else "")
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
            hint="run it again with --debug and report the traceback",
        )
        return _report(bug, output, debug=debug)


@contextlib.contextmanager
def _prints_through(output: Output) -> Iterator[None]:
    """In a pipe, write what Typer prints (help, completion) through ``Output``: it handles a closed or full stdout."""
    if sys.stdout.isatty():
        yield
        return
    ended = None
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            yield
        except SystemExit as exit_code:  # completion ends with it
            ended = exit_code
    for line in text.getvalue().splitlines():
        output.line(line)
    if ended is not None:
        raise ended


def _report(error: TicketctlError, output: Output, *, debug: bool) -> int:
    trace = ""
    if debug:
        import traceback

        trace = traceback.format_exc()
    output.error(error, traceback=trace)
    return error.exit_code


def _asks(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag was given, even if the command line cannot be parsed."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return flag in options
